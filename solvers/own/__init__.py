"""A solver class of the user's own."""
