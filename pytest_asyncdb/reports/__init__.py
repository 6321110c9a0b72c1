"""What a person sees of a run, a project, a failure. Modules here read; none of them acts."""
