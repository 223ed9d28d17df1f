"""Checkpoints as the ranks take them, and how a training goes on from one.

All ranks begin at the same train step, because what says so travels with the agreement they come to
before every burst (``trainers/loop/lockstep.py``). Each writes its own part beside the training,
and has what it draws from write what it holds; when all have, rank 0 seals the checkpoint.

Invariants (``tests/unit/trainers/checkpoints/test_saver.py``):

1. A training that goes on from a checkpoint has the weights, to the last bit, of one that was never
   interrupted and got the same batches.
2. While one checkpoint is written no other begins.
3. A checkpoint that cannot be written is counted and removed; the training and the last one stay.
4. Asked to stop, the ranks take a checkpoint after the train step they are at, and leave together.
5. The training ends without a half-written checkpoint.
"""

import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol, final, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainers.checkpoints import files as checkpoint_files
from trainers.durable import json_text
from trainers.loop.learner import Learner, LearnerState
from trainers.loop.lockstep import LockStep, Readiness, World
from trainers.results import ValidationResult
from trainers.tasks.normalization import Normalization

FINISH_SECONDS: Final = 120.0  # longest that the end of a training waits for a last checkpoint
_LOOK_AGAIN_SECONDS: Final = 0.02

_log = logging.getLogger(__name__)


