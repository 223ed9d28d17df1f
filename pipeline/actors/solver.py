"""The Ray shell of a solver: one process that runs member after member."""

import time
from collections.abc import Mapping, Sequence

import ray

from pipeline.config import StudyConfig
from pipeline.controller import Assignment
from pipeline.downsample import Downsampling
from pipeline.guards import check_packages
from pipeline.members import run_member
from pipeline.sender import Sender
from pipeline.stats import MemberReport
from pipeline.wire import Endpoint, StudyKeys

# After its last snapshot a member waits for room in the reservoirs, which can take as long as the
# trainer is slow; the sender's own time limit judges that, this one only bounds the wait.
FLUSH_TIMEOUT_SECONDS = 3600.0


class _SolverHost:
    """Owns the solver and the sender; both are reused for every member."""

    def __init__(self, study: StudyConfig, endpoints: Sequence[Endpoint], keys: StudyKeys) -> None:
        check_packages()
        # Here and not above: the driver imports this module too, and must not start MPI.
        from solvers import petsc, registry

        self._study = study
        self._comm = petsc.self_communicator()
        self._solver = registry.build(study.solver)
        self._downsampling = Downsampling(self._solver.spec, study.stream)
        self._sender = Sender(
            endpoints,
            layout=study.sample_layout(),
            keys=keys,
            credit_bytes=study.stream.credit_bytes,
            batch_bytes=study.stream.batch_bytes,
            linger_ms=study.stream.linger_ms,
        )

    @ray.method
    def ready(self) -> None:
        """Return once the solver can take a member."""

    @ray.method
    def run(self, assignment: Assignment, parameters: Mapping[str, float]) -> MemberReport:
        """Run one attempt at a member."""
        return run_member(
            self._solver,
            self._sender,
            assignment,
            parameters,
            comm=self._comm,
            downsampling=self._downsampling,
            window=self._study.sample_layout().window,
            stride=self._study.trainer.task.stride,
            initial_state=self._study.stream.initial_state,
            flush_timeout=FLUSH_TIMEOUT_SECONDS,
            clock=time.monotonic,
        )

    @ray.method
    def close(self) -> None:
        """Destroy every PETSc object and close the sockets."""
        self._solver.close()
        self._sender.close()


# A call, not a decorator: type checkers ignore class decorators, so @ray.remote on the class would
# leave SolverActor.remote(...) and every method call unchecked.
SolverActor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)(_SolverHost)
