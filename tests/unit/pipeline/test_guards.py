import importlib
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import guards
from pipeline.errors import ConfigError

Foreign = Callable[..., Path]


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foreign:
    """Makes a folder with the packages named, first on the import path, and ours not loaded."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')\n")
            for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return make


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes an installed distribution with the files given, last on the import path."""

    def make(distribution: str, files: list[str], *, top_level: list[str] | None) -> Path:
        info = tmp_path / "site" / f"{distribution}-2.1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
        if top_level is not None:
            (info / "top_level.txt").write_text("\n".join(top_level) + "\n")
        monkeypatch.setattr(sys, "path", [*sys.path, str(info.parent)])
        importlib.invalidate_caches()
        return info.parent

    return make


def problems() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        guards.check_packages()
    return caught.value.problems


def test_this_checkout_is_accepted() -> None:
    guards.check_packages()


@pytest.mark.parametrize("name", guards.PACKAGES)
def test_each_package_lies_in_this_checkout(name: str, project: Path) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve() == project / name / "__init__.py"


def test_project_root_is_the_checkout(project: Path) -> None:
    assert guards.project_root() == project


def test_a_package_from_another_place_is_refused(foreign: Foreign) -> None:
    place = foreign("solvers")
    (problem,) = problems()
    assert f"'solvers' comes from {place / 'solvers' / '__init__.py'}" in problem
    assert f"take {place} out of PYTHONPATH" in problem


def test_a_package_already_loaded_from_another_place_is_refused(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = foreign("trainers")
    (place / "trainers" / "__init__.py").write_text("")
    importlib.import_module("trainers")
    monkeypatch.setattr(sys, "path", sys.path[1:])  # a new search would find ours again
    (problem,) = problems()
    assert str(place) in problem


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_imported(foreign: Foreign) -> None:
    foreign("deploy", "trainers")  # each raises when imported
    found = problems()
    assert [p.split("'")[1] for p in found] == ["trainers", "deploy"]


def test_a_missing_package_names_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "PACKAGES", ("solvers", "spillway"))
    (problem,) = problems()
    assert "'spillway' is not importable" in problem
    assert f"pip install --no-deps -e {guards.project_root()}" in problem


@pytest.mark.parametrize("top_level", [["solvers", "other"], None], ids=["top_level", "RECORD"])
def test_a_name_that_another_distribution_owns_is_refused_even_while_ours_wins(
    install: Callable[..., Path], top_level: list[str] | None
) -> None:
    install("fluid-tools", ["solvers/__init__.py", "other/x.py"], top_level=top_level)
    (problem,) = problems()
    assert "'solvers' also belongs to the installed distribution 'fluid-tools'" in problem
    assert "pip uninstall fluid-tools" in problem


def test_a_single_module_file_counts_as_its_name(install: Callable[..., Path]) -> None:
    install("one-file", ["deploy.py"], top_level=None)
    (problem,) = problems()
    assert "'deploy' also belongs to the installed distribution 'one-file'" in problem


def test_other_distributions_with_other_names_are_no_concern(install: Callable[..., Path]) -> None:
    install("neighbour", ["pipelines/__init__.py", "my/solvers/__init__.py"], top_level=None)
    guards.check_packages()


def test_the_package_list_of_pyproject_is_explicit_and_complete(project: Path) -> None:
    listed = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {
        ".".join(path.parent.relative_to(project).parts)
        for name in guards.PACKAGES
        for path in (project / name).rglob("__init__.py")
    }
    assert set(listed["packages"]) == on_disk
    for name in guards.PACKAGES:
        assert (project / name / "py.typed").exists()


def test_it_cannot_be_uploaded_by_accident(project: Path) -> None:
    metadata = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in metadata["classifiers"]


def test_the_finder_that_dask_brings_changes_nothing(install: Callable[..., Path]) -> None:
    import dask  # noqa: F401 - from here on importlib.metadata asks another package too

    guards.check_packages()
    install("one-file", ["deploy.py"], top_level=None)
    (problem,) = problems()
    assert "'deploy' also belongs to the installed distribution 'one-file'" in problem
