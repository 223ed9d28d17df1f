"""Helper processes end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainers.processes import processes

PATIENCE = 20.0


def gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_they_return_comes_back() -> None:
    with processes(2) as pool:
        assert list(pool.map(abs, (-3, 4))) == [3, 4]
        (pid,) = {pool.submit(os.getpid).result()} - {os.getpid()}
    assert gone(pid)


def test_an_exception_in_the_block_ends_them_at_once() -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with processes(1) as pool:
            pids.append(pool.submit(os.getpid).result())
            pool.submit(time.sleep, 1000.0)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert gone(pids[0])
    assert time.monotonic() - began < 500.0


def test_they_end_when_their_starter_is_killed(project: Path) -> None:
    script = (
        "import os, time\n"
        "from trainers.processes import processes\n"
        "if __name__ == '__main__':\n"
        "    with processes(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 1000.0).result()\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script], cwd=project, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert gone(pid)
