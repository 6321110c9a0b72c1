"""What a person sees of a run, a project, a failure. The modules here only read."""
