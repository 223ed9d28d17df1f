"""Where a receiver listens, and the keys of those who may speak to it."""

import secrets
from dataclasses import dataclass, field
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where a receiver listens.

    Attributes:
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        server_key: The receiver's CURVE public key; None over ipc.
    """

    address: str
    server_key: bytes | None = None


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
