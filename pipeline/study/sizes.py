"""How large the samples, slots and messages of a study are."""

import math

from pipeline.study import streamed
from pipeline.study.sections import (
    StreamConfig,
)
from solvers.config import SolverConfig
from trainers.config import TrainerConfig

# Limits of one message in pipeline/stream/link.py and wire.py, which bring zmq and are not
# imported here.
MAX_PIECE_BYTES = 4 << 20
MAX_SAMPLES = 4096
MAX_HEADER_BYTES = 512

_VALUE_BYTES = {"float32": 4, "float16": 2}


def samples_per_member(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Samples that a completed member yields: windows that start ``stride`` snapshots apart."""
    task = trainer.task
    return (streamed.snapshots_of(solver.max_snapshots, stream) - task.window) // task.stride + 1


def sample_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Field bytes of one sample."""
    spec = streamed.streamed_spec(solver.spec(), stream)
    return _VALUE_BYTES[stream.dtype] * trainer.task.window * math.prod(spec.sample_shape)


def slot_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Shared memory of one slot: the fields, the inputs, member, number and step."""
    inputs = len(solver.parameters()) + trainer.task.window
    return sample_bytes(solver, stream, trainer) + 8 * (inputs + 3)


def message_bytes(solver: SolverConfig, stream: StreamConfig, trainer: TrainerConfig) -> int:
    """Upper bound of the length of a message: samples put together, or a piece of a large one."""
    sample = sample_bytes(solver, stream, trainer)
    samples = min(max(1, stream.batch_bytes // sample), MAX_SAMPLES)
    payload = samples * sample if sample <= MAX_PIECE_BYTES else MAX_PIECE_BYTES
    table = samples * 8 * (2 + trainer.task.window)  # sample, step and times of each
    return payload + table + MAX_HEADER_BYTES + 8 * len(solver.parameters())
