"""Processes of a benchmark: spawned, as Ray's workers are, and gone when their block is left."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

CONTEXT: Final = multiprocessing.get_context("spawn")
_GRACE_SECONDS: Final = 2.0  # a sender may wait for credit that nobody gives any more


@contextmanager
def running(target: Callable[..., None], *arguments: object) -> Iterator[None]:
    """A process that ends by itself, or is killed."""
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.join(_GRACE_SECONDS)
        process.kill()
        process.join()


@contextmanager
def running_until_left(target: Callable[..., None], *arguments: object) -> Iterator[None]:
    """One that goes on until the event is set which it has as its last argument."""
    stop = CONTEXT.Event()
    with running(target, *arguments, stop):
        try:
            yield
        finally:
            stop.set()


@contextmanager
def reporting(target: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """One that says what it has found over the connection which it has as its last argument."""
    here, there = CONTEXT.Pipe(duplex=False)
    with running(target, *arguments, there):
        there.close()
        yield here
