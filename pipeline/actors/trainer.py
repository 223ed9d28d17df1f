"""The Ray shell of the trainer: one process per rank, joined by torch.distributed.

The only file outside ``trainers/`` that imports torch, and only inside the rank's process.

1. A rank that fails or dies ends the training; its own story is told, not that of those it left
   alone.
2. On one node ranks listen on loopback alone.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.actors.cluster import NODE_ID_LABEL, Actor, Answer, Node
from pipeline.actors.failures import first_failure, rank_failed
from pipeline.control.rundir import RunPaths
from pipeline.errors import StudyFailed
from pipeline.guards import check_packages
from pipeline.reservoir.batches import HeldState, ReservoirSource
from pipeline.slots.memory import Slots
from pipeline.study.config import StudyConfig
from pipeline.study.for_trainer import problem_of, weights_seed
from trainers.base import Lease, NothingToTrainOn, PeerFailed, Problem, TrainingDiverged
from trainers.results import TrainStats

# Ranks speak to each other at least once a second, whatever they wait for; only a validation in
# between, which no rank interrupts, takes longer.
COLLECTIVE_TIMEOUT_SECONDS = 300
ROOM_SECONDS = 60  # until there is a place for every rank: nothing of the study runs before
OTHERS_SECONDS = 5.0  # from a rank's failure to those that it causes
LOOPBACK = "127.0.0.1"


def _answer(future: Answer) -> Answer:
    """What a reservoir says, which it does in milliseconds: one that does not in time hangs."""
    return ray.get(future, timeout=COLLECTIVE_TIMEOUT_SECONDS)


@final
class RayReservoir:
    """A reservoir that is an actor on this node: hands out leases, and keeps reports and samples.

    Args:
        handle: Of the ``ReservoirActor``.
        loop_began_after: Seconds from the study's start to that of the training loop.
    """

    def __init__(self, handle: Actor, *, loop_began_after: float) -> None:
        self._handle, self._loop_began_after = handle, loop_began_after

    def wait_for_watermark(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether training may start."""
        return bool(_answer(self._handle.wait_for_watermark.remote(timeout)))

    def lease(self, returned: Sequence[int], batches: int, batch: int, timeout: float) -> Lease:
        """End the returned leases, then draw."""
        answer: Lease = _answer(self._handle.lease.remote(returned, batches, batch, timeout))
        return answer

    def replay(self, batches: int, batch: int) -> Lease:
        """Draw again after the end."""
        answer: Lease = _answer(self._handle.replay.remote(batches, batch))
        return answer

    def held(self) -> HeldState:
        """What is held now."""
        answer: HeldState = _answer(self._handle.held.remote())
        return answer

    def report(self, stats: TrainStats) -> None:
        """Leave the statistics with the reservoir, where the driver finds them."""
        self._report(stats)

    def confirm(self, stats: TrainStats) -> None:
        """Report, and return when the driver can find it: nothing is said after that."""
        _answer(self._report(stats))

    def _report(self, stats: TrainStats) -> Answer:
        if stats.first_step_seconds is not None:
            stats = replace(
                stats, first_step_seconds=stats.first_step_seconds + self._loop_began_after
            )
        return self._handle.report.remote(stats)

    def begin_checkpoint(self, folder: Path, batches: int) -> None:
        """Begin to write what is held now."""
        _answer(self._handle.begin_checkpoint.remote(folder, batches))

    def checkpoint_done(self) -> bool:
        """Whether that is written."""
        done, failure = _answer(self._handle.checkpoint_done.remote())
        if failure is not None:
            raise OSError(failure)
        return bool(done)


def listen(address: str, size: int) -> tuple[Any, int]:
    """The store by which ``size`` ranks find each other, on one address of this node; its port."""
    import torch.distributed as dist

    door = socket.create_server((address, 0))
    port = door.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]  # not exported
        address, port, size, is_master=True, wait_for_workers=False, master_listen_fd=door.detach()
    )
    return store, port


