from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier

import numpy as np
import pytest
from jaxtyping import Float64

from pipeline.members.downsample import Downsampling, Part, overlaps
from pipeline.slots.layout import Box
from pipeline.study.sections import StreamConfig
from pipeline.study.streamed import streamed_spec
from solvers.base import FieldSpec, Snapshot, SolverFailed

GRID = (12, 20)
SPEC = FieldSpec(
    names=("u", "v", "a"),
    units=("m", "m/s", "1"),
    shape=GRID,
    spacing=(0.5, 0.25),
    inputs=("a",),
)


def member(steps: int = 6, grid: tuple[int, ...] = GRID) -> list[Snapshot]:
    rng = np.random.default_rng(1)
    given = rng.normal(size=(1, *grid))
    return [
        Snapshot(
            step, 0.1 * step, np.concatenate([rng.normal(size=(2, *grid)), given], dtype=np.float32)
        )
        for step in range(steps + 1)
    ]


def stream(**settings: object) -> StreamConfig:
    return StreamConfig.model_validate(settings)


def thinned(wanted: StreamConfig, *, spec: FieldSpec = SPEC) -> list[Snapshot]:
    return list(Downsampling(spec, wanted)(iter(member(grid=spec.shape))))


def test_by_default_the_solvers_own_snapshots_leave_it() -> None:
    snapshots = member()
    out = list(Downsampling(SPEC, stream())(iter(snapshots)))
    assert all(a is b for a, b in zip(out, snapshots, strict=True))


def test_every_nth_step_leaves_untouched() -> None:
    snapshots = member()
    out = list(Downsampling(SPEC, stream(every=3))(iter(snapshots)))
    assert [snapshot.step for snapshot in out] == [0, 3, 6]
    assert out[1] is snapshots[3]


def test_steps_are_asked_for_one_by_one() -> None:
    asked: list[int] = []

    def solver() -> Iterator[Snapshot]:
        for snapshot in member():
            asked.append(snapshot.step)
            yield snapshot

    out = Downsampling(SPEC, stream(every=2, coarsen=2))(solver())
    next(out), next(out)
    assert asked == [0, 1, 2]


def test_fields_are_picked_by_name_in_the_solvers_order() -> None:
    wanted = stream(fields=("a", "v"))
    for out, whole in zip(thinned(wanted), member(), strict=True):
        np.testing.assert_array_equal(out.fields, whole.fields[[1, 2]])
    spec = streamed_spec(SPEC, wanted)
    assert (spec.names, spec.units, spec.inputs) == (("v", "a"), ("m/s", "1"), ("a",))


def test_an_input_field_is_the_initial_state_in_every_sample() -> None:
    wanted = stream(fields=("u",), input_fields=("v", "u"), every=2)
    initial = member()[0].fields
    for out in thinned(wanted):
        np.testing.assert_array_equal(out.fields[0], member()[out.step].fields[0])
        np.testing.assert_array_equal(out.fields[1:], initial[[1, 0]])
    spec = streamed_spec(SPEC, wanted)
    assert spec.names == ("u", "initial_v", "initial_u")
    assert spec.units == ("m", "m/s", "m")
    assert spec.inputs == ("initial_v", "initial_u")


def test_a_coarse_value_is_the_mean_of_the_cells_it_covers() -> None:
    out = thinned(stream(coarsen=4))[2].fields
    whole = member()[2].fields
    assert out.shape == (3, 3, 5)
    for channel, j, i in product(range(3), range(3), range(5)):
        cells = whole[channel, 4 * j : 4 * j + 4, 4 * i : 4 * i + 4]
        assert out[channel, j, i] == pytest.approx(cells.mean(), abs=1e-6)
    assert streamed_spec(SPEC, stream(coarsen=4)).spacing == (2.0, 1.0)


@pytest.mark.parametrize("grid", [(20,), (12, 20), (6, 4, 10)])
@pytest.mark.parametrize("factor", [2, 3])
def test_means_keep_the_total_and_constants_in_any_dimension(
    grid: tuple[int, ...], factor: int
) -> None:
    spec = FieldSpec(
        names=("u", "v", "a"), units=("1", "1", "1"), shape=grid, spacing=(1.0,) * len(grid)
    )
    out = thinned(stream(coarsen=factor), spec=spec)[1].fields
    assert out.shape == (3, *(points // factor for points in grid))
    whole = member(grid=grid)[1].fields
    np.testing.assert_allclose(
        out.mean(tuple(range(1, out.ndim))), whole.mean(tuple(range(1, whole.ndim))), atol=1e-6
    )
    constant = [Snapshot(0, 0.0, np.full((3, *grid), 300.1, np.float32))]
    flat = next(Downsampling(spec, stream(coarsen=factor))(iter(constant)))
    np.testing.assert_allclose(flat.fields, 300.1, rtol=1e-7)


def test_a_linear_field_stays_linear_on_a_grid_that_does_not_divide() -> None:
    weights = overlaps(20, 7)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    edges = np.arange(8) * 20 / 7
    middle = (edges[1:] + edges[:-1]) / 2
    # Cells that are cut count with their own middle: off by less than half a cell's curvature.
    np.testing.assert_allclose(weights @ (np.arange(20) + 0.5), middle, atol=0.1)
    assert weights @ np.ones(20) == pytest.approx(1.0)


@pytest.mark.parametrize("coarsen", [4, (5, 7)])
def test_mpi_ranks_together_stream_what_one_would(coarsen: int | tuple[int, int]) -> None:
    wanted = stream(coarsen=coarsen, input_fields=("v",), every=3)
    whole = list(Downsampling(SPEC, wanted)(iter(member())))
    boxes = [Box((0, 0), (7, 11)), Box((0, 11), (7, 9)), Box((7, 0), (5, 20))]
    added, barrier = [np.zeros(0)] * 3, Barrier(3)

    def streamed(rank: int) -> tuple[Box, list[Snapshot]]:
        def add_up(values: Float64[np.ndarray, " *any"]) -> Float64[np.ndarray, " *any"]:
            added[rank] = values
            barrier.wait(10)
            total = np.asarray(added[0] + added[1] + added[2])
            barrier.wait(10)
            return total

        part = Part(box=boxes[rank], rank=rank, ranks=3, add_up=add_up)
        own = (slice(None), *boxes[rank].slices)
        downsampling = Downsampling(SPEC, wanted, part=part)
        mine = (snapshot._replace(fields=snapshot.fields[own]) for snapshot in member())
        return downsampling.box, list(downsampling(mine))

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(streamed, range(3)))
    for number, expected in enumerate(whole):
        together = np.full_like(expected.fields, np.nan)
        for box, snapshots in parts:
            assert np.isnan(together[(slice(None), *box.slices)]).all()
            together[(slice(None), *box.slices)] = snapshots[number].fields
        np.testing.assert_allclose(together, expected.fields, atol=1e-6)


def test_half_precision_rounds_and_refuses_what_it_cannot_hold() -> None:
    out = thinned(stream(dtype="float16"))[1].fields
    assert out.dtype == np.float16
    np.testing.assert_allclose(out, member()[1].fields, rtol=1e-3, atol=1e-3)
    hot = member()
    hot[2].fields[1, 3, 4] = 7e4
    with pytest.raises(SolverFailed, match=r"'v' at solver step 2, time 0.2 s.*65504.*float32"):
        list(Downsampling(SPEC, stream(dtype="float16"))(iter(hot)))
