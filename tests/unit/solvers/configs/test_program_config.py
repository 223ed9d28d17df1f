"""The settings of a foreign program: every refused value says why and what to write instead."""

import pytest
from pydantic import ValidationError

from solvers.base import Parameter
from solvers.configs.program import ProgramConfig

NEEDED: dict[str, object] = {
    "kind": "program",
    "command": "./flow -ts_type bdf",
    "components": {"u": "m/s", "p": "Pa"},
    "grid": [24, 40],
    "steps": 10,
}


def made(**changed: object) -> ProgramConfig:
    return ProgramConfig.model_validate(NEEDED | changed)


def test_parameters_come_from_the_config_alone() -> None:
    viscosity = {
        "option": "-nu {value}",
        "unit": "m^2/s",
        "range": [1e-3, 1e-1],
        "description": "kinematic viscosity",
    }
    config = made(options={"viscosity": viscosity, "cells": "-n {value:.0f}"})
    first, second = config.parameters()
    assert first == Parameter(
        name="viscosity", unit="m^2/s", low=1e-3, high=1e-1, description="kinematic viscosity"
    )
    assert (second.name, second.unit, second.description) == (
        "cells",
        "1",
        "-n {value:.0f} of the program",
    )
    assert config.options["viscosity"].words(0.1) == ["-nu", "0.1"]
    assert config.options["cells"].words(3.0) == ["-n", "3"]


def test_values_are_written_with_all_their_digits() -> None:
    (option,) = made(options={"nu": "-nu {value}"}).options.values()
    assert float(option.words(1 / 3)[1]) == 1 / 3


def test_the_announced_fields_are_components_on_the_grid() -> None:
    spec = made(spacing=[0.1, 0.2]).spec()
    assert (spec.names, spec.units) == (("u", "p"), ("m/s", "Pa"))
    assert (spec.sample_shape, spec.spacing) == ((2, 24, 40), (0.1, 0.2))
    assert made().spec().spacing == (1.0, 1.0)
    assert made().length == 2 * 24 * 40


def test_every_nth_step_is_a_snapshot() -> None:
    assert [made(every=n).max_snapshots for n in (1, 3, 10, 11)] == [11, 4, 2, 1]
    assert made(dt=0.2).end_time == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ordering", "axes"), [("interlaced", "yxc"), ("blocked", "cyx"), ("xyc", "xyc")]
)
def test_orderings(ordering: str, axes: str) -> None:
    assert made(ordering=ordering).axes == axes


def test_it_survives_json() -> None:
    config = made(options={"nu": "-nu {value}"}, spacing=[0.1, 0.2])
    assert ProgramConfig.model_validate_json(config.model_dump_json()) == config


def test_without_settings_it_is_an_example() -> None:
    config = ProgramConfig()
    assert ProgramConfig.model_validate_json(config.model_dump_json()) == config
    assert config.parameters()


@pytest.mark.parametrize("name", ["command", "components", "grid", "steps"])
def test_what_only_the_user_knows_must_be_said(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be said"):
        ProgramConfig.model_validate({k: v for k, v in NEEDED.items() if k != name})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"command": "  "}, "there is no program"),
        ({"command": "./flow 'a"}, "Close the quotation"),
        ({"colour": 1}, "Extra inputs"),
        ({"options": {"nu": "-nu 3"}}, r"needs \{value\} and takes nothing else"),
        ({"options": {"nu": "-nu {value} {other}"}}, r"found: \['other', 'value'\]"),
        ({"options": {"nu": "-nu {value.real}"}}, "takes nothing else"),
        ({"options": {"nu": "-nu {value:d}"}}, "cannot be filled in"),
        ({"options": {"nu": "-nu {value"}}, "cannot be filled in"),
        ({"options": {"nu": "nu {value}"}}, "starts with '-'"),
        ({"options": {"nu": {"option": "-nu {value}", "range": [2, 1]}}}, r"Write \[1.0, 2.0\]"),
        ({"launcher": "srun"}, r"needs \{mpi_ranks\}"),
        ({"mpi_ranks": 0}, "greater than or equal to 1"),
        ({"petsc_options": "ts_type bdf"}, "start with '-'"),
        ({"prefix": "-flow_"}, "for example 'flow_'"),
        ({"folder": "/tmp/a b"}, "without them"),
        ({"folder": "/tmp/a:b"}, "without them"),
        ({"spacing": [0.1]}, "needs 2"),
        ({"ordering": "zyx"}, "'interlaced'"),
        ({"ordering": "yxz"}, "letters of 'yxc'"),
        ({"grid": []}, "at least 1"),
        ({"grid": [2, 2, 2, 2]}, "at most 3"),
        ({"components": {}}, "at least 1"),
        ({"steps": 0}, "takes at least 1"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"dt": 0.0}, "greater than 0"),
        ({"step_timeout": 1e9}, "less than or equal to 86400"),
        ({"stream": "ts_view"}, "ts_monitor_solution"),
    ],
)
def test_a_refused_value_says_what_to_do(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(**changed)
