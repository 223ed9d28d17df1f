"""The drilled run: the command, what is seen of it, and the faults one after the other.

What ends the command is answered by giving it again, as a batch system does that requeues a job;
everything else the study has to survive by itself.

1. One fault at a time: the next comes when the study trains again and has taken a checkpoint.
2. Every wait ends: a study that does not come back is ended, and its faults say so.
3. A fault that came too late to matter is not counted as survived.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import psutil

from deploy.drill.child import Child
from deploy.drill.judge import Outcome
from deploy.drill.nodes import Nodes
from deploy.drill.plan import Fault, Kind
from deploy.drill.table import course
from deploy.drill.victims import hit, no_room, running, victims
from deploy.drill.watch import Seen, StudyWatch
from deploy.speaking import BAD_INPUT, say
from pipeline.checkpoint import accounting
from pipeline.study.problems import counted

WELL_SECONDS: Final = 300.0  # from a fault to a study that trains again
FULL_SECONDS: Final = 60.0  # until a checkpoint has failed
VICTIM_SECONDS: Final = 60.0  # until there is somebody to be hit
MAX_RESTARTS: Final = 5  # of one fault
TOO_LATE: Final = "the study had ended: give it more members (--set ensemble.members=...)"
_ON_NODES: Final[tuple[Kind, ...]] = ("solver", "reservoir", "trainer_rank")
_LOOK_SECONDS: Final = 0.05


class _DoesNotComeBackError(Exception):
    """A wait has ended without what was waited for."""


class _TooLateError(Exception):
    """A fault could not be carried out."""


@final
class Course:
    """One drilled run.

    Args:
        child: The command that runs the study, and goes on with it when it is given again.
        out: The run directory.
        plan: The faults.
        nodes: That the study runs on, where there are several.
    """

    def __init__(self, child: Child, out: Path, plan: Sequence[Fault], nodes: Nodes | None) -> None:
        self._plan, self._nodes = plan, nodes
        self.child, self.watch = child, StudyWatch(out)
        self._began = time.monotonic()
        self._restarts = 0
        self._begun_from = 0  # newest checkpoint when the command was given last
        self._twice = 0  # samples, after the faults so far

    @property
    def _at(self) -> float:
        return time.monotonic() - self._began

    def run(self) -> list[Outcome]:
        """Carry out the plan, then wait for the end of the study."""
        outcomes: list[Outcome] = []
        try:
            self._give_command()
            self._until(self._well, WELL_SECONDS)
            for fault in self._plan:
                outcomes.append(self._suffer(fault))
                say(course(outcomes[-1]))
                if outcomes[-1].missed is None and not outcomes[-1].survived:
                    break
            else:
                self._to_the_end()
        except _DoesNotComeBackError as error:
            say(f"{error}; its last words:\n{self.child.story()}")
        finally:
            self.child.end()
        left = self._plan[len(outcomes) :]
        why = "the study did not come back" + (" from an earlier one" if outcomes else "")
        return outcomes + [Outcome.of_missed(fault, self._at, why) for fault in left]

    def _to_the_end(self) -> None:
        """Wait for the end of a study that goes on.

        Raises:
            _DoesNotComeBackError: It stood still for too long.
        """
        while not self.watch.has_ended:
            before = self._progress()
            deadline = time.monotonic() + WELL_SECONDS
            while self._progress() == before and not self.watch.has_ended:
                if time.monotonic() > deadline:
                    raise _DoesNotComeBackError(f"it has stood still for {WELL_SECONDS:g} s")
                self._look()
                time.sleep(_LOOK_SECONDS)
        self._leave()

    def _leave(self) -> None:
        """Let a command whose study has ended say so, and end.

        Raises:
            _DoesNotComeBackError: It does not.
        """
        if self.child.wait(WELL_SECONDS) is None:
            raise _DoesNotComeBackError(f"it has not ended {WELL_SECONDS:g} s after its result")

    def _progress(self) -> tuple[object, ...]:
        seen = self.watch.seen
        return seen.completed, seen.inserted, seen.train_step, seen.phase, seen.parts

    def _give_command(self) -> None:
        self.watch.new_part()
        self._begun_from = self.watch.newest_checkpoint
        self.child.start()

    def _look(self) -> Seen:
        """See how the study is; where the command has ended too early, give it again.

        Raises:
            _DoesNotComeBackError: It was given again too often.
        """
        self.child.remember()
        status = self.child.status()
        if status is not None and not self.watch.has_ended:
            self._restarts += 1
            if self._restarts > MAX_RESTARTS or status == BAD_INPUT:
                raise _DoesNotComeBackError(
                    f"the command has ended with status {status}, {counted(self._restarts, 'time')}"
                )
            self._give_command()
        return self.watch.look()

    def _until(
        self,
        condition: Callable[[Seen], bool],
        seconds: float,
    ) -> bool:
        """Wait for something; False when the study has ended before.

        Raises:
            _DoesNotComeBackError: It did not come in time.
        """
        deadline = time.monotonic() + seconds
        while not condition(self._look()):
            if self.watch.has_ended:
                self._leave()
                return False
            if time.monotonic() > deadline:
                raise _DoesNotComeBackError(f"nothing came of it in {seconds:g} s")
            time.sleep(_LOOK_SECONDS)
        return True

    def _well(self, seen: Seen) -> bool:
        """Whether it trains, and would lose nothing but its newest work."""
        fresh = self.watch.newest_checkpoint > self._begun_from
        return seen.phase == "training" and seen.train_step > 0 and fresh

    def _targets(self, kind: Kind) -> list[psutil.Process]:
        processes = self.child.processes()
        hittable = set(victims(kind, running(processes)))
        return sorted((each for each in processes if each.pid in hittable), key=lambda p: p.pid)

    def _suffer(self, fault: Fault) -> Outcome:
        time.sleep(fault.pause)
        self._restarts, lost = 0, self.watch.look().samples_lost
        at, began = self._at, time.monotonic()
        noticed: float | None = None
        recovered: float | None = None
        try:
            carry_out = self._fill_the_disk if fault.kind == "disk" else self._kill
            noticed, recovered = carry_out(fault, began)
            newest = self.watch.newest_checkpoint
            self._until(
                lambda seen: self._well(seen) and self.watch.newest_checkpoint > newest,
                WELL_SECONDS,
            )
        except _TooLateError as error:
            return Outcome.of_missed(fault, at, str(error))
        except _DoesNotComeBackError as error:
            recovered = None
            say(f"fault {fault.number} ({fault.kind}): {error}; its last words:")
            say(self.child.story())
        return Outcome(
            number=fault.number,
            kind=fault.kind,
            at=round(at, 2),
            noticed=noticed,
            recovered=recovered,
            restarts=self._restarts,
            samples_lost=self.watch.seen.samples_lost - lost,
            stored_twice=self._stored_twice(),
            members=self.watch.seen.completed,
        )

    def _kill(self, fault: Fault, began: float) -> tuple[float, float]:
        """Seconds until it was noticed, and until the study was as well as before.

        Raises:
            _TooLateError: There is nobody to be hit any more.
            _DoesNotComeBackError: It does not get well.
        """
        before = self.watch.look()
        troubles, busy, parts = before.troubles, len(before.running), before.parts
        if self._hit(fault) and not self._until(
            lambda s: s.troubles > troubles or s.parts > parts, WELL_SECONDS
        ):
            raise _TooLateError(TOO_LATE)
        noticed, furthest = time.monotonic() - began, self.watch.seen.furthest
        lasting = fault.kind in ("driver", "reservoir", "trainer_rank")

        def recovered(seen: Seen) -> bool:
            if lasting or seen.parts > parts:
                return seen.train_step > furthest or (seen.ended and seen.train_step > 0)
            return len(seen.running) >= busy or seen.ended

        self._until(recovered, WELL_SECONDS)
        if fault.kind == "node" and self._nodes is not None:
            self._nodes.add()
        return round(noticed, 2), round(time.monotonic() - began, 2)

    def _hit(self, fault: Fault) -> bool:
        """Look for a victim until there is one; whether the study can notice.

        Nothing of it may run on a node, where what was killed before was started on the first one.

        Raises:
            _TooLateError: There is none.
        """
        deadline = time.monotonic() + VICTIM_SECONDS
        while not self.watch.has_ended:
            if fault.kind == "driver":
                self.child.kill()
                return True
            if fault.kind == "node":
                assert self._nodes is not None
                there = running(self._nodes.on_the_last())
                self._nodes.lose()
                return any(victims(kind, there) for kind in _ON_NODES)
            targets = self._targets(fault.kind)
            if targets:
                hit(fault.kind, targets[fault.chosen(len(targets))])
                return True
            if time.monotonic() > deadline:
                raise _TooLateError("there is no such process on this node")
            self._look()
            time.sleep(_LOOK_SECONDS)
        raise _TooLateError(TOO_LATE)

    def _fill_the_disk(self, fault: Fault, began: float) -> tuple[float, float]:
        """Likewise, with no room for checkpoints until one has failed."""
        del fault
        before = self.watch.look()
        parts, failed = before.parts, before.checkpoints_failed
        with no_room(self._targets("disk")):
            if not self._until(
                lambda seen: seen.checkpoints_failed > failed or seen.parts > parts, FULL_SECONDS
            ):
                raise _TooLateError(TOO_LATE)
        noticed, newest = time.monotonic() - began, self.watch.newest_checkpoint
        self._until(lambda s: self.watch.newest_checkpoint > newest or s.ended, WELL_SECONDS)
        return round(noticed, 2), round(time.monotonic() - began, 2)

    def _stored_twice(self) -> int:
        """Samples that the newest checkpoint holds twice, and none before the fault did."""
        known = accounting.samples_of(self.watch.out)
        before, self._twice = self._twice, self._twice if known is None else known.twice
        return max(0, self._twice - before)
