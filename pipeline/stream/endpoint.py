"""Where a reservoir is reached, and the keys of those who may speak to it."""

import secrets
from dataclasses import dataclass, field, replace
from typing import Self

from pipeline.slots.memory import SlotsDescription


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectEndpoint:
    """How a sender of the same node comes to write into the slots of a reservoir itself.

    Attributes:
        path: Of the Unix socket that grants travel over.
        training: The slots of training samples.
        validation: Those of validation samples.
        node: Which node it is, where a study has several.
    """

    path: str
    training: SlotsDescription
    validation: SlotsDescription | None
    node: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a reservoir is reached: from its own node, from others, or from both.

    Attributes:
        address: ``tcp://HOST:PORT``; empty where nobody comes from another node.
        server_key: The CURVE public key of who listens there.
        direct: For senders of its own node; None where these come over TCP too.
    """

    address: str = ""
    server_key: bytes | None = None
    direct: DirectEndpoint | None = None

    def seen_from(self, node: str) -> Self:
        """What of it a sender on this node can use."""
        here = self.direct is None or self.direct.node in ("", node)
        return self if here else replace(self, direct=None)

    def __str__(self) -> str:
        return self.address or ("" if self.direct is None else self.direct.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyKeys:
    """Who belongs to a study: its number and its two CURVE key pairs; never written or logged."""

    study: int
    server_public: bytes
    server_secret: bytes = field(repr=False)
    client_public: bytes
    client_secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Fresh keys from the system's random source."""
        import zmq  # here, so that whoever only wants a shape does not load it

        server_public, server_secret = zmq.curve_keypair()
        client_public, client_secret = zmq.curve_keypair()
        return cls(
            study=secrets.randbits(64),
            server_public=server_public,
            server_secret=server_secret,
            client_public=client_public,
            client_secret=client_secret,
        )
