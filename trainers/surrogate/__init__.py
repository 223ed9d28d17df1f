"""What is left of a study: the network in physical units, its card, its export."""
