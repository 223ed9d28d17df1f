"""What a study may say about ``kind: darcy``, and what it is told when that is refused."""

import numpy as np
import pytest

from solvers.base import SolverFailed
from solvers.configs.darcy import DarcyConfig
from solvers.numerics.random_fields import draw
from solvers.pdes.darcy import Darcy
from solvers.petsc import self_communicator

VALUES = {"forcing": 1.0, "seed": 3.0}
SMALL = DarcyConfig(grid=(12, 20))


def test_what_is_announced() -> None:
    config = DarcyConfig(grid=(24, 40), length=(1.2, 4.0))
    spec = config.spec()
    assert (spec.names, spec.inputs) == (("pressure", "coefficient"), ("coefficient",))
    assert spec.units == ("Pa", "m^2/(Pa s)")
    assert spec.sample_shape == (2, 24, 40)
    assert spec.spacing == pytest.approx((0.05, 0.1))
    assert (config.max_snapshots, config.end_time) == (2, 1.0)


@pytest.mark.parametrize(
    ("coefficient", "extra"),
    [
        ({"kind": "two_phase"}, []),
        ({"kind": "two_phase", "contrast": None}, ["contrast"]),
        ({"kind": "voronoi", "contrast": None}, ["contrast"]),
        ({"kind": "lognormal", "log_std": 0.5}, []),
        ({"kind": "lognormal", "log_std": None}, ["log_std"]),
    ],
)
def test_what_the_coefficient_leaves_open_is_a_parameter(
    coefficient: dict[str, object], extra: list[str]
) -> None:
    parameters = DarcyConfig.model_validate({"coefficient": coefficient}).parameters()
    assert [p.name for p in parameters] == ["forcing", "seed", *extra]
    assert [p.name for p in parameters if p.seed] == ["seed"]


def test_the_default_coefficient_is_that_of_the_benchmark() -> None:
    field = draw(DarcyConfig().coefficient, 5.0, length=(1.0, 1.0), boundary="neumann")
    x = (np.arange(50) + 0.5) / 50
    np.testing.assert_array_equal(np.unique(field(x, x)), [3.0, 12.0])
    coefficient = DarcyConfig().coefficient
    assert coefficient.kind == "two_phase"
    assert (coefficient.length_scale, coefficient.smoothness) == (1 / 3, 2.0)


@pytest.mark.petsc
@pytest.mark.parametrize(
    ("coefficient", "extra"),
    [
        ({"kind": "two_phase", "contrast": None}, {"contrast": 7.0}),
        ({"kind": "lognormal", "log_std": None}, {"log_std": 0.3}),
    ],
)
def test_a_parameter_stands_in_for_the_setting(
    coefficient: dict[str, object], extra: dict[str, float]
) -> None:
    fields = []
    for changed, values in ((coefficient, VALUES | extra), (coefficient | extra, VALUES)):
        solver = Darcy(DarcyConfig.model_validate({"grid": (12, 20), "coefficient": changed}))
        fields.append([s.fields for s in solver.run(values, self_communicator())])
        solver.close()
    np.testing.assert_array_equal(fields[0], fields[1])


@pytest.mark.petsc
def test_the_first_snapshot_has_the_coefficient_and_no_pressure() -> None:
    solver = Darcy(SMALL)
    first, last = solver.run(VALUES, self_communicator())
    solver.close()
    y, x = (np.arange(12) + 0.5) / 12, (np.arange(20) + 0.5) / 20
    expected = draw(SMALL.coefficient, 3.0, length=(1.0, 1.0), boundary="neumann")(y, x)
    np.testing.assert_array_equal(first.fields[0], np.zeros((12, 20)))
    np.testing.assert_array_equal(first.fields[1], expected)
    assert last.fields[0].min() > 0.0
    assert (first.iterations, last.iterations) == (0, 1)


@pytest.mark.petsc
def test_values_that_cannot_be_computed_with() -> None:
    solver = Darcy(
        DarcyConfig.model_validate({"coefficient": {"kind": "voronoi", "contrast": None}})
    )
    for changed, message in (
        ({"contrast": 0.5}, "contrast=0.5: must be at least 1"),
        ({"seed": -1.0}, "seed=-1: need 0 <= seed"),
    ):
        with pytest.raises(SolverFailed, match=message):
            solver.run({**VALUES, "contrast": 9.0, **changed}, self_communicator())
    solver.close()


@pytest.mark.petsc
def test_options_inside_a_preconditioner_are_used_by_every_member() -> None:
    options = "-ksp_type cg -pc_type gamg -mg_levels_ksp_max_it {}"
    counts = []
    for sweeps in (1, 6):
        config = SMALL.model_copy(update={"petsc_options": options.format(sweeps)})
        solver = Darcy(config)
        counts.append(
            [list(solver.run(VALUES, self_communicator()))[1].iterations for _ in range(2)]
        )
        solver.close()
    (few, again), (many, many_again) = counts
    assert (few, many) == (again, many_again)
    assert few > many


@pytest.mark.petsc
def test_options_that_are_not_used_or_not_known_are_refused() -> None:
    for options, message in (
        ("-ksp_tpye cg", "did not use -ksp_tpye"),
        ("-pc_type no_such_method", "no_such_method"),
    ):
        solver = Darcy(SMALL.model_copy(update={"petsc_options": options}))
        with pytest.raises(ValueError, match=message):
            solver.run(VALUES, self_communicator())
        solver.close()


@pytest.mark.petsc
def test_a_member_ends_when_the_next_one_begins_or_its_solver_is_closed() -> None:
    solver = Darcy(SMALL)
    first = solver.run(VALUES, self_communicator())
    next(first)
    second = solver.run(VALUES, self_communicator())
    with pytest.raises(RuntimeError, match="stopped at solver step 1: its solver was closed or"):
        next(first)
    next(second)
    solver.close()
    with pytest.raises(RuntimeError, match="stopped at solver step 1"):
        next(second)
