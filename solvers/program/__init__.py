"""Any PETSc program, unmodified, as a solver."""
