"""What a drill does to a study: which faults, in which order, chosen by a seed; plain logic.

1. The same seed, kinds and number give the same plan.
2. Every kind comes as often as any other, give or take one.
3. A kind that the study cannot suffer is named with the reason, never silently left out.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig

Kind = Literal[
    "solver", "hung", "mpi_rank", "program", "reservoir", "trainer_rank", "node", "driver", "disk"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
MEANING: Final[Mapping[Kind, str]] = {
    "solver": "the process of a solver actor is killed",
    "hung": "the process of a solver actor is stopped, and says nothing any more",
    "mpi_rank": "one mpi_rank of a member is killed",
    "program": "a foreign program is killed",
    "reservoir": "the process of a reservoir is killed",
    "trainer_rank": "the process of a trainer rank is killed",
    "node": "one of several nodes on this machine is killed",
    "driver": "the driver, which is the command itself, is killed",
    "disk": "checkpoints find no room until one has failed",
}
MAX_PAUSE_SECONDS: Final = 1.0
CHECKPOINT_SECONDS: Final = 1.0
MEMBER_SECONDS: Final = 20.0  # a hung member is noticed after this long, where the study says none
MEMBERS_FOR_A_FAULT: Final = 72  # of the built-in study, about half a second each


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that is done to the study.

    Attributes:
        number: 1 for the first.
        kind: Of it.
        pause: Seconds to wait once the study is well.
        pick: In [0, 1): which of the processes that may be hit.
    """

    number: int
    kind: Kind
    pause: float
    pick: float

    def chosen(self, among: int) -> int:
        """Which of so many."""
        return int(self.pick * among)


def plan(kinds: Sequence[Kind], faults: int, seed: int) -> tuple[Fault, ...]:
    """The faults in the order they are carried out in."""
    rng = random.Random(seed)
    order: list[Kind] = []
    while len(order) < faults:
        order += rng.sample(kinds, len(kinds))
    return tuple(
        Fault(
            number=number,
            kind=kind,
            pause=rng.uniform(0.0, MAX_PAUSE_SECONDS),
            pick=rng.random(),
        )
        for number, kind in enumerate(order[:faults], start=1)
    )


def absent(study: StudyConfig, nodes: int = 1) -> dict[Kind, str]:
    """The kinds that cannot happen to this study, and why."""
    found: dict[Kind, str] = {}
    if study.ensemble.mpi_ranks == 1:
        found["mpi_rank"] = "ensemble.mpi_ranks is 1"
    if nodes == 1:
        found["node"] = "there is one; --nodes 2 makes two of this machine"
    if study.solver.kind != "program":
        found["program"] = f"solver.kind is {study.solver.kind}"
    return found


def kinds_of(study: StudyConfig, asked: str | None, nodes: int = 1) -> tuple[Kind, ...]:
    """Those asked for (``a,b``), else all that the study can suffer.

    Raises:
        ConfigError: One is unknown, or cannot happen to this study.
    """
    missing = absent(study, nodes)
    if asked is None:
        return tuple(kind for kind in KINDS if kind not in missing)
    names = [name.strip() for name in asked.split(",")]
    found = [
        f"--kinds: {name!r} is unknown. Known: {', '.join(KINDS)}"
        for name in names
        if name not in KINDS
    ]
    chosen = tuple(kind for kind in KINDS if kind in names)
    found += [f"--kinds {k}: not in this study: {missing[k]}" for k in chosen if k in missing]
    if found:
        raise ConfigError(found)
    return chosen


def settings(study: StudyConfig, faults: int) -> list[str]:
    """What is changed for the drill, as ``--set`` takes it.

    Checkpoints are taken often, a member may be hit by every fault without being given up for it,
    and what hangs is noticed. A record says what was stored.
    """
    every, timeout = study.checkpoint.every_seconds, study.ensemble.member_timeout
    attempts = max(study.ensemble.max_attempts, faults + 1)
    changed = [f"ensemble.max_attempts={attempts}"]
    if every is None or every > CHECKPOINT_SECONDS:
        changed.append(f"checkpoint.every_seconds={CHECKPOINT_SECONDS}")
    if timeout is None:
        changed.append(f"ensemble.member_timeout={MEMBER_SECONDS}")
    if study.record is None:
        changed.append("record={}")
    return changed


def built_in(faults: int) -> str:
    """A study of so many faults' length, as YAML: the heat example, made small."""
    members = MEMBERS_FOR_A_FAULT * (faults + 1)
    return _BUILT_IN.format(members=members)


_BUILT_IN = """\
name: drill
seed: 7
solver: {{kind: heat, grid: [240, 336], steps: 40, dt: 0.01}}    # so large that it lasts
parameters:
  initial: {{uniform: [100, 500]}}    # K
  west:    {{uniform: [100, 500]}}
  east:    {{uniform: [100, 500]}}
  south:   {{uniform: [100, 500]}}
  north:   {{uniform: [100, 500]}}
ensemble:
  members: {members}
  validation: 4
  concurrent: 2
  member_timeout: 10.0
  max_failed_fraction: 0.0    # none may be given up
stream: {{coarsen: 12}}
reservoir:
  policy: reservoir
  capacity: 400
  watermark: 40
  max_reuse: 8
trainer:
  ranks: 2
  batch: 4
  validate_every: 200
  model: {{kind: mlp, hidden: [64, 64]}}
"""
