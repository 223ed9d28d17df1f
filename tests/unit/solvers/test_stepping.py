"""A TS as a lazy sequence: somebody's own TS in a few lines, its end, failures and callbacks."""

import contextlib
import gc
import traceback
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from solvers.base import Snapshot, SolverFailed
from solvers.petsc import Owned, PETSc, require_finite_everywhere, self_communicator, vector_over
from solvers.stepping import (
    fields_of,
    fixed_step,
    restart,
    steps,
    stream,
    take_step,
)

pytestmark = pytest.mark.petsc


@pytest.fixture
def owned() -> Iterator[Owned]:
    with Owned() as objects:
        yield objects


def decay(owned: Owned, *, points: tuple[int, ...] = (5,), dof: int = 2) -> PETSc.TS:
    """u' = -u from 1, the way a petsc4py script writes it: 4 steps of 0.25 of Runge-Kutta 4."""
    da = owned(PETSc.DMDA().create(sizes=points, dof=dof, comm=self_communicator()))
    ts = owned(PETSc.TS().create(self_communicator()))
    rate = owned(da.createGlobalVec())
    ts.setDM(da)
    ts.setType("rk")
    ts.setRKType("4")
    ts.setRHSFunction(lambda _ts, _t, u, f: f.axpby(-1.0, 0.0, u), rate)
    state = owned(da.createGlobalVec())
    state.set(1.0)
    ts.setSolution(state)
    ts.setTimeStep(0.25)
    ts.setMaxSteps(4)
    return ts


def equal_steps(ts: PETSc.TS, options: str = "") -> None:
    fixed_step(ts, prefix="stepping_test_", options=options)


def test_a_users_ts_is_a_solver_in_one_line(owned: Owned) -> None:
    ts = decay(owned)
    equal_steps(ts)
    snapshots = list(stream(ts))
    assert [s.step for s in snapshots] == [0, 1, 2, 3, 4]
    assert [s.time for s in snapshots] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for s in snapshots:
        assert s.fields.shape == (2, 5)
        assert s.fields.dtype == np.float32
        np.testing.assert_allclose(s.fields, np.exp(-s.time), rtol=2e-4)


def test_each_step_is_taken_when_it_is_asked_for(owned: Owned) -> None:
    ts = decay(owned)
    sequence = steps(ts)
    for expected in range(4):
        assert next(sequence).number == ts.getStepNumber() == expected


def test_it_ends_where_ts_solve_ends(owned: Owned) -> None:
    # Adaptive and interpolated at the end: the same steps, times and values as PETSc's own loop.
    for final in ("stepover", "matchstep", "interpolate"):
        ends = []
        for streamed in (False, True):
            ts = decay(owned)
            ts.setMaxSteps(1000)
            ts.setMaxTime(2.1)
            ts.setExactFinalTime(getattr(PETSc.TS.ExactFinalTime, final.upper()))
            if streamed:
                (*_, last) = steps(ts)
                ends.append((ts.getStepNumber(), last.time, last.state.sum()))
            else:
                ts.solve()
                ends.append((ts.getStepNumber(), ts.getSolveTime(), ts.getSolution().sum()))
        assert ends[0] == ends[1]
        assert ends[0][0] > 2


def test_an_event_ends_it(owned: Owned) -> None:
    ts = decay(owned)
    equal_steps(ts)

    def crossing(_ts: PETSc.TS, time: float, _u: PETSc.Vec, value: np.ndarray) -> None:
        value[0] = time - 0.6

    ts.setEventHandler([0], [True], crossing)
    (*_, last) = steps(ts)
    assert last.time == pytest.approx(0.6, abs=1e-6)


def test_the_user_ends_it(owned: Owned) -> None:
    ts = decay(owned)
    user = PETSc.TS.ConvergedReason.CONVERGED_USER
    ts.setPostStep(lambda ts: ts.setConvergedReason(user) if ts.getStepNumber() == 2 else None)  # type: ignore[arg-type]
    assert [step.number for step in steps(ts)] == [0, 1, 2]


def test_a_ts_that_goes_on_starts_a_new_count(owned: Owned) -> None:
    ts = decay(owned)
    list(steps(ts))
    ts.setMaxSteps(6)
    assert [step.number for step in steps(ts)] == [0, 1, 2]


def test_limits_are_kept(owned: Owned) -> None:
    ts = decay(owned)
    for taken in (1, 2):
        given_up = steps(ts)
        list(islice(given_up, taken + 1))
        del given_up
        gc.collect()
        assert ts.getMaxSteps() == 4


def test_a_sequence_outlives_its_ts(owned: Owned, recwarn: pytest.WarningsRecorder) -> None:
    ts = decay(owned)
    sequence = steps(ts)
    list(islice(sequence, 2))
    ts.destroy()
    del sequence  # an unraisable error here would be a warning
    gc.collect()
    assert not recwarn.list


