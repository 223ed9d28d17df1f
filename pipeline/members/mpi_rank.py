"""The main of each mpi_rank of a group (``python -m pipeline.members.mpi_rank``).

1. It takes its orders from the SolverActor through a Unix socket, whose path is in the environment,
   each mpi_rank its own: between two members it sleeps, where an MPI broadcast would spin.
2. A ``SolverFailed`` is told at once and again when what was sent is stored; then it goes on.
3. It ends when the socket does, and with the process that started it.
"""

import os
import socket
import sys
import traceback
from collections.abc import Iterator

from pipeline.guards import check_packages
from pipeline.members.rank_lines import (
    ADDRESS,
    Failed,
    Failing,
    Hello,
    Lines,
    Message,
    Ready,
    Run,
    Setup,
)
from pipeline.members.solving import Solving
from solvers.base import SolverFailed
from solvers.program.leash import die_with_parent


def main() -> None:
    """Serve the SolverActor until it hangs up."""
    die_with_parent(os.getppid())
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ.pop(ADDRESS))
    lines = Lines(connection)
    check_packages()
    from solvers import petsc  # starts MPI

    comm = petsc.world_communicator()
    rank, size = comm.getRank(), comm.getSize()
    lines.send(Hello(rank=rank, size=size))
    orders = _received(lines)
    setup = next(orders)
    assert isinstance(setup, Setup)
    try:
        solving = Solving(setup.study, setup.endpoints, setup.keys, comm=comm, size=size)
    except Exception as error:  # noqa: BLE001 - it is told to the actor, which ends the group
        lines.send(_failed(error))
        for _ in orders:
            pass
        return
    lines.send(Ready())
    for order in orders:
        assert isinstance(order, Run)
        _attempt(solving, order, lines)
    solving.close()


def _received(lines: Lines) -> Iterator[Message]:
    """What the actor says, until it hangs up."""
    while True:
        try:
            yield from lines.receive()
        except EOFError:
            return


def _attempt(solving: Solving, order: Run, lines: Lines) -> None:
    def failing(reason: str) -> None:
        lines.send(Failing(reason=reason))

    try:
        lines.send(solving.run(order.assignment, order.parameters, failing=failing))
    except SolverFailed as error:
        lines.send(Failed(reason=str(error), final=True))
    except Exception as error:  # noqa: BLE001 - it is told to the actor, which ends the group
        lines.send(_failed(error))


def _failed(error: Exception) -> Failed:
    """For the actor in one line; with its traceback for the last lines of output."""
    traceback.print_exception(error)
    sys.stderr.flush()
    said = " ".join(str(error).split())
    return Failed(reason=f"{type(error).__name__}: {said}", final=False)


if __name__ == "__main__":
    main()