class _RankHost:
    """One rank: it imports torch while other parts start, meets the others, and trains."""

    def __init__(self, rank: int, size: int, *, use_gpu: bool) -> None:
        check_packages()
        import trainers.trainer  # noqa: F401 - seconds, while the reservoirs fill

        self._rank, self._size, self._use_gpu = rank, size, use_gpu
        self._store: Any = None

    @ray.method
    def meet(self, address: str) -> tuple[str, int]:
        """Listen for the other ranks on an address of this node: that, and the port."""
        self._store, port = listen(address, self._size)
        return address, port

    @ray.method
    def train(
        self,
        study: StudyConfig,
        problem: Problem,
        reservoir: Actor,
        out: Path,
        started_at: float,
        resume: Path | None,
        meeting: tuple[str, int] | None,
    ) -> None:
        """Train to the end; see ``Ranks.train``."""
        from trainers.checkpoints.saver import Checkpoints
        from trainers.loop.lockstep import World
        from trainers.trainer import train

        if meeting is not None:
            self._join(*meeting)
        paths = RunPaths(out)
        description = _answer(reservoir.describe.remote())
        client = RayReservoir(reservoir, loop_began_after=time.time() - started_at)
        kept = description.validation
        source = ReservoirSource(
            client=client,
            training=Slots.attach(description.training),
            validation=None if kept is None else Slots.attach(kept),
            batch=study.trainer.batch,
            first_members=study.first_members,
            watermark=study.reservoir.watermark,
        )
        device = "cuda:0" if self._use_gpu else "cpu"  # Ray shows a rank its own GPU alone
        try:
            stats = train(
                source,
                study.trainer,
                problem,
                world=World(rank=self._rank, size=self._size, device=device),
                out=paths.folder,
                seed=weights_seed(study),
                expected_steps=study.expected_train_steps,
                checkpoints=Checkpoints(
                    folder=paths.checkpoints,
                    every_seconds=study.checkpoint.every_seconds,
                    keep_last=study.checkpoint.keep_last,
                    keep_best=study.checkpoint.keep_best,
                    resume=resume,
                    journal=paths.journal,
                    held=client,
                ),
                report=client.report,
            )
            client.confirm(stats)
        except (TrainingDiverged, NothingToTrainOn, PeerFailed):
            raise
        except Exception as error:
            raise rank_failed(error, study.trainer.model) from error
        finally:
            source.close()

    def _join(self, address: str, port: int) -> None:
        """Initialise torch.distributed together with all other ranks."""
        import torch.distributed as dist

        if address == LOOPBACK:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody outside can reach a rank
        if self._store is None:
            self._store = dist.TCPStore(  # type: ignore[attr-defined]  # not exported
                address, port, self._size, wait_for_workers=False
            )
        dist.init_process_group(
            "nccl" if self._use_gpu else "gloo",
            store=self._store,
            rank=self._rank,
            world_size=self._size,
            timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_SECONDS),
        )


RankActor = ray.remote(max_restarts=0)(_RankHost)


@final
class Training:
    """What the ranks do together: it ends when all have left the loop, or when one fails.

    Args:
        runs: Future of each rank.
    """

    def __init__(self, runs: Sequence[Answer]) -> None:
        self._runs = {run: rank for rank, run in enumerate(runs)}

    @property
    def runs(self) -> list[Answer]:
        """Of the ranks that have not left yet."""
        return list(self._runs)

    def left(self, run: Answer) -> bool:
        """Take note of a rank that has left; whether it was the last.

        Raises:
            RankFailed: It has failed, and with it the training.
        """
        rank = self._runs.pop(run)
        try:
            ray.get(run)
        except RayError as error:
            raise first_failure({rank: error} | self._failures()) from error
        return not self._runs

    def _failures(self) -> dict[int, RayError]:
        """What the other ranks say then: one of them may have failed first, by itself."""
        others, self._runs = self._runs, {}
        if not others:
            return {}
        done, _ = ray.wait(list(others), num_returns=len(others), timeout=OTHERS_SECONDS)
        failures: dict[int, RayError] = {}
        for run in done:
            try:
                ray.get(run)
            except RayError as error:
                failures[others[run]] = error
        return failures


@final
class Ranks:
    """The processes of the ranks.

    They are made before the solvers, so that on a cluster that others use, too, these cannot take
    the CPUs that the ranks need.
    """

    def __init__(self, places: Sequence[Node], *, use_gpu: bool, spans_nodes: bool) -> None:
        """Start a process for each rank.

        Args:
            places: The node of each.
            use_gpu: Whether a rank has a GPU (NCCL) or not (gloo).
            spans_nodes: Whether the study has several nodes, and not this one alone.

        Raises:
            StudyFailed: A node has no CPU or GPU free.
        """
        self._actors: list[Actor] = []
        self._meeting_place = places[0].address if spans_nodes else LOOPBACK
        share = {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}
        labels = [{NODE_ID_LABEL: node.id} for node in places]
        self._room = placement_group([share for _ in places], bundle_label_selector=labels)
        if not self._room.wait(ROOM_SECONDS):
            remove_placement_group(self._room)
            raise StudyFailed(
                f"the trainer's ranks need {share} each on {len(places)} place(s), and the cluster "
                f"has not had that free for {ROOM_SECONDS} s. See what else runs there"
            )
        for rank in range(len(places)):
            where = PlacementGroupSchedulingStrategy(self._room, placement_group_bundle_index=rank)
            options = RankActor.options(
                num_cpus=1, num_gpus=share.get("GPU", 0), scheduling_strategy=where
            )
            self._actors.append(options.remote(rank, len(places), use_gpu=use_gpu))

    def train(
        self,
        study: StudyConfig,
        reservoirs: Sequence[Actor],
        *,
        out: Path,
        started_at: float,
        resume: Path | None,
    ) -> Training:
        """Have each rank train on the samples of its reservoir.

        Args:
            study: What is trained, and how.
            reservoirs: One actor per rank.
            out: Run directory.
            started_at: When the study started, seconds since the epoch.
            resume: Folder of the checkpoint to go on from.
        """
        problem = problem_of(study)  # here: a CSV design need not lie on the ranks' nodes
        first, meeting = self._actors[0], None
        if len(self._actors) > 1:
            meeting = first.meet.remote(self._meeting_place)
        return Training(
            [
                actor.train.remote(study, problem, reservoir, out, started_at, resume, meeting)
                for actor, reservoir in zip(self._actors, reservoirs, strict=True)
            ]
        )

    def close(self) -> None:
        """End the processes."""
        for actor in self._actors:
            ray.kill(actor)
        remove_placement_group(self._room)
