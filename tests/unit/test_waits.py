"""Every wait has an end: a time limit of its own, or a reason why the other side always comes."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("pipeline", "trainers", "solvers", "deploy")
# Method -> arguments from which on one of them is the time limit.
LIMITED_BY = {
    "wait": 1, "join": 1, "acquire": 1, "result": 1, "poll": 1, "wait_for": 2, "communicate": 2,
    "recv": 9, "recv_multipart": 9, "select": 1, "get": 1,
}  # fmt: skip
DEAD_POOL = "a process that dies breaks the pool, which raises"
KILLED = "the process was killed the moment before, or has ended"
OWN_THREAD = "the thread looks at ``_closing``, and each of its waits has a limit"
STAGING = "notified by the other of two threads, which says so when it ends, an error included"
# Beginning of a wait without a time limit -> why it ends all the same.
ENDS = {
    "ray.get(future)": "called for futures that ray.wait has found done",
    "ray.get(run)": "called for runs that ray.wait has found done",
    "future.result()": DEAD_POOL,
    "self._changed.wait_for(lambda: self._closing or self._replays > 0 or bool(self._retu": STAGING,
    "self._changed.wait_for(lambda: self._free or self._closing)": STAGING,
    "self._changed.wait_for(lambda: self._ready or self._error is not None)": STAGING,
    "self._changed.wait_for(lambda: bool(self._free) or self._closing or self._returned)": STAGING,
    "self._connection.recv(_CHUNK)": "the connection ends with the process at its other end",
    "self._lock.acquire()": "nobody waits while he holds the turnstile",
    "self._leash.wait()": KILLED,
    "process.wait()": KILLED,
    "self._process.wait()": KILLED,
    "self._thread.join()": OWN_THREAD,
    "self._ticker.join()": OWN_THREAD,
    "child.wait()": "a person at a terminal waits for the study, which Ctrl-C ends",
    "line.recv(wire.MAX_BYTES)": "the socket has a time limit while it says hello",
    "self.socket.recv(wire.MAX_BYTES)": "the socket does not block",
    "router.recv(copy=False)": "parts of a message arrive together",
}


def waits(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that may wait for ever, by their names and arguments."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, owner = node.func.attr, ast.unparse(node.func.value)
        if any(key.arg is not None and key.arg.startswith("timeout") for key in node.keywords):
            continue
        text = ast.unparse(node)
        if (
            "NOBLOCK" in text
            or "blocking=False" in text
            or isinstance(node.func.value, ast.Constant)
        ):
            continue
        asks = name == "poll" and ("process" in owner or owner == "select")
        limited = len(node.args) >= LIMITED_BY.get(name, 0) or asks
        if (owner, name) == ("ray", "get") or not limited:
            yield node


def test_every_wait_has_an_end(project: Path) -> None:
    found = {
        ast.unparse(call): f"{path.relative_to(project)}:{call.lineno}"
        for package in PACKAGES
        for path in (project / package).rglob("*.py")
        for call in waits(ast.parse(path.read_text("utf-8")))
    }
    endless = {
        f"{where}: {call}" for call, where in found.items() if not call.startswith(tuple(ENDS))
    }
    assert not endless, "give it a timeout, or say in ENDS why it ends"
    assert [end for end in ENDS if not any(call.startswith(end) for call in found)] == []


def endless_loops(tree: ast.AST) -> Iterator[ast.While]:
    """Loops that sleep, with no deadline in sight: whatever they wait for may never come."""
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.While) else ""
        bounded = any(word in text for word in ("deadline", "timeout", "monotonic", "clock"))
        if isinstance(node, ast.While) and "sleep(" in text and not bounded:
            yield node


def test_no_loop_that_sleeps_is_without_a_deadline(project: Path) -> None:
    for package in PACKAGES:
        for path in (project / package).rglob("*.py"):
            loops = list(endless_loops(ast.parse(path.read_text("utf-8"))))
            assert not loops, f"{path.relative_to(project)}:{loops[0].lineno}"


def test_a_loop_that_only_sleeps_is_seen_whatever_its_condition() -> None:
    source = "while not done():\n    time.sleep(1)\nwhile True:\n    clock.tick()\n"
    assert [loop.lineno for loop in endless_loops(ast.parse(source))] == [1]
