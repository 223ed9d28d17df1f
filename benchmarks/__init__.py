"""What is claimed about speed, as runnable comparisons."""
