"""What a test did: its statements, its rows, its times. Modules here read; none of them acts."""
