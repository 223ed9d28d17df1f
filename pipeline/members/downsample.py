"""What of a solver's snapshots leaves the solver: which steps, fields and points, and how exact.

1. What is left out crosses no process boundary.
2. A coarse value is the mean of the fine values that it covers, weighted by their overlap, however
   the grid is cut among mpi_ranks.
3. An input field is the same in every snapshot of a member.
4. A value that the dtype cannot hold ends the member with ``SolverFailed``.
5. A study that asks for none of this gets the solver's own arrays, untouched.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Float64

from pipeline.slots.layout import Box
from pipeline.study.sections import StreamConfig
from pipeline.study.streamed import coarse_grid, kept_channels, streamed_spec
from solvers.base import FieldSpec, Snapshot, SolverFailed

# From the points that this mpi_rank has to those that it streams, channel by channel.
Means = Callable[[Float32[np.ndarray, " channel *fine"]], Float[np.ndarray, " channel *coarse"]]
AddUp = Callable[[Float64[np.ndarray, " *any"]], Float64[np.ndarray, " *any"]]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One mpi_rank's share of a member.

    Attributes:
        box: Of the solver's grid.
        rank: Number of this mpi_rank.
        ranks: How many there are.
        add_up: Adds an array up over all of them; collective.
    """

    box: Box
    rank: int
    ranks: int
    add_up: AddUp


@final
class Downsampling:
    """Applies a study's ``stream`` section to the snapshots of a member.

    Args:
        spec: What the solver yields.
        stream: What of it is wanted.
        part: This mpi_rank's share; None: the whole field.
    """

    def __init__(self, spec: FieldSpec, stream: StreamConfig, *, part: Part | None = None) -> None:
        self._spec, self._stream = streamed_spec(spec, stream), stream
        channels = kept_channels(spec, stream)
        everything = channels == list(range(len(spec.names)))
        self._channels: slice | list[int] = slice(None) if everything else channels
        self._initial = [spec.names.index(name) for name in stream.input_fields]
        grid = coarse_grid(spec, stream)
        self._coarsen: Means = np.asarray
        if grid == spec.shape:
            self.box = Box.whole(spec.shape) if part is None else part.box
        elif part is None:
            self.box = Box.whole(grid)
            self._coarsen = _whole_means(spec.shape, grid)
        else:
            self.box = slab(grid, part.rank, part.ranks)
            self._coarsen = _means_over_ranks(spec.shape, grid, part, self.box)
        whole = grid == spec.shape and everything and not self._initial
        self._untouched = whole and stream.dtype == "float32"
        self._dtype = np.dtype(stream.dtype)

    def __call__(self, snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
        """The snapshots that leave the solver, from the initial state on."""
        if self._untouched and self._stream.every == 1:
            return snapshots
        return self._thinned(snapshots)

    def _thinned(self, snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
        inputs: Float[np.ndarray, " input *box"] | None = None
        for snapshot in snapshots:
            if snapshot.step == 0 and self._initial:
                inputs = self._coarsen(snapshot.fields[self._initial])
            if snapshot.step % self._stream.every == 0:
                yield snapshot if self._untouched else self._reduced(snapshot, inputs)

    def _reduced(
        self, snapshot: Snapshot, inputs: Float[np.ndarray, " input *box"] | None
    ) -> Snapshot:
        fields = np.empty((len(self._spec.names), *self.box.size), self._dtype)
        kept = len(fields) - len(self._initial)
        with np.errstate(over="ignore"):  # looked for below
            fields[:kept] = self._coarsen(snapshot.fields[self._channels])
            if inputs is not None:
                fields[kept:] = inputs
        if self._dtype != np.float32:
            self._require_held(fields, snapshot)
        return snapshot._replace(fields=fields)

    def _require_held(self, fields: Float[np.ndarray, " channel *box"], at: Snapshot) -> None:
        for name, values in zip(self._spec.names, fields, strict=True):
            if not np.isfinite(values).all():
                raise SolverFailed(
                    f"field {name!r} at solver step {at.step}, time {at.time:g} s has a value "
                    f"beyond {np.finfo(self._dtype).max:g}, the largest {self._dtype}. Set "
                    "stream.dtype to float32"
                )


def slab(grid: Sequence[int], rank: int, ranks: int) -> Box:
    """The share of ``rank`` in a grid that is cut along its longest axis."""
    axis = int(np.argmax(grid))
    edges = [grid[axis] * number // ranks for number in (rank, rank + 1)]
    start, size = [0] * len(grid), list(grid)
    start[axis], size[axis] = edges[0], edges[1] - edges[0]
    return Box(tuple(start), tuple(size))


def overlaps(fine: int, coarse: int) -> Float64[np.ndarray, " coarse fine"]:
    """Share of each fine cell in each coarse one, along one axis; every row sums to 1."""
    edges = np.arange(coarse + 1) * (fine / coarse)
    cells = np.arange(fine)
    covered = np.minimum(edges[1:, None], cells + 1.0) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(covered, 0.0) * (coarse / fine))


def _whole_means(fine: Sequence[int], coarse: Sequence[int]) -> Means:
    if any(n % m for n, m in zip(fine, coarse, strict=True)):
        return _weighted([overlaps(n, m) for n, m in zip(fine, coarse, strict=True)])
    shape = [size for n, m in zip(fine, coarse, strict=True) for size in (m, n // m)]
    axes = tuple(range(2, 2 + 2 * len(fine), 2))

    def means(
        fields: Float32[np.ndarray, " channel *fine"],
    ) -> Float64[np.ndarray, " channel *coarse"]:
        # In float64: a float32 sum of many equal values drifts.
        blocks = fields.reshape(fields.shape[0], *shape)
        return np.asarray(blocks.mean(axis=axes, dtype=np.float64))

    return means


def _means_over_ranks(fine: Sequence[int], coarse: Sequence[int], part: Part, box: Box) -> Means:
    """Every mpi_rank adds its share of each coarse value; each keeps the values of its slab."""
    share = _weighted(
        [overlaps(n, m)[:, own] for n, m, own in zip(fine, coarse, part.box.slices, strict=True)]
    )

    def means(
        fields: Float32[np.ndarray, " channel *own"],
    ) -> Float64[np.ndarray, " channel *slab"]:
        everywhere = part.add_up(share(fields))
        return np.asarray(everywhere[(slice(None), *box.slices)])

    return means


def _weighted(weights: Sequence[Float64[np.ndarray, " _ _"]]) -> Means:
    def means(
        fields: Float32[np.ndarray, " channel *fine"],
    ) -> Float64[np.ndarray, " channel *coarse"]:
        values = fields.astype(np.float64)
        for axis, matrix in enumerate(weights, start=1):
            # The product's new axis comes last: moved back, the order is that of the grid again.
            product = np.tensordot(values, matrix, axes=(axis, 1))
            values = np.moveaxis(product, -1, axis)
        return np.asarray(values)

    return means
