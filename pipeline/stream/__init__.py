"""A sample's way from the solver's process into a slot."""
