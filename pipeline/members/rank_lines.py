"""What a SolverActor and its mpi_ranks say to each other: JSON lines over a Unix socket, no pickle.

1. The study's keys travel here: never on a command line, in an environment or in a file.
2. A line is bounded; a longer one ends the conversation.
3. Who waits for a line sleeps in the kernel.
"""

import base64
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from pydantic import TypeAdapter

from pipeline.members.attempt import Assignment, MemberReport
from pipeline.stream.endpoint import DirectEndpoint, Endpoint, StudyKeys
from pipeline.study.config import StudyConfig

ADDRESS: Final = "HEADRACE_ACTOR"  # variable in which an mpi_rank finds the socket's path
MAX_LINE: Final = 16 << 20  # a study with many listed values
_CHUNK: Final = 1 << 16
_DIRECT: Final = TypeAdapter[DirectEndpoint | None](DirectEndpoint | None)
_KEYS: Final = ("server_public", "server_secret", "client_public", "client_secret")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """First word of an mpi_rank: which one it is, of how many."""

    rank: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What an mpi_rank builds its solver and its sender from."""

    study: StudyConfig
    endpoints: Sequence[Endpoint]
    keys: StudyKeys


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The mpi_rank can take a member."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Run one attempt at a member."""

    assignment: Assignment
    parameters: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failing:
    """The solver has given up; what was sent before is still being stored."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The attempt, or the start, has ended without success.

    Attributes:
        reason: In one line.
        final: Whether another attempt would fail in the same way (``SolverFailed``).
    """

    reason: str
    final: bool


# The report of a member is an answer as it is.
Message = Hello | Setup | Ready | Run | Failing | Failed | MemberReport


def encode(message: Message) -> bytes:
    """One line."""
    match message:
        case Setup(study=study, endpoints=endpoints, keys=keys):
            facts: dict[str, Any] = {
                "study": study.as_json(),
                "endpoints": [
                    asdict(each) | {"server_key": _text(each.server_key)} for each in endpoints
                ],
                "number": keys.study,
                "keys": {name: _text(getattr(keys, name)) for name in _KEYS},
            }
        case _:
            facts = asdict(message)
    return json.dumps({"kind": type(message).__name__} | facts).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line.

    Raises:
        ValueError: It is none.
    """
    try:
        facts = json.loads(line)
        kind = facts.pop("kind")
        if kind == "Setup":
            return _setup(facts)
        if kind == "Run":
            return Run(assignment=Assignment(**facts["assignment"]), parameters=facts["parameters"])
        plain = {cls.__name__: cls for cls in (Hello, Ready, Failing, Failed, MemberReport)}
        return plain[kind](**facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a line of an mpi_rank: {line[:80]!r}") from error


def _setup(facts: dict[str, Any]) -> Setup:
    return Setup(
        study=StudyConfig.model_validate(facts["study"]),
        endpoints=[
            Endpoint(
                address=each["address"],
                server_key=None if (key := each["server_key"]) is None else base64.b64decode(key),
                direct=_DIRECT.validate_python(each["direct"]),
            )
            for each in facts["endpoints"]
        ],
        keys=StudyKeys(
            study=facts["number"],
            **{name: base64.b64decode(facts["keys"][name]) for name in _KEYS},
        ),
    )


def _text(key: bytes | None) -> str | None:
    return None if key is None else base64.b64encode(key).decode()


@final
class Lines:
    """One end of a connection; owns the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def fileno(self) -> int:
        """For a selector: readable when ``receive`` has something to do."""
        return self._connection.fileno()

    def send(self, message: Message) -> None:
        """Hand a message over."""
        self._connection.sendall(encode(message))

    def receive(self) -> list[Message]:
        """Wait for bytes; the messages that they complete, maybe none.

        Raises:
            EOFError: The other end is gone, or talks nonsense.
        """
        try:
            data = self._connection.recv(_CHUNK)
        except ConnectionError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data or len(self._rest) > MAX_LINE:
            raise EOFError
        return [decode(line) for line in lines]

    def close(self) -> None:
        """End the conversation."""
        self._connection.close()
