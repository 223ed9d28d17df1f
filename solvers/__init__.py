"""PRODUCE: simulations that yield snapshots; knows NumPy, PETSc and MPI, nothing of the rest."""
