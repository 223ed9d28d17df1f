"""Every wait in the pipeline ends: it says for how long, or stands here with the reason."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3] / "pipeline"
WAITS = {"wait", "wait_for", "join", "get", "communicate", "acquire"}
# File and function -> why what is waited for comes.
ARGUED = {
    ("actors/driver.py", "_event"): "ray.wait has said that it is there",
    ("actors/driver.py", "_training_ended"): "ray.wait has said that it is there",
    ("actors/driver.py", "_started"): "ray.wait has said that it is there",
    ("stream/receiver.py", "__enter__"): "a lock that is held for one look, never across a wait",
    ("stream/sender.py", "_service"): "it does not block",
    ("stream/receiver.py", "close"): "its thread was woken, and polls with a timeout",
    ("stream/sender.py", "close"): "its thread was woken, and waits with a timeout",
}


def endless(path: Path) -> set[tuple[str, str]]:
    found = set()
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                waits = call.func.attr in WAITS and not any(
                    k.arg == "timeout" for k in call.keywords
                )
                of_ray = isinstance(call.func.value, ast.Name) and call.func.value.id == "ray"
                if waits and (of_ray or not call.args):
                    found.add((path.relative_to(ROOT).as_posix(), function.name))
    return found


def test_every_wait_is_bounded_or_argued() -> None:
    assert set().union(*(endless(path) for path in ROOT.rglob("*.py"))) == set(ARGUED)
