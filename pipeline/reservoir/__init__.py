"""Which slot holds what, and what is drawn."""
