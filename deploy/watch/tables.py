"""A study before it runs and after, as tables for a terminal.

1. Every figure has its unit, and nothing is shown that was not given or measured.
"""

from rich.table import Table
from rich.text import Text

from deploy.figures import (
    count,
    duration,
    field_error,
    number,
    percent,
    seconds,
    tail,
)
from pipeline.stats.breakeven import Breakeven
from pipeline.stats.regions import ErrorsOf
from pipeline.stats.stats import Summary
from pipeline.study.config import StudyConfig
from pipeline.study.problems import counted
from pipeline.study.sections import CsvDesign, SourceConfig
from solvers.configs.own import OwnConfig


def table(study: StudyConfig) -> Table:
    """What a study will do and need."""
    rows = _rows(f"study {study.name}")
    ensemble, reservoir, trainer = study.ensemble, study.reservoir, study.trainer
    spec = study.spec
    grid = " x ".join(map(str, spec.shape))
    design = ensemble.design
    solver = study.solver
    kind = f"{solver.class_} in {solver.path}" if isinstance(solver, OwnConfig) else solver.kind
    rows.add_row("solver", f"{kind}, {grid} points, {', '.join(spec.names)}")
    rows.add_row(
        "members",
        f"{count(ensemble.members)} to train on + {count(ensemble.validation)} to validate, "
        f"{ensemble.concurrent} at a time"
        + (f" on {ensemble.mpi_ranks} mpi_ranks each" if ensemble.mpi_ranks > 1 else ""),
    )
    if study.source is not None:
        rows.add_row("from a record", _from_record(study, study.source))
    if study.simulates:
        rows.add_row("design", f"CSV {design.csv}" if isinstance(design, CsvDesign) else design)
    most = ensemble.members * study.samples_per_member
    rows.add_row(
        "samples",
        f"{count(study.expected_samples)} {'=' if study.expected_samples == most else '<'} "
        f"{counted(ensemble.members, 'member')} x {count(study.samples_per_member)}, "
        f"{_bytes(study.sample_bytes)} each",
    )
    rows.add_row(
        "reservoir",
        f"{reservoir.policy}, {trainer.ranks} x {count(reservoir.capacity)} slots, training starts "
        f"at {count(reservoir.watermark)}",
    )
    rows.add_row("shared memory", memory(study))
    rows.add_row("training", _training(study))
    return rows


def _from_record(study: StudyConfig, source: SourceConfig) -> str:
    """Which members are not simulated."""
    held_out = study.ensemble.validation if source.validation == "recorded" else 0
    training = study.ensemble.members - source.live
    return f"{count(training)} to train on + {count(held_out)} to validate, of {source.record}"


def memory(study: StudyConfig) -> str:
    """The slots that are allocated before anything runs: how many, how large, and their sum."""
    ranks, validation = study.trainer.ranks, study.ensemble.validation * study.samples_per_member
    held_out = f" + {count(validation)} for validation" if validation else ""
    return (
        f"({ranks} x {count(study.reservoir.capacity)} slots{held_out}) x "
        f"{_bytes(study.sample_bytes)} = {_bytes(study.slots_bytes)}"
    )


def summary(result: Summary) -> Table:
    """What a study came to."""
    rows = _rows(f"study {result.name}: done")
    if result.validation_error is not None:
        text = f"{percent(result.validation_error)} (RMS, of the fields' standard deviations)"
        rows.add_row("validation error", text)
    for name, errors in (("members", result.one_step), ("rollouts", result.rollout)):
        if errors is not None:
            rows.add_row(f"  {name}", tail(errors.spread))
            for one in errors.fields:
                rows.add_row(f"    {one.name}", field_error(one))
    if result.errors_by_region and result.errors_by_region[0].effect is not None:
        rows.add_row("  most by", strongest(result.errors_by_region[0]))
    rows.add_row(
        "members",
        f"{count(result.members_completed)} completed, {count(result.members_failed)} failed",
    )
    rows.add_row(
        "samples",
        f"{count(result.samples_inserted)} stored, {count(result.samples_unique)} of them drawn",
    )
    draws = f"{count(result.samples_drawn)}, {number(result.reuse_mean)} for each sample"
    if result.effective_share is not None:
        draws += f", {percent(result.effective_share)} even"
    rows.add_row("draws", draws)
    rows.add_row("train steps", count(result.train_steps))
    rows.add_row(
        "time",
        f"{seconds(result.wall_seconds)}, first train step after "
        f"{seconds(result.first_step_seconds)}",
    )
    rows.add_row(
        "waiting",
        f"trainer {seconds(result.trainer_wait_seconds)}, "
        f"solvers {seconds(result.solver_wait_seconds)}",
    )
    rows.add_row("streamed", _bytes(result.bytes_streamed))
    if result.samples_recorded or result.record_dropped or result.record_problem:
        rows.add_row("recorded", _recorded(result))
    for note in result.notes:
        rows.add_row("note", Text(note))
    if result.breakeven is not None:
        rows.add_row("paid back", paid(result.breakeven))
    return rows


def strongest(errors: ErrorsOf) -> str:
    """Where the error is largest, by the parameter that it depends on most."""
    filled = [one for one in errors.ranges if one.mean is not None]
    worst = max(filled, key=lambda one: one.mean or 0.0)
    low, high = number(worst.low), number(worst.high, errors.unit)
    return f"{errors.name}: {percent(worst.mean)} on average from {low} to {high}"


def paid(result: Breakeven) -> str:
    """After how many queries a study has paid."""
    alone, together = result.queries, result.batched_queries
    compared = f"{duration(result.query_seconds)} instead of {duration(result.member_seconds)}"
    if alone is not None:
        return f"after {counted(alone, 'query', 'queries')} ({compared} each)"
    if together is not None:
        queries = counted(together, "query", "queries")
        return f"after {queries}, many at once; alone never ({compared})"
    return f"never: the solver is not slower ({compared})"


def _recorded(result: Summary) -> str:
    text = counted(result.samples_recorded, "sample")
    if result.record_dropped:
        text += f", {count(result.record_dropped)} dropped"
    return text if result.record_problem is None else f"{text}: {result.record_problem}"


def _rows(title: str) -> Table:
    rows = Table(title=Text(title), title_justify="left", show_header=False, box=None)
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    return rows


def _training(study: StudyConfig) -> str:
    trainer, most, reuse = study.trainer, study.max_train_steps, study.reservoir.max_reuse
    text = f"{counted(trainer.ranks, 'rank')} x batch {trainer.batch}, {trainer.model.kind}"
    if most is None or reuse is None:
        return f"{text}, as many train steps as the simulations leave time for"
    return (
        f"{text}, at most {counted(most, 'train step')} (a sample is drawn once at least, "
        f"{reuse:g} {'time' if reuse == 1 else 'times'} on average at most)"
    )


def _bytes(value: int) -> str:
    """``213512000`` -> ``204 MiB``."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return number(size, unit) if unit != "B" else f"{value} B"
        size /= 1024
    return number(size, "TiB")
