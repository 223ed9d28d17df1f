from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.design import Design, design_of
from pipeline.study.load import parse

NAMES = ["initial", "west", "east", "south", "north"]
DRAWING = ["uniform", "halton", "sobol", "latin_hypercube"]
RANGES: dict[str, Any] = {
    "initial": {"uniform": [100.0, 500.0]},
    "west": {"loguniform": [1.0, 400.0]},
    "east": {"values": [250.0, 300.0, 350.0]},
    "south": {"constant": 280.0},
    "north": {"uniform": [-10.0, 10.0]},
}


def study(
    folder: Path | str = ".", parameters: dict[str, Any] | None = None, **ensemble: object
) -> StudyConfig:
    return parse(
        {
            "name": "plate",
            "seed": 11,
            "solver": {"kind": "heat", "grid": [8, 12], "steps": 5, "dt": 0.01},
            "parameters": RANGES if parameters is None else parameters,
            "ensemble": {"members": 37, "validation": 5, **ensemble},
            "reservoir": {"capacity": 100, "watermark": 10},
            "trainer": {"ranks": 1, "batch": 4},
        },
        folder=folder,
    )


def parameters_for(of: StudyConfig) -> tuple[np.ndarray, np.ndarray]:
    """Those of training members and of validation members, a row each."""
    rows, held_out = design_of(of).rows, of.ensemble.validation
    return rows[held_out:], rows[:held_out]


def in_ranges(rows: np.ndarray) -> bool:
    lows, highs = [100, 1, 250, 280, -10], [500, 400, 350, 280, 10]
    return bool(((rows >= lows) & (rows <= highs)).all())


@pytest.mark.parametrize("kind", DRAWING)
def test_the_same_study_gives_the_same_parameters(kind: str) -> None:
    first, second = parameters_for(study(design=kind)), parameters_for(study(design=kind))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("kind", DRAWING)
def test_another_seed_gives_other_parameters(kind: str) -> None:
    one = study(design=kind)
    other = StudyConfig.model_validate({**one.as_json(), "seed": 12})
    assert not np.array_equal(parameters_for(one)[0], parameters_for(other)[0])


@pytest.mark.parametrize("kind", [*DRAWING, "grid"])
def test_every_member_is_in_the_ranges_and_differs_from_all_others(kind: str) -> None:
    training, validation = parameters_for(study(design=kind, members=81))
    assert training.shape == (81, 5)
    assert validation.shape == (5, 5)
    assert in_ranges(training)
    assert in_ranges(validation)
    together = np.concatenate([training, validation])
    assert len(np.unique(together, axis=0)) == 86


@pytest.mark.parametrize("kind", ["uniform", "halton", "sobol"])
def test_more_members_leave_the_first_ones_as_they_were(kind: str) -> None:
    few, _ = parameters_for(study(design=kind, members=20))
    many, _ = parameters_for(study(design=kind, members=75))
    assert np.array_equal(few, many[:20])


@pytest.mark.parametrize("kind", [*DRAWING, "grid"])
def test_validation_members_do_not_move_the_training_members(kind: str) -> None:
    few, _ = parameters_for(study(design=kind, members=81, validation=1))
    many, _ = parameters_for(study(design=kind, members=81, validation=9))
    assert np.array_equal(few, many)


@pytest.mark.parametrize("kind", ["halton", "sobol", "latin_hypercube"])
def test_low_discrepancy_fills_a_range_more_evenly_than_chance(kind: str) -> None:
    training, _ = parameters_for(study(design=kind, members=64))
    counts, _ = np.histogram(training[:, 0], bins=8, range=(100, 500))
    # 64 random points put 8 +- 2.6 into each of 8 bins: within one in all of them is no chance.
    assert np.abs(counts - 8).max() <= 1


def test_a_latin_hypercube_has_one_member_in_each_stratum() -> None:
    training, _ = parameters_for(study(design="latin_hypercube", members=40))
    strata = np.sort(((training[:, 0] - 100) / 10).astype(int))
    assert strata.tolist() == list(range(40))


def test_a_grid_has_all_combinations() -> None:
    training, _ = parameters_for(study(design="grid", members=3 * 2**3))
    assert np.unique(training[:, 0]).tolist() == [100, 500]
    assert np.unique(training[:, 1]).tolist() == pytest.approx([1, 400])
    assert np.unique(training[:, 2]).tolist() == [250, 300, 350]
    assert np.unique(training[:, 3]).tolist() == [280]
    assert len(np.unique(training, axis=0)) == 24


def test_a_grid_of_one_level_takes_the_middles() -> None:
    training, _ = parameters_for(study(design="grid", members=3))
    assert training[:, 0].tolist() == [300, 300, 300]


def test_all_constant_gives_equal_members() -> None:
    constant = {name: {"constant": 300.0 + i} for i, name in enumerate(NAMES)}
    training, validation = parameters_for(study(parameters=constant, validation=0))
    assert np.unique(training, axis=0).tolist() == [[300, 301, 302, 303, 304]]
    assert validation.shape == (0, 5)


def test_validation_members_have_the_lowest_numbers() -> None:
    design = design_of(study())
    assert list(design.values(0)) == NAMES
    assert list(design.values(4).values()) == design.rows[4].tolist()
    assert list(design.values(5).values()) == design.rows[5].tolist()
    assert list(design.values(41).values()) == design.rows[41].tolist()
    for number in (-1, 42):
        with pytest.raises(IndexError, match=f"member={number}: the study has 42"):
            design.values(number)


def test_a_redrawn_member_depends_on_seed_member_and_attempt() -> None:
    design = design_of(study())
    assert design.redraw(7, 2) == design_of(study(members=90)).redraw(7, 2)
    others = [design.redraw(7, 3), design.redraw(8, 2), design.values(7)]
    assert design.redraw(7, 2) not in others
    assert in_ranges(np.array([list(design.redraw(7, n).values()) for n in range(200)]))


def csv_design(folder: Path) -> Design:
    lines = ["north,west,initial,east"]
    lines += [f"{i},{100 + i},{200 + i},300" for i in range(9)]
    (folder / "p.csv").write_text("\n".join(lines) + "\n")
    parameters = {"south": {"constant": 280.0}, "north": {"uniform": [0.0, 8.0]}}
    return design_of(study(folder, parameters, members=6, validation=3, design={"csv": "p.csv"}))


def test_a_csv_gives_training_members_first(tmp_path: Path) -> None:
    design = csv_design(tmp_path)
    assert design.rows[3:].tolist() == [[200 + i, 100 + i, 300, 280, i] for i in range(6)]
    assert design.rows[:3].tolist() == [[200 + i, 100 + i, 300, 280, i] for i in (6, 7, 8)]
    assert design.values(0)["north"] == 6


def test_a_csv_cannot_be_redrawn_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"member=2: a CSV design has no further points\. Add"):
        csv_design(tmp_path).redraw(2, 1)


def test_a_csv_that_changed_after_the_check_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(",".join(NAMES) + "\n" + "1,2,3,4,5\n" * 7)
    checked = study(tmp_path, {}, members=6, validation=1, design={"csv": "p.csv"})
    (tmp_path / "p.csv").write_text(",".join(NAMES) + "\n" + "1,2,3,4,x\n" * 7)
    with pytest.raises(ConfigError, match="row 1, north='x' is no finite number"):
        design_of(checked)
