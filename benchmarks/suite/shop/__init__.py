"""A shop: the application that the benchmark's suite tests."""
