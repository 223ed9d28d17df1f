"""Parts that several solvers are made of."""