def test_a_ts_without_an_end_is_refused(owned: Owned) -> None:
    da = owned(PETSc.DMDA().create(sizes=(3,), dof=1, comm=self_communicator()))
    ts = owned(PETSc.TS().create(self_communicator()))
    ts.setDM(da)
    with pytest.raises(ValueError, match=r"this TS has no end. Call ts.setMaxTime"):
        next(steps(ts))


def test_the_receiver_owns_the_array(owned: Owned) -> None:
    kept = list(stream(decay(owned)))
    copies = [s.fields.copy() for s in kept]
    kept[0].fields[:] = np.nan
    for s, copy in zip(kept[1:], copies[1:], strict=True):
        np.testing.assert_array_equal(s.fields, copy)


def test_channels_come_first_and_x_last(owned: Owned) -> None:
    da = owned(PETSc.DMDA().create(sizes=(4, 3), dof=2, comm=self_communicator()))
    state = owned(da.createGlobalVec())
    numbers = np.arange(24.0)
    state.setArray(numbers)  # type: ignore[arg-type]  # the stub's type
    fields = fields_of(da, state)
    assert fields.shape == (2, 3, 4)
    np.testing.assert_array_equal(fields[1, 2], numbers[17::2][:4])  # row 2, second component


def test_a_ts_without_a_grid_needs_to_be_told_the_layout(owned: Owned) -> None:
    ts, u = owned(PETSc.TS().create(self_communicator())), owned(PETSc.Vec().createSeq(3))
    ts.setSolution(u)
    ts.setMaxSteps(1)
    with pytest.raises(TypeError, match=r"no DMDA \(its DM is of type 'shell'\)"):
        next(stream(ts))
    snapshot = next(stream(ts, lambda state: state.array_r.reshape(3, 1)))
    assert snapshot.fields.shape == (3, 1)


def raising(_ts: PETSc.TS, time: float, _u: PETSc.Vec, f: PETSc.Vec) -> None:
    if time > 0.3:
        raise KeyError("viscosity")
    f.set(-1.0)


def test_an_exception_in_a_callback_comes_out_with_its_traceback(owned: Owned) -> None:
    ts = decay(owned)
    equal_steps(ts)
    rate = owned(ts.getSolution().duplicate())
    ts.setRHSFunction(raising, rate)
    yielded: list[Snapshot] = []
    with pytest.raises(KeyError, match="viscosity") as caught:
        yielded.extend(stream(ts))
    assert [s.step for s in yielded] == [0, 1]
    assert "in raising" in "".join(traceback.format_exception(caught.value))


def test_petscs_own_error_fails_the_member(owned: Owned) -> None:
    ts = owned(PETSc.TS().create(self_communicator()))
    ts.setType("rk")
    ts.setSolution(owned(PETSc.Vec().createSeq(3)))
    ts.setTimeStep(0.25)
    ts.setMaxSteps(1)
    with pytest.raises(SolverFailed, match=r"solver step 1, time 0\.25 s: Must call TSSetRHSFun"):
        list(steps(ts))


def implicit(owned: Owned, options: str) -> PETSc.TS:
    """u' = -u^3 by backward Euler."""
    ts = decay(owned, dof=1)
    jacobian = owned(ts.getDM().createMat())

    def rate(_ts: PETSc.TS, _t: float, u: PETSc.Vec, f: PETSc.Vec) -> None:
        f.setArray(-(u.array_r**3))  # type: ignore[arg-type]  # the stub's type

    def slope(_ts: PETSc.TS, _t: float, u: PETSc.Vec, _j: PETSc.Mat, p: PETSc.Mat) -> None:
        diagonal = owned(u.duplicate())
        diagonal.setArray(-3 * u.array_r**2)  # type: ignore[arg-type]
        p.zeroEntries()
        p.setDiagonal(diagonal)
        p.assemble()

    ts.setType("beuler")
    ts.setRHSFunction(rate, owned(ts.getSolution().duplicate()))
    ts.setRHSJacobian(slope, jacobian)
    equal_steps(ts, options)
    return ts


def test_a_step_that_does_not_converge_says_why(owned: Owned) -> None:
    ts = implicit(owned, "-snes_max_it 1 -snes_rtol 1e-14")
    expected = (
        r"step 1, time 0\.25 s: DIVERGED_NONLINEAR_SOLVE, SNES DIVERGED_MAX_IT after 1 iterations"
    )
    with pytest.raises(SolverFailed, match=expected):
        list(steps(ts))
    ts = implicit(owned, "-ksp_type gmres -pc_type none -ksp_max_it 1 -ksp_rtol 1e-300")
    with pytest.raises(SolverFailed, match=r"DIVERGED_LINEAR_SOLVE.*KSP DIVERGED_ITS after 1"):
        list(steps(ts))


