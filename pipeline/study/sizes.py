"""How large the samples, slots and messages of a study are."""

from pipeline.slots.layout import SampleLayout
from pipeline.stream import wire
from pipeline.study import streamed
from pipeline.study.sections import StreamConfig
from solvers.config import SolverConfig
from trainers.config import TrainerConfig


def samples_per_member(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Samples that a completed member yields: windows that start ``stride`` snapshots apart."""
    task = trainer.task
    return (streamed.snapshots_of(solver.max_snapshots, stream) - task.window) // task.stride + 1


def sample_layout(
    solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig
) -> SampleLayout:
    """Shape of what lies in a slot."""
    return SampleLayout(
        window=trainer.task.window,
        sample_shape=streamed.streamed_spec(solver.spec(), stream).sample_shape,
        num_parameters=len(solver.parameters()),
        dtype=stream.dtype,
    )


def slot_bytes(layout: SampleLayout) -> int:
    """Shared memory of one slot: the fields, the inputs, member, number and step."""
    return layout.nbytes + 8 * (layout.num_inputs + 3)


def message_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Length of the longest message: samples put together, or a piece of a large one."""
    return wire.largest_message(sample_layout(solver, stream, trainer), stream.batch_bytes)
