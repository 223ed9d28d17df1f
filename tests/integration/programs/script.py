"""Solves diag(1, 2, 4, ...) x = scale (1, 2, 3, ...) twice, by KSP: a petsc4py program."""

import sys

import petsc4py

petsc4py.init(sys.argv)

from petsc4py import PETSc  # noqa: E402 - only an initialised PETSc may be imported

scale = PETSc.Options().getReal("scale", 1.0)
matrix = PETSc.Mat().createAIJ((6, 6), nnz=1)
right = matrix.createVecLeft()
for row in range(*matrix.getOwnershipRange()):
    matrix.setValue(row, row, 2.0**row)
    right.array[row - right.getOwnershipRange()[0]] = scale * (row + 1)
matrix.assemble()
solution = matrix.createVecRight()
ksp = PETSc.KSP().create()
ksp.setOperators(matrix)
ksp.setType("gmres")
ksp.setFromOptions()
for _ in range(2):
    ksp.solve(right, solution)
    solution.viewFromOptions("-vec_view")
    right.scale(2.0)
