"""Solvers by name: found, built and described."""

import subprocess
import sys
from pathlib import Path

import pytest

from solvers.configs.heat import HeatConfig
from solvers.registry import SOLVERS, build, describe, known


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"solver kind 'haet' is not known: use one of heat"):
        known("haet")


def test_every_entry_is_named_as_its_config_says() -> None:
    for kind, entry in SOLVERS.items():
        assert entry().kind == kind
        assert entry.summary


@pytest.mark.petsc
def test_build_gives_the_solver_of_the_config() -> None:
    solver = build(HeatConfig(grid=(5, 4), steps=3))
    assert solver.spec.shape == (5, 4)
    assert solver.max_snapshots == 4
    solver.close()


# What has no meaning for a solver, and what it says instead.
INSTEAD = {
    "cavity": {"Time:": "Unsteady:"},
    "lorenz": {"Boundary:": "Initial:", "Grid:": "Time:", "Space:": "Time:"},
    "own": {
        "Domain:": "Equation:",
        "Boundary:": "Equation:",
        "Initial:": "Equation:",
        "Grid:": "Class:",
        "Space:": "Order:",
        "Time:": "Order:",
        "Stability:": "Order:",
    },
    "program": {
        "Domain:": "Layout:",
        "Boundary:": "Stream:",
        "Initial:": "Stream:",
        "Grid:": "Layout:",
        "Space:": "Order:",
        "Time:": "Order:",
        "Stability:": "Order:",
    },
}


@pytest.mark.parametrize("kind", list(SOLVERS))
def test_a_description_says_all_that_a_user_needs(kind: str) -> None:
    text = describe(kind)
    for heading in (
        "Equation:", "Domain:", "Boundary:", "Initial:", "Grid:", "Space:", "Time:", "Stability:",
        "Behaviour:", "Good values:", "Source:", "Parameters", "Settings",
    ):  # fmt: skip
        assert f"\n{INSTEAD.get(kind, {}).get(heading, heading)}" in text, heading
    config = SOLVERS[kind]()
    rows = [line.split() for line in text.splitlines()]
    for parameter in config.parameters():
        unit = "-" if parameter.unit == "1" else parameter.unit
        assert any(row[:2] == [parameter.name, unit] for row in rows)
    for name, field in type(config).model_fields.items():
        if name not in ("kind", "announced"):  # these are not written into a study
            assert any(row[:1] == [field.alias or name] for row in rows), name


def test_the_table_of_heat() -> None:
    text = describe("heat")
    assert "  west     K     [100, 500]  temperature of the wall at x = 0\n" in text
    assert "  grid           [64, 64]    cells (x), (y, x) or (z, y, x), at least 3" in text


def test_sections_among_the_settings_are_described_for_every_choice() -> None:
    text = describe("darcy")
    assert "  coefficient    {kind: two_phase, ...}  two_phase, voronoi or lognormal" in text
    # The solver's own defaults for the choice that it makes, the choice's own for the others.
    assert "\nSettings of `coefficient`, with `kind: two_phase`\n" in text
    assert "  length_scale  0.333333  length 1 / tau" in text
    assert "\nSettings of `coefficient`, with `kind: lognormal`\n" in text
    assert "  length_scale  0.2      length 1 / tau" in text


def test_describing_imports_neither_petsc_nor_the_solver(project: Path) -> None:
    program = (
        "import sys; from solvers.registry import SOLVERS, describe\n"
        "for kind in SOLVERS: describe(kind)\n"
        "print(*{'petsc4py', 'mpi4py', 'solvers.petsc', 'solvers.pdes.heat'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_options_of_a_program_are_shown_as_they_are_written() -> None:
    shown = describe("program")
    assert "ProgramOption(" not in shown
    assert "{option: " in shown
