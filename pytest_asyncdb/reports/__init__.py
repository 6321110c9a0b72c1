"""What the plugin tells about a run, a project, a failure. Everything here reads, never acts."""
