"""Decides: events in, decisions out; and what a study writes down."""
