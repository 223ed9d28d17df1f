"""What the trainer is told of a study: what is to be learnt, and the seed of the weights."""

import numpy as np

from pipeline.study.config import StudyConfig
from pipeline.study.design import ranges_of
from pipeline.study.streamed import snapshots_of
from trainers.base import Input, Problem

_WEIGHTS_SEED = 0x3E16


def weights_seed(study: StudyConfig) -> int:
    """What the network's weights are drawn with, the same on all ranks."""
    return int(np.random.SeedSequence([study.seed, _WEIGHTS_SEED]).generate_state(1)[0])


def problem_of(study: StudyConfig) -> Problem:
    """What the trainer is told of a study: names, units, shapes and ranges."""
    ranges = ranges_of(study)
    spec, every, step = study.spec, study.stream.every, study.time_step
    first = 0.0 if study.stream.initial_state else step
    last = max(1, study.solver.max_snapshots - 1) // every * step
    return Problem(
        field_names=spec.names,
        field_units=spec.units,
        shape=spec.shape,
        spacing=spec.spacing,
        parameters=tuple(
            Input(
                name=parameter.name,
                unit=parameter.unit,
                low=ranges[parameter.name][0],
                high=ranges[parameter.name][1],
                learnt=not parameter.seed,
                log=study.sees_logarithm(parameter.name),
            )
            for parameter in study.solver.parameters()
        ),
        time=Input(name="time", unit="s", low=first, high=last),
        snapshots=snapshots_of(study.solver.max_snapshots, study.stream),
        window=study.window,
        time_step=step,
        step_every=every,
        input_fields=spec.inputs,
    )
