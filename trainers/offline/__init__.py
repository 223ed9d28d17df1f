"""Training from files, to compare with."""
