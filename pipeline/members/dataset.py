"""Writes the members of a study to disk, for offline training to be compared with.

Invariants (``tests/unit/pipeline/members/test_dataset.py``):

1. A member's samples are those that ``pipeline.run`` would stream: same solver, parameters, cut.
2. As many members are simulated at a time as in a run.
3. A member that fails is left out and counted.
4. What is written has reached the disk when ``write_dataset`` returns.
"""

import time
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

from pipeline.members.attempt import Assignment
from pipeline.stream.sender import SenderStats
from pipeline.study.config import StudyConfig
from pipeline.study.design import design_of
from solvers.base import SolverFailed
from trainers.base import Moments
from trainers.offline.stored import (
    MemberSamples,
    NpyFiles,
    Store,
    ZarrFiles,
    files_of,
    forget,
    sizes,
)
from trainers.processes import processes
from trainers.tasks.moments import moments_of

_FLUSH_SECONDS: Final = 0.0  # files have no acknowledgements to wait for


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What was written.

    Attributes:
        folder: Place of the data set; one folder for each store below it.
        members: Numbers of the members that are there.
        failed: How many are not.
        moments: Statistics of each member, in the order of ``members``.
        samples: Samples of all members.
        wall_seconds: From the start of the first process to the last byte on disk.
        solve_seconds: Inside the solvers, sum over processes.
        write_seconds: Writing, by store, sum over processes.
        bytes_written: Size of the files, by store.
        disk_bytes: Storage that is taken, by store.
    """

    folder: Path
    members: tuple[int, ...]
    failed: int
    moments: tuple[Moments, ...]
    samples: int
    wall_seconds: float
    solve_seconds: float
    write_seconds: dict[str, float]
    bytes_written: dict[str, int]
    disk_bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """One member."""

    member: int
    samples: int
    moments: Moments
    solve_seconds: float
    write_seconds: dict[str, float]


def write_dataset(
    study: StudyConfig, folder: Path, *, members: Sequence[int], stores: Sequence[Store]
) -> Dataset:
    """Simulate members and keep each in every store.

    Args:
        study: Says what is simulated.
        folder: A new folder.
        members: Numbers as in a run: validation members have the lowest.
        stores: What to write them to.
    """
    began, layout = time.monotonic(), study.sample_layout()
    for store in stores:
        (folder / store).mkdir(parents=True)
        if store == "zarr":
            ZarrFiles.create(
                folder / store,
                members=members,
                samples=study.samples_per_member,
                sample_shape=(layout.window, *layout.sample_shape),
                dtype=layout.dtype,
                inputs=layout.num_inputs,
            )
    tree, count = study.as_json(), min(study.ensemble.concurrent, len(members))
    with processes(count) as pool:
        running = [
            pool.submit(_write_members, tree, folder, list(members[first::count]), list(stores))
            for first in range(count)
        ]
        written = [one for future in as_completed(running) for one in future.result()]
    for store in stores:
        forget(path for path in (folder / store).rglob("*") if path.is_file())
    written.sort(key=lambda one: one.member)
    return Dataset(
        folder=folder,
        members=tuple(one.member for one in written),
        failed=len(members) - len(written),
        moments=tuple(one.moments for one in written),
        samples=sum(one.samples for one in written),
        wall_seconds=time.monotonic() - began,
        solve_seconds=sum(one.solve_seconds for one in written),
        write_seconds={store: sum(one.write_seconds[store] for one in written) for store in stores},
        bytes_written={store: sizes(folder / store).written for store in stores},
        disk_bytes={store: sizes(folder / store).disk for store in stores},
    )


def _write_members(
    tree: dict[str, object], folder: Path, members: list[int], stores: list[Store]
) -> list[_Written]:
    """Runs in each solver process."""
    from pipeline.members.downsample import Downsampling
    from pipeline.members.run_member import run_member
    from solvers import petsc, registry

    study = StudyConfig.model_validate(tree)
    solver, design, layout = registry.build(study.solver), design_of(study), study.sample_layout()
    sender = FileSender({store: files_of(store, folder / store) for store in stores}, layout.dtype)
    done = []
    try:
        for member in members:
            try:
                report = run_member(
                    solver,
                    sender,
                    Assignment(
                        member=member, attempt=1, validation=member < study.ensemble.validation
                    ),
                    design.values(member),
                    comm=petsc.self_communicator(),
                    downsampling=Downsampling(solver.spec, study.stream),
                    window=layout.window,
                    stride=study.trainer.task.stride,
                    initial_state=study.stream.initial_state,
                    time_step=study.time_step,
                    flush_timeout=_FLUSH_SECONDS,
                    clock=time.monotonic,
                )
            except SolverFailed:
                continue
            samples, seconds = sender.last()
            moments = moments_of(samples.fields, samples.inputs, np.arange(len(samples.steps)))
            done.append(
                _Written(
                    member=member,
                    samples=report.samples,
                    moments=moments,
                    solve_seconds=report.solve_seconds,
                    write_seconds=seconds,
                )
            )
    finally:
        solver.close()
    return done


@final
class FileSender:
    """A ``pipeline.members.run_member.SampleSender`` whose other end is files.

    Args:
        files: Where each member is written, by store.
        dtype: Type of the fields.
    """

    def __init__(self, files: dict[Store, NpyFiles | ZarrFiles], dtype: str) -> None:
        self._files, self._dtype = files, dtype
        self._member = 0
        self._parameters = np.empty(0)
        self._fields: list[Float[np.ndarray, " window channel *grid"]] = []
        self._times: list[Float64[np.ndarray, " window"]] = []
        self._steps: list[int] = []
        self._samples = 0
        self._bytes = 0
        self._seconds: dict[str, float] = {}
        self._last: MemberSamples | None = None

    @property
    def stats(self) -> SenderStats:
        """What has been written; files never make a sender wait for credit."""
        return SenderStats(
            samples=self._samples, bytes_sent=self._bytes, wait_seconds=0.0, resent=0
        )

    def open(
        self,
        *,
        member: int,
        attempt: int,
        parameters: Float64[np.ndarray, " parameters"],
        validation: bool,
    ) -> None:
        """Start a member."""
        self._member, self._parameters = member, parameters
        self._fields, self._times, self._steps = [], [], []

    def send(
        self,
        *,
        sample: int,
        step: int,
        times: Float64[np.ndarray, " window"],
        fields: Float[np.ndarray, " window channel *grid"],
    ) -> None:
        """Keep one sample until the member is whole."""
        self._fields.append(fields.astype(self._dtype, copy=False))
        self._times.append(times)
        self._steps.append(step)
        self._samples += 1
        self._bytes += self._fields[-1].nbytes

    def flush(self, *, timeout: float) -> None:
        """Write the member."""
        times = np.array(self._times).reshape(len(self._steps), -1)
        parameters = np.broadcast_to(self._parameters, (len(times), len(self._parameters)))
        self._last = MemberSamples(
            fields=np.stack(self._fields),
            inputs=np.concatenate([parameters, times], axis=1),
            steps=np.array(self._steps, np.int64),
        )
        for store, files in self._files.items():
            began = time.monotonic()
            files.write(self._member, self._last)
            self._seconds[store] = time.monotonic() - began

    def last(self) -> tuple[MemberSamples, dict[str, float]]:
        """The member written last, and the seconds that each store took."""
        assert self._last is not None
        return self._last, dict(self._seconds)
