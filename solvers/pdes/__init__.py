"""One partial or ordinary differential equation a file."""
