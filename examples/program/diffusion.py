"""A petsc4py program as somebody may have it: u_t = nu (u_xx + u_yy) on a periodic square.

It knows nothing of headrace; `mpiexec -n 2 python diffusion.py -nu 0.02 -ts_monitor` runs it alone.
"""

import sys

import numpy as np
import petsc4py

petsc4py.init(sys.argv)

from petsc4py import PETSc  # noqa: E402 - only an initialised PETSc may be imported

options = PETSc.Options()
nu = options.getReal("nu", 0.02)
width = options.getReal("width", 0.1)

da = PETSc.DMDA().create(
    sizes=(32, 24),  # x, y
    boundary_type=("periodic", "periodic"),
    stencil_width=1,
    setup=True,
)
nx, ny = da.getSizes()
(west, east), (south, north) = da.getRanges()
local = da.createLocalVec()


def rates(ts: PETSc.TS, time: float, state: PETSc.Vec, out: PETSc.Vec) -> None:
    """The five-point Laplacian of this rank's part."""
    da.globalToLocal(state, local)
    u = local.array_r.reshape(north - south + 2, east - west + 2)
    inner = u[1:-1, 1:-1]
    across = (u[1:-1, :-2] - 2 * inner + u[1:-1, 2:]) * nx**2
    along = (u[:-2, 1:-1] - 2 * inner + u[2:, 1:-1]) * ny**2
    out.array[:] = (nu * (across + along)).ravel()


y, x = (np.mgrid[south:north, west:east] + 0.5) / np.array([ny, nx]).reshape(2, 1, 1)
state = da.createGlobalVec()
state.array[:] = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / width**2).ravel()

ts = PETSc.TS().create()
ts.setDM(da)
ts.setRHSFunction(rates, state.duplicate())
ts.setType("rk")
ts.setTimeStep(0.005)
ts.setMaxTime(0.1)
ts.setExactFinalTime(PETSc.TS.ExactFinalTime.MATCHSTEP)  # type: ignore[arg-type]  # the stub's type
ts.setFromOptions()
ts.solve(state)
