"""One frozen config per PDE; importing any of them loads neither PETSc nor the solver."""
