"""What a test did: its statements, its rows, its times. The modules here only read."""