def test_a_value_that_is_not_finite_is_never_yielded(owned: Owned) -> None:
    ts = decay(owned)
    equal_steps(ts)
    ts.setPostStep(lambda ts: ts.getSolution().set(np.inf) if ts.getStepNumber() == 2 else None)
    yielded: list[Snapshot] = []
    with pytest.raises(SolverFailed, match=r"field is not finite at solver step 2, time 0\.5 s"):
        yielded.extend(stream(ts))
    assert [s.step for s in yielded] == [0, 1]


@pytest.mark.parametrize("kind", ["rk", "bdf", "arkimex", "cn", "ssp", "rosw", "alpha"])
def test_steps_are_equal_for_every_type(kind: str, owned: Owned) -> None:
    ts = implicit(owned, f"-ts_type {kind}")
    assert [step.time for step in steps(ts)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert ts.getType() == kind


@pytest.mark.parametrize("kind", ["rk", "bdf -ts_bdf_order 3", "arkimex", "alpha"])
def test_restarted_it_takes_the_same_steps(kind: str, owned: Owned) -> None:
    ts = implicit(owned, f"-ts_type {kind}")
    runs = []
    for _ in range(2):
        ts.getSolution().set(1.0)
        restart(ts, dt=0.25)
        runs.append([step.state.sum() for step in steps(ts)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-ts_dt 0.1", "-ts_dt would change the times of the snapshots"),
        ("-ts_adapt_type basic -ts_max_steps 3", "-ts_adapt_type, -ts_max_steps would change"),
        ("-ts_type nonsense", "PETSc cannot set up this solver: Unknown TS type: nonsense"),
        ("-ts_tpye rk", "did not use -ts_tpye"),
    ],
)
def test_options_that_are_refused(options: str, message: str, owned: Owned) -> None:
    ts, before = decay(owned), set(PETSc.Options().getAll())
    with pytest.raises(ValueError, match=message):
        equal_steps(ts, options)
    assert set(PETSc.Options().getAll()) == before


def test_iterations_are_what_petsc_itself_counts(owned: Owned) -> None:
    options = "-ksp_type gmres -pc_type none -ksp_rtol 1e-3"
    alone, streamed = implicit(owned, options), implicit(owned, options)
    alone.solve()
    counts = [s.iterations for s in stream(streamed)]
    assert counts[0] == 0
    assert min(counts[1:]) > 0
    assert sum(counts) == alone.getKSPIterations()
    streamed.setMaxSteps(6)  # it goes on: PETSc's count does not start anew, ours does
    more = [s.iterations for s in stream(streamed)]
    assert sum(more) == streamed.getKSPIterations() - alone.getKSPIterations()
    streamed.getSolution().set(1.0)
    restart(streamed, dt=0.25)
    streamed.setMaxSteps(4)
    assert [s.iterations for s in stream(streamed)] == counts


def test_without_linear_systems_nonlinear_iterations_count(owned: Owned) -> None:
    options = "-snes_type anderson -snes_rtol 1e-6"
    alone = implicit(owned, options)
    alone.solve()
    assert alone.getKSPIterations() == 0
    counts = [s.iterations for s in stream(implicit(owned, options))]
    assert sum(counts) == alone.getSNESIterations() > 4


def test_refused_steps_are_what_petsc_itself_counts(owned: Owned) -> None:
    def stiff() -> PETSc.TS:  # adaptive, with a first step that is much too long
        ts = decay(owned)
        rate = owned(ts.getSolution().duplicate())
        ts.setRHSFunction(lambda _ts, _t, u, f: f.axpby(-50.0, 0.0, u), rate)
        ts.setRKType("5dp")
        ts.setTolerances(rtol=1e-6, atol=1e-6)
        ts.setMaxSteps(20)
        return ts

    alone = stiff()
    alone.solve()
    refused = [s.refused for s in stream(stiff())]
    assert refused[1] > 0
    assert sum(refused) == alone.getStepRejections()
    assert 0 in refused[1:]


def test_the_message_names_the_time_that_it_is_given(owned: Owned) -> None:
    ts = implicit(owned, "-snes_max_it 1 -snes_rtol 1e-14")
    with pytest.raises(SolverFailed, match=r"solver step 7, time 3 s: DIVERGED"):
        take_step(ts, step=7, time=3.0)


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ([0.0, -2.0, 3e38, 3e38], True),  # though their norm is too large for float32
        ([0.0, 1e100], False),  # though their norm is finite
        ([0.0, -3.5e38], False),
        ([0.0, np.inf], False),
        ([np.nan, 0.0, 1.0], False),
        ([1.0, 0.0, 1e200, np.nan], False),
    ],
)
def test_what_a_snapshot_can_hold(values: list[float], fits: bool, owned: Owned) -> None:
    array = np.array([values])
    vec = vector_over(array, comm=PETSc.COMM_SELF, owned=owned)
    with contextlib.nullcontext() if fits else pytest.raises(SolverFailed, match="is not finite"):
        require_finite_everywhere(vec, array, step=3, time=0.5)
