"""How a member is run: in this process, or by a group of MPI processes."""
