"""A study while it runs: on the terminal and as metrics."""
