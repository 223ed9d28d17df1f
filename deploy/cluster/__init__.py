"""Machines, and the job scripts that run a study on them."""
