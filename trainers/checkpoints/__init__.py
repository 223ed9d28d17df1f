"""A trainer's state on disk."""
