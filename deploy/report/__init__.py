"""The report of a run: one page, its figures and pictures."""
