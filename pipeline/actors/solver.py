"""The Ray shell of a solver: one process that runs member after member, or an mpiexec group."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray

from pipeline.actors.cluster import Actor, close_all
from pipeline.guards import check_packages
from pipeline.members.attempt import Assignment, MemberReport
from pipeline.members.group import Group
from pipeline.members.solving import Solving
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.study.config import StudyConfig

# A solver in the middle of a member answers only when that has ended; it owns nothing that a kill
# would leave behind.
CLOSE_SECONDS = 1.0


class _SolverHost:
    """Owns what runs its members: this process itself, or the group that it has started."""

    def __init__(self, study: StudyConfig, endpoints: Sequence[Endpoint], keys: StudyKeys) -> None:
        check_packages()
        here = ray.get_runtime_context().get_node_id()
        endpoints = [each.seen_from(here) for each in endpoints]
        if study.ensemble.mpi_ranks > 1:
            self._runs: Group | Solving = Group(study, endpoints, keys)
            return
        if not study.simulates:
            self._runs = Solving(study, endpoints, keys, comm=None)
            return
        # Here and not above: the driver imports this module too, and must not start MPI.
        from solvers import petsc

        self._runs = Solving(study, endpoints, keys, comm=petsc.self_communicator())

    @ray.method
    def ready(self) -> None:
        """Return once the solver can take a member."""
        # Not when this is made: Ray calls an actor unavailable that takes seconds to be made again.
        if isinstance(self._runs, Group):
            self._runs.start()

    @ray.method
    def run(self, assignment: Assignment, parameters: Mapping[str, float]) -> MemberReport:
        """Run one attempt at a member."""
        return self._runs.run(assignment, parameters)

    @ray.method
    def close(self) -> None:
        """End the group, or destroy every PETSc object and close the sockets."""
        self._runs.close()


# A call, not a decorator: type checkers ignore class decorators, so @ray.remote on the class would
# leave SolverActor.remote(...) and every method call unchecked.
SolverActor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)(_SolverHost)


@contextmanager
def solvers_of(
    study: StudyConfig, endpoints: Sequence[Endpoint], keys: StudyKeys
) -> Iterator[list[Actor]]:
    """The solver processes; each runs member after member."""
    actors = [
        SolverActor.options(num_cpus=study.ensemble.mpi_ranks, scheduling_strategy="SPREAD").remote(
            study, endpoints, keys
        )
        for _ in range(study.ensemble.concurrent)
    ]
    try:
        yield actors
    finally:
        close_all(actors, within=CLOSE_SECONDS)
