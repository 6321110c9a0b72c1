"""An application with an engine of its own, which knows nothing of tests."""
