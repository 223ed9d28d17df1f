"""The Ray Train shell of the trainer: one process per rank, joined by torch.distributed.

The only file outside ``trainers/`` that imports torch, and only inside the rank's process.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import ray

from pipeline.actors.cluster import NODE_ID_LABEL, Actor, Answer, Node, on_node
from pipeline.actors.failures import first_failure, rank_failed
from pipeline.control.rundir import RunPaths
from pipeline.guards import check_packages
from pipeline.reservoir.batches import HeldState, ReservoirSource
from pipeline.slots.memory import Slots
from pipeline.study.config import StudyConfig
from pipeline.study.design import ranges_of
from pipeline.study.streamed import snapshots_of
from trainers.base import (
    Input,
    Lease,
    NothingToTrainOn,
    PeerFailed,
    Problem,
    TrainingDiverged,
    TrainStats,
)

_WEIGHTS_SEED = 0x3E16
# Ranks speak to each other at least once a second, whatever they wait for; only a validation in
# between, which no rank interrupts, takes longer.
COLLECTIVE_TIMEOUT_SECONDS = 300


def _answer(future: Answer) -> Answer:
    """What a reservoir says, which it does in milliseconds: one that does not in time hangs."""
    return ray.get(future, timeout=COLLECTIVE_TIMEOUT_SECONDS)


@final
class RayReservoir:
    """A ``ReservoirClient`` whose reservoir is an actor on this node.

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

    def checkpoint_done(self) -> tuple[bool, str | None]:
        """Whether that is over, and why it went wrong."""
        answer: tuple[bool, str | None] = _answer(self._handle.checkpoint_done.remote())
        return answer


def start_training(
    study: StudyConfig,
    reservoirs: Sequence[Actor],
    places: Sequence[Node],
    *,
    out: Path,
    use_gpu: bool,
    started_at: float,
    resume: Path | None = None,
) -> Answer:
    """Start a rank beside each reservoir; the future is done when all have left the loop.

    Args:
        study: What is trained, and how.
        reservoirs: One actor per rank.
        places: The node of each.
        out: Run directory.
        use_gpu: Whether a rank has a GPU (NCCL) or not (gloo).
        started_at: When the study started, seconds since the epoch.
        resume: Folder of the checkpoint to go on from.
    """
    settings = {
        "study": study.as_json(),
        "problem": problem_of(study),  # made here: a CSV design need not lie on the ranks' nodes
        "reservoirs": [(node.id, handle) for node, handle in zip(places, reservoirs, strict=True)],
        "out": str(out),
        "use_gpu": use_gpu,
        "started_at": started_at,
        "resume": None if resume is None else str(resume),
    }
    # ``fit`` blocks while the driver has members to hand out, so it gets a process of its own. In a
    # thread of the driver it would outlive a failed study, and start Ray again. It and Ray Train's
    # own actor stand beside a rank: a node that only solves must not take the training with it.
    fit = _FitTask.options(**on_node(places[0]))
    return fit.remote(settings, [node.id for node in places], use_gpu, out)


def _fit(settings: dict[str, Any], node_ids: Sequence[str], use_gpu: bool, out: Path) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    trainer = TorchTrainer(
        _train_rank,
        train_loop_config=settings,
        torch_config=TorchConfig(
            backend="nccl" if use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_SECONDS
        ),
        scaling_config=ScalingConfig(
            num_workers=len(node_ids),
            use_gpu=use_gpu,
            label_selector=[{NODE_ID_LABEL: node_id} for node_id in node_ids],  # type: ignore[call-arg]  # the annotation is of the older class
        ),
        run_config=RunConfig(
            name=RunPaths(out).ray_train.name,
            storage_path=str(out),
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        raise first_failure(error.worker_failures) from None


_FitTask = ray.remote(num_cpus=0, max_retries=0)(_fit)


def _train_rank(settings: dict[str, Any]) -> None:
    """Runs in each rank's process."""
    check_packages()
    import ray.train.torch

    from trainers.checkpoints.saver import Checkpoints
    from trainers.loop.lockstep import World
    from trainers.trainer import train

    study = StudyConfig.model_validate(settings["study"])
    paths = RunPaths(Path(settings["out"]))
    context = ray.train.get_context()
    here = ray.get_runtime_context().get_node_id()
    beside = [handle for node_id, handle in settings["reservoirs"] if node_id == here]
    handle = beside[context.get_local_rank()]
    description = _answer(handle.describe.remote())
    client = RayReservoir(handle, loop_began_after=time.time() - settings["started_at"])
    source = ReservoirSource(
        client=client,
        training=Slots.attach(description.training),
        validation=None if description.validation is None else Slots.attach(description.validation),
        batch=study.trainer.batch,
        first_members=study.first_members,
        watermark=study.reservoir.watermark,
    )
    try:
        stats = train(
            source,
            study.trainer,
            settings["problem"],
            world=World(
                rank=context.get_world_rank(),
                size=context.get_world_size(),
                device=str(ray.train.torch.get_device()),
            ),
            out=paths.folder,
            seed=weights_seed(study),
            expected_steps=study.expected_train_steps,
            checkpoints=Checkpoints(
                folder=paths.checkpoints,
                every_seconds=study.checkpoint.every_seconds,
                keep_last=study.checkpoint.keep_last,
                keep_best=study.checkpoint.keep_best,
                resume=None if settings["resume"] is None else Path(settings["resume"]),
                journal=paths.journal,
            ),
        )
        client.confirm(stats)
    except (TrainingDiverged, NothingToTrainOn, PeerFailed):
        raise
    except Exception as error:
        raise rank_failed(error, study.trainer.model) from error
    finally:
        source.close()


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
