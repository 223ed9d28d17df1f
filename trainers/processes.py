"""Helper processes that never outlive the one that started them.

1. When the block ends by an exception, the processes are ended at once, whatever they do.
2. When the starting process dies, however it dies, they end as well.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Start ``count`` fresh processes: no fork, which is not safe beside Ray and MPI."""
    context = get_context("spawn")
    leash, end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_end_with, initargs=(leash,))
    try:
        yield pool
    except BaseException:
        end.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        end.close()
        leash.close()


def _end_with(leash: Connection) -> None:
    """Watch the other end of the pipe, which closes with its process if not before."""

    def watch() -> None:
        try:
            leash.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, name="leash", daemon=True).start()
