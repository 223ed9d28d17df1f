"""headrace.py: every public name is there, from its own home, and none before it is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

import headrace


@pytest.mark.parametrize("name", [name for name in headrace.__all__ if name != "stream"])
def test_every_public_name_comes_from_its_home(name: str) -> None:
    assert getattr(headrace, name).__name__ == name


@pytest.mark.petsc
def test_the_stream_of_a_ts_is_public() -> None:
    from solvers.stepping import stream

    assert headrace.stream is stream


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no 'sole'.*load_surrogate"):
        _ = headrace.sole
    assert dir(headrace) == headrace.__all__


def test_nothing_is_imported_before_it_is_asked_for(project: Path) -> None:
    code = (
        "import sys, headrace; headrace.Parameter; headrace.load;"
        "print(*[m for m in ('torch', 'ray', 'zmq', 'petsc4py', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_checking_gives_the_warnings_of_a_study(project: Path) -> None:
    assert headrace.check(project / "examples" / "heat.yaml") == []
    found = headrace.check(project / "examples" / "heat.yaml", ["ensemble.validation=0"])
    assert any("validation" in line for line in found)
