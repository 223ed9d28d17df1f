"""The processes of an mpiexec group, from the side of the SolverActor: started, heard, ended.

1. After ``end``, and after the death of this process, of mpiexec, of the leash between them or of
   an mpi_rank, nothing is left: no process, no shared memory of MPICH, no socket folder.
2. Every wait ends at a deadline.
3. All mpi_ranks run on this machine, whatever a batch system would do with mpiexec.
4. An mpi_rank has one thread, and the niceness of this process.
"""

import os
import selectors
import shutil
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, final

from pipeline.errors import GroupFailed
from pipeline.guards import project_root
from pipeline.members.rank_lines import ADDRESS, Hello, Lines, Message
from pipeline.stream.sockets import new_socket
from solvers.program.leashed import Leashed, clean_environment

START_SECONDS: Final = 120.0  # Python and PETSc off a slow file system, by many at once
_SPEAK_SECONDS: Final = 20.0  # from connecting to the first line, and for a line to be taken
_END_SECONDS: Final = 3.0  # for PETSc to finish; then it is killed
_STORY_SECONDS: Final = 1.0  # for mpiexec to end by itself and to say why
_STORY_LINES: Final = 5
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@final
class Processes:
    """A group that runs: mpiexec on a leash, and a connection to each mpi_rank.

    Args:
        ranks: How many.
        start_seconds: In which all of them must have connected.

    Raises:
        GroupFailed: They did not start.
    """

    def __init__(self, ranks: int, *, start_seconds: float = START_SECONDS) -> None:
        address = new_socket()
        folder = address.parent
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            listener = undo.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(address))
            listener.listen(ranks)
            environment = clean_environment(os.environ) | dict.fromkeys(_THREADS, "1")
            environment[ADDRESS] = str(address)
            # Nothing is bound to cores, and a killed Hydra would leave what it writes for that.
            environment["HYDRA_TOPOLIB"] = "none"
            self._leashed = Leashed(
                [find_mpiexec(environment["PATH"]), "-n", str(ranks), sys.executable,
                 "-X", "faulthandler", "-m", "pipeline.members.mpi_rank"],
                folder=folder, keep=False, environment=environment, cwd=project_root(),
            )  # fmt: skip
            self._connections: dict[int, Lines] = {}
            self._selector = selectors.DefaultSelector()
            try:
                for file in (self._leashed.ended, self._leashed.text):
                    self._selector.register(file, selectors.EVENT_READ)
                self._gather(listener, ranks, time.monotonic() + start_seconds)
            except BaseException:
                self.kill()
                raise
        # All are connected: the folder is gone by now, whatever kills us.

    def tell(self, message: Message) -> None:
        """Send to every mpi_rank.

        Raises:
            GroupFailed: One of them is gone.
        """
        for rank, lines in self._connections.items():
            try:
                lines.send(message)
            except OSError:
                raise self._lost(f"mpi_rank {rank} is gone") from None

    def heard(self, deadline: float) -> list[tuple[int, Message]]:
        """Wait until an mpi_rank says something; who said what, nothing when the time is over.

        Args:
            deadline: As of ``time.monotonic``.

        Raises:
            GroupFailed: The group, or a part of it, is gone.
        """
        while (left := deadline - time.monotonic()) > 0:
            said: list[tuple[int, Message]] = []
            # Finite, because a selector takes no infinite time.
            ready = {key.fd for key, _ in self._selector.select(min(left, 3600.0))}
            self._leashed.attend(ready)
            for rank, lines in self._connections.items():
                if lines.fileno() in ready:
                    try:
                        said += [(rank, message) for message in lines.receive()]
                    except (EOFError, ValueError):
                        raise self._lost(f"mpi_rank {rank} is gone") from None
            if said:
                return said
            if self._leashed.returncode is not None:
                raise self._lost("mpiexec has ended")
        return []

    def story(self) -> str:
        """The last lines of output, in one."""
        lines = [line.strip() for line in self._leashed.output.lines if line[:1] != "="]
        return " | ".join(lines[-_STORY_LINES:]) or "(none)"

    def end(self) -> None:
        """Let the mpi_ranks finish, then end what is left of them. May be called twice."""
        self._hang_up()
        self._leashed.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End all of it at once. May be called twice."""
        self._hang_up()
        self._leashed.stop()

    def _gather(self, listener: socket.socket, ranks: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            for file in (listener.fileno(), self._leashed.ended, self._leashed.text):
                selector.register(file, selectors.EVENT_READ)
            while len(self._connections) < ranks:
                left = deadline - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(left, 0.0))}
                self._leashed.attend(ready)
                if self._leashed.returncode is not None:
                    raise self._lost("mpiexec has ended")
                if listener.fileno() in ready:
                    self._meet(listener, ranks)
                elif left <= 0:
                    raise self._lost(
                        f"only {len(self._connections)} of {ranks} mpi_ranks have started in time"
                    )

    def _meet(self, listener: socket.socket, ranks: int) -> None:
        connection, _ = listener.accept()
        connection.settimeout(_SPEAK_SECONDS)
        lines = Lines(connection)
        try:
            hello = lines.receive()[0]
        except (EOFError, IndexError, TimeoutError, ValueError):
            lines.close()  # ``remove_stale_sockets`` of another study, who looks whether we live
            return
        assert isinstance(hello, Hello)
        if hello.size != ranks or hello.rank in self._connections:
            lines.close()
            raise self._lost(
                f"mpiexec -n {ranks} has started processes that know of {hello.size}: it is not of "
                "the MPI that petsc4py was built with. Put the right one first on PATH"
            )
        self._connections[hello.rank] = lines
        self._selector.register(lines, selectors.EVENT_READ)

    def _lost(self, what: str) -> GroupFailed:
        """End what is left of the group; why it did."""
        self._leashed.wait(_STORY_SECONDS)
        self.kill()
        code = self._leashed.returncode
        status = "" if code in (None, 0) else f", status {code}"
        return GroupFailed(f"{what}{status}; last output: {self.story()}")

    def _hang_up(self) -> None:
        for lines in self._connections.values():
            lines.close()
        self._connections = {}
        self._selector.close()


def find_mpiexec(path: str) -> str:
    """The mpiexec beside this Python, else the one on the path.

    Raises:
        GroupFailed: There is none.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec", path=path)
    if found is None:
        raise GroupFailed(
            f"ensemble.mpi_ranks needs mpiexec, but there is none beside {sys.executable} or on "
            "PATH. Install the MPI that petsc4py was built with (pip install mpich)"
        )
    return found
