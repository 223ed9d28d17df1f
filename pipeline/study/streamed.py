"""Names and shape of what leaves the solver, from what it yields and what the study wants of it.

Known before anything runs, and without NumPy; ``pipeline/members/downsample.py`` does it to the
arrays.
"""

from dataclasses import replace

from pipeline.study.sections import StreamConfig
from solvers.base import FieldSpec

INITIAL = "initial_"  # before the name of a field: what it was at time 0


def streamed_spec(spec: FieldSpec, stream: StreamConfig) -> FieldSpec:
    """What every sample holds: the kept channels, then the input fields that were asked for."""
    kept = kept_channels(spec, stream)
    names = tuple(spec.names[channel] for channel in kept)
    initial = tuple(f"{INITIAL}{name}" for name in stream.input_fields)
    units = dict(zip(spec.names, spec.units, strict=True))
    grid = coarse_grid(spec, stream)
    return replace(
        spec,
        names=names + initial,
        units=tuple(units[name] for name in names + stream.input_fields),
        shape=grid,
        spacing=tuple(
            width * fine / coarse
            for width, fine, coarse in zip(spec.spacing, spec.shape, grid, strict=True)
        ),
        inputs=tuple(name for name in spec.inputs if name in names) + initial,
    )


def kept_channels(spec: FieldSpec, stream: StreamConfig) -> list[int]:
    """Channels of the solver that leave it, in the solver's order."""
    wanted = spec.names if stream.fields is None else stream.fields
    return [channel for channel, name in enumerate(spec.names) if name in wanted]


def coarse_grid(spec: FieldSpec, stream: StreamConfig) -> tuple[int, ...]:
    """Points per axis of what leaves the solver."""
    if isinstance(stream.coarsen, tuple):
        return stream.coarsen
    # Points that do not divide go into slightly larger cells than asked for.
    return tuple(max(1, points // stream.coarsen) for points in spec.shape)


def snapshots_of(max_snapshots: int, stream: StreamConfig) -> int:
    """Snapshots of a member that may become samples."""
    kept = (max_snapshots - 1) // stream.every + 1
    return kept if stream.initial_state else kept - 1