@runtime_checkable
class HeldSamples(Protocol):
    """What writes the samples that a rank draws from into a checkpoint."""

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Begin to write what is held now into ``folder``, beside what else goes on.

        Args:
            folder: Of the checkpoint, not complete yet.
            batches: How many batches were trained on; those that were leased beyond them count as
                never drawn.
        """
        ...

    def checkpoint_done(self) -> bool:
        """Whether that is written, and listed in ``folder``.

        Raises:
            OSError: It cannot be written.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoints:
    """Where and when checkpoints are taken.

    Attributes:
        folder: Holds them all.
        every_seconds: From the begin of one to that of the next; None: only when asked to stop.
        keep_last: Number of the newest that stay.
        keep_best: Whether the one with the smallest validation error stays, too.
        resume: The one to go on from; None: start with fresh weights.
        journal: A file that grows meanwhile; its length is noted.
        held: Writes the samples that are drawn from; None: they are kept elsewhere.
    """

    folder: Path
    every_seconds: float | None = 300.0
    keep_last: int = 2
    keep_best: bool = True
    resume: Path | None = None
    journal: Path | None = None
    held: HeldSamples | None = None


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """What a checkpoint says of the trainer.

    Attributes:
        model: Weights and buffers by name.
        learner: The optimiser and what belongs to it.
        normalization: As it was when the training began.
        times: The first and the last time that was seen then.
        validation: The newest result there was.
        generators: This rank's random generators; empty where it had none.
    """

    model: dict[str, Tensor]
    learner: LearnerState
    normalization: Normalization
    times: tuple[float, float]
    validation: ValidationResult | None
    generators: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, rank: int) -> "Resumed":
        """Read a rank's share of a valid checkpoint."""
        tree = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
        own = folder / f"rank{rank}" / "generators.safetensors"
        return cls(
            model=load_file(folder / "model.safetensors"),
            learner=LearnerState(
                tensors=load_file(folder / "learner.safetensors"), facts=tree["learner"]
            ),
            normalization=Normalization.from_json(tree["normalization"]),
            times=(tree["times"][0], tree["times"][1]),
            validation=_validation(tree["validation"]),
            generators=load_file(own) if own.exists() else {},
        )

    def restore_generators(self) -> None:
        """Let torch's random numbers go on where they were."""
        if "cpu" in self.generators:
            torch.set_rng_state(self.generators["cpu"])
        if "cuda" in self.generators and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.generators["cuda"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What is trained: all that a checkpoint keeps of the trainer.

    Attributes:
        model: The network.
        learner: Its optimiser and what belongs to it.
        normalization: Scales of its inputs and fields.
        times: The first and the last time that was seen when the training began.
        validation: The newest result.
        batches: How many of the source were trained on.
    """

    model: nn.Module
    learner: Learner
    normalization: Normalization
    times: tuple[float, float]
    validation: Callable[[], ValidationResult | None]
    batches: Callable[[], int]


class _Job(NamedTuple):
    """A checkpoint on its way."""

    train_step: int
    partial: Path
    phase: Literal["parts", "seal"]
    thread: threading.Thread | None


@final
class Saver:
    """One rank's share of all checkpoints of a training.

    Attributes:
        newest: Train step of the last checkpoint that was completed.
        failed: Checkpoints that could not be written.
        left: The ranks have agreed to end here, because they were asked to.
    """

    def __init__(
        self,
        plan: Checkpoints | None,
        world: World,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan, self._world, self._clock = plan, world, clock
        self._began_at = clock()
        self._job: _Job | None = None
        self._spoilt = False  # this rank's part of the job could not be written
        self._held: HeldSamples | None = None  # still writes
        self.newest: int | None = None
        self.failed = 0
        self._tried: int | None = None  # train step of the last attempt
        self.left = False

    def begin_at(self, train_step: int) -> None:
        """Where the training starts: what it was resumed from needs no checkpoint."""
        self._tried = self.newest = train_step or None

    def say(self, mine: Readiness) -> Readiness:
        """What this rank tells the others about checkpoints, with what else it says."""
        if self._plan is None:
            return mine
        every = self._plan.every_seconds
        due = every is not None and self._clock() - self._began_at >= every
        return replace(
            mine,
            due=due and self._job is None and self._world.rank == 0,
            busy=self._busy(),
            spoilt=self._spoilt,
        )

    def follow(self, everyone: Readiness, trained: Trained) -> None:
        """Do what all ranks have agreed on; called by all of them, with the same ``everyone``."""
        train_step = trained.learner.train_step
        if self._job is not None:
            if not everyone.busy:
                self._advance(self._job, trained, spoilt=everyone.spoilt)
        elif not trained.learner.between_steps:
            return  # the batches of the train step under way are kept with it, or not at all
        elif (everyone.due or everyone.stop) and self._plan is not None:
            if train_step != self._tried and train_step > 0:
                self._begin(self._plan, trained)
            elif everyone.due:
                self._began_at = self._clock()
        if everyone.stop:
            self.left = self._job is None
            if not self.left:
                time.sleep(_LOOK_AGAIN_SECONDS)

    def finish(self, ranks: LockStep, trained: Trained) -> None:
        """Wait for what is still written; called by all ranks when the training has ended."""
        deadline = self._clock() + FINISH_SECONDS
        while not ranks.all(self._job is None):
            late = self._clock() > deadline
            mine = Readiness(steps=0, over=True, failed=late, busy=self._busy())
            everyone = ranks.agree(replace(mine, spoilt=self._spoilt))
            if everyone.failed:
                self._give_up()
                return
            self.follow(replace(everyone, stop=False, due=False), trained)
            time.sleep(_LOOK_AGAIN_SECONDS)

    # --- one checkpoint ---------------------------------------------------------------------------

    def _begin(self, plan: Checkpoints, trained: Trained) -> None:
        trained.learner.check()  # what is kept must be known to be finite
        train_step = trained.learner.train_step
        partial = checkpoint_files.partial_folder(plan.folder, train_step)
        self._began_at, self._tried, self._spoilt = self._clock(), train_step, False
        try:
            (partial / f"rank{self._world.rank}").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._spoil(error)
        self._held = plan.held
        if self._held is not None:
            self._held.begin_checkpoint(partial, trained.batches())
        write = self._writer(partial, trained)
        self._job = _Job(train_step, partial, "parts", self._start(write))

    def _writer(self, partial: Path, trained: Trained) -> Callable[[], None]:
        """Copy what changes with the next train step; what is returned writes it."""
        rank, own = self._world.rank, partial / f"rank{self._world.rank}"
        generators = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state()
        model, state, tree = {}, LearnerState(tensors={}, facts={}), {}
        if rank == 0:
            model, state = _copies(trained.model.state_dict()), trained.learner.state_dict()
            result = trained.validation()
            tree = {
                "train_step": trained.learner.train_step,
                "learner": state.facts,
                "normalization": trained.normalization.as_json(),
                "times": trained.times,
                "validation": None if result is None else asdict(result),
            }

        def write() -> None:
            save_file(generators, own / "generators.safetensors")
            if rank == 0:
                save_file(model, partial / "model.safetensors")
                save_file(_copies(state.tensors), partial / "learner.safetensors")
                (partial / "trainer.json").write_text(json_text(tree) + "\n", encoding="utf-8")
            names = ("model.safetensors", "learner.safetensors", "trainer.json")
            first = [partial / name for name in names] if rank == 0 else []
            paths = [own / "generators.safetensors", *first]
            checkpoint_files.list_files(partial, f"trainer{rank}", paths)

        return write

    def _advance(self, job: _Job, trained: Trained, *, spoilt: bool) -> None:
        """All ranks have done what the job's phase is about."""
        if spoilt:
            self.failed += 1
            self._give_up()
        elif job.phase == "parts":
            seal = self._sealer(job, trained) if self._world.rank == 0 else None
            self._job = job._replace(
                phase="seal", thread=None if seal is None else self._start(seal)
            )
        else:
            self.newest, self._job = job.train_step, None

    def _sealer(self, job: _Job, trained: Trained) -> Callable[[], None]:
        plan, result = self._plan, trained.validation()
        assert plan is not None
        error = None if result is None or not math.isfinite(result.error) else result.error
        size = plan.journal.stat().st_size if plan.journal is not None else None

        def seal() -> None:
            final = checkpoint_files.final_folder(plan.folder, job.train_step)
            facts = {
                "train_step": job.train_step,
                "ranks": self._world.size,
                "validation_error": error,
                "journal_bytes": size,
            }
            checkpoint_files.seal(job.partial, final, facts)
            checkpoint_files.retain(plan.folder, last=plan.keep_last, best=plan.keep_best)

        return seal

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - a full disk must not end the training
                self._spoil(error)

        thread = threading.Thread(target=guarded, name="checkpoint", daemon=True)
        thread.start()
        return thread

    def _busy(self) -> bool:
        if self._job is None:
            return False
        if self._held is not None:
            try:
                if self._held.checkpoint_done():
                    self._held = None
            except OSError as error:
                self._held = None
                self._spoil(error)
        thread = self._job.thread
        return self._held is not None or (thread is not None and thread.is_alive())

    def _spoil(self, error: Exception) -> None:
        _log.warning("the checkpoint cannot be written, the last one stays valid: %s", error)
        self._spoilt = True

    def _give_up(self) -> None:
        if self._job is not None and self._world.rank == 0:
            shutil.rmtree(self._job.partial, ignore_errors=True)
        self._job = None


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In memory of their own on the CPU."""
    return {name: each.detach().to("cpu", copy=True).contiguous() for name, each in tensors.items()}


def _validation(tree: dict[str, Any] | None) -> ValidationResult | None:
    """Read back what was kept; None where another version kept it: it is measured again soon."""
    try:
        return None if tree is None else ValidationResult.from_json(tree)
    except (KeyError, TypeError):
        return None
