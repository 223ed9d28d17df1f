"""What a sample of a study cannot be made of: its fields, grid, window, network and message."""

from collections.abc import Iterator

from pipeline.study.problems import counted, nearest, problem
from pipeline.study.unchecked import UncheckedStudy
from trainers.configs.model_checks import model_problems


def stream_problems(study: UncheckedStudy) -> Iterator[str]:
    """What ``stream`` asks for and the solver does not have."""
    spec, stream = study.solver.spec(), study.stream
    computed = [name for name in spec.names if name not in spec.inputs]
    for key, names, known in (
        ("fields", stream.fields or (), spec.names),
        ("input_fields", stream.input_fields, computed),
    ):
        for name in names:
            if name not in known:
                text = f"the solver yields no such field. {nearest(name, known)}It yields "
                yield problem(
                    f"stream.{key}", name, f"{text}{', '.join(known)}. Rename or remove it"
                )
    if stream.fields is not None and not {*stream.fields} & {*computed}:
        text = f"leaves nothing to learn. Name at least one of {', '.join(computed)}"
        yield problem("stream.fields", stream.fields, text)
    yield from _grid_problems(spec.shape, stream.coarsen)


def _grid_problems(grid: tuple[int, ...], coarsen: int | tuple[int, ...]) -> Iterator[str]:
    if isinstance(coarsen, int):
        if coarsen > max(grid):
            text = f"the grid has {list(grid)} points, so the factor must be at most {max(grid)}"
            yield problem("stream.coarsen", coarsen, f"{text}. Lower it")
    elif len(coarsen) != len(grid) or any(
        coarse > fine for coarse, fine in zip(coarsen, grid, strict=True)
    ):
        text = (
            f"must have one number of points per axis, none above the solver's {list(grid)}. "
            "Give such a grid, or a factor"
        )
        yield problem("stream.coarsen", coarsen, text)


def sample_problems(study: UncheckedStudy) -> list[Iterator[str]]:
    """Checks of what samples are made for; they need a ``stream`` without problems."""
    return [
        _window_problems(study),
        _model_problems(study),
        _credit_problems(study),
        _task_problems(study),
    ]


def _window_problems(study: UncheckedStudy) -> Iterator[str]:
    snapshots, stream = study.snapshots, study.stream
    if snapshots < study.window:
        text = (
            f"a member yields only {counted(snapshots, 'snapshot')} (stream.initial_state="
            f"{str(stream.initial_state).lower()}, stream.every={stream.every}). Lower the window "
            f"to at most {snapshots}, or raise solver.steps"
        )
        yield problem("trainer.task.window", study.window, text)


def _model_problems(study: UncheckedStudy) -> Iterator[str]:
    for line in model_problems(study.trainer.model, study.spec.shape):
        yield f"trainer.model.{line}"


def _credit_problems(study: UncheckedStudy) -> Iterator[str]:
    stream, needed = study.stream, study.message_bytes
    if stream.credit_bytes < needed:
        text = (
            f"a message has up to {needed} bytes (stream.batch_bytes={stream.batch_bytes}, one "
            f"sample {study.sample_bytes}) and would never be sent. Raise credit_bytes to at least "
            f"{needed}"
        )
        yield problem("stream.credit_bytes", stream.credit_bytes, text)


def _task_problems(study: UncheckedStudy) -> Iterator[str]:
    spec, trainer = study.spec, study.trainer
    predicted = spec.names[: len(spec.names) - len(spec.inputs)]
    for name, weight in trainer.field_weights.items():
        if name not in predicted:
            text = f"no such field is predicted. {nearest(name, predicted)}There is "
            text += f"{', '.join(predicted)}. Rename or remove it"
            yield problem(f"trainer.field_weights.{name}", weight, text)
    if trainer.task.kind == "operator" and not spec.inputs:
        text = (
            "nothing is given that an operator could be learnt from. Add stream.input_fields: "
            f"[{predicted[0]}], take a solver with an input field, or use kind: direct"
        )
        yield problem("trainer.task.kind", "operator", text)
