"""Every config in SOLVERS keeps the same promises; a new kind adds what it alone refuses."""

import math
import re

import pytest
from pydantic import TypeAdapter, ValidationError

from solvers.config import AnySolverConfig, SolverConfig
from solvers.configs.base import SteppedConfig
from solvers.registry import SOLVERS
from tests.refusals import refusal

SOLVER = TypeAdapter[AnySolverConfig](SolverConfig)
# Settings other than the defaults, each of which must survive a trip through JSON.
CHANGED: dict[str, dict[str, object]] = {
    "heat": {"grid": [24, 40], "length": [0.8, 1.3], "petsc_options": "-ksp_type cg"},
    "burgers": {"grid": [40], "petsc_options": "-ts_arkimex_type 4"},
    "kuramoto_sivashinsky": {"grid": [88], "length": 22.0, "petsc_options": "-ksp_type cg"},
    "wave": {"grid": [24, 40], "length": [0.8, 1.3], "walls": "free"},
    "gray_scott": {"grid": [24, 40], "seed": 3, "petsc_options": "-ts_type cn"},
    "cavity": {"mode": "steady", "grid": [24, 40], "length": [0.8, 1.3], "lid": "regularised"},
    "navier_stokes": {"grid": [24, 40], "initial": {"kind": "sines", "waves": 2}},
    "darcy": {"grid": [24, 40], "coefficient": {"kind": "voronoi", "contrast": None}},
    "lorenz": {"steps": 7, "petsc_options": "-ts_type bdf"},
    "shallow_water": {"grid": [24, 40], "initial": "dam", "bottom": "slope"},
    "program": {"command": "./x", "components": {"u": "m"}, "grid": [5], "steps": 3},
    "own": {"path": "./x.py", "class": "X", "speed": 2.0},
}
Refused = list[tuple[dict[str, object], str]]
STEPPED: Refused = [
    ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
    ({"steps": 2.0}, "steps=2.0: Input should be a valid integer"),
    ({"steps": True}, "steps=True: Input should be a valid integer"),
    ({"dt": 0.0}, "dt=0.0: Input should be greater than 0"),
    ({"dt": -0.1}, "dt=-0.1: Input should be greater than 0"),
    ({"dt": math.nan}, "dt=nan: Input should be a finite number"),
    ({"dt": math.inf}, "dt=inf: Input should be a finite number"),
    ({"dt": "soon"}, "dt='soon': Input should be a valid number"),
]
PLANE: Refused = [
    ({"grid": [2, 64]}, "need at least 3 points per axis (y, x). Give at least [3, 64]"),
    ({"grid": [64, -1]}, "Give at least [64, 3]"),
    ({"grid": [64, 64.0]}, "grid.1=64.0: Input should be a valid integer"),
    ({"length": [1.0, 0.0]}, "length.1=0.0: Input should be greater than 0"),
    ({"length": [math.inf, 1.0]}, "length.0=inf: Input should be a finite number"),
]
LINE: Refused = [
    ({"grid": [64, 64]}, "grid=[64, 64]: "),
    ({"grid": [64.0]}, "grid.0=64.0: Input should be a valid integer"),
    ({"grid": [True]}, "grid.0=True: Input should be a valid integer"),
    ({"grid": 64}, "grid=64: Input should be a valid tuple"),
    ({"length": -16.0}, "length=-16.0: Input should be greater than 0"),
    ({"length": math.inf}, "length=inf: Input should be a finite number"),
    ({"terms": 0}, "terms=0: Input should be greater than or equal to 1"),
    ({"terms": 1001}, "terms=1001: Input should be less than or equal to 1000"),
    ({"waves": 0}, "waves=0: Input should be greater than or equal to 1"),
]
SPECIAL: dict[str, Refused] = {
    "heat": [
        *PLANE,
        ({"grid": [64] * 4}, "grid=[64, 64, 64, 64]: Value error, 4 axes: need 1 to 3. Give the"),
        ({"grid": []}, "grid=[]: Value error, 0 axes: need 1 to 3"),
        ({"grid": [2]}, "need at least 3 points per axis (x). Give at least [3]"),
        ({"grid": [2, 5, 1]}, "need at least 3 points per axis (z, y, x). Give at least [3, 5, 3]"),
        (
            {"grid": [9], "length": [1.0, 2.0]},
            "length=[1.0, 2.0]: need one number per axis of grid=[9]. Give 1, or leave length out",
        ),
        ({"length": [1.0]}, "length=[1.0]: need one number per axis of grid=[64, 64]. Give 2, or"),
        ({"source": "square"}, "source='square': Input should be 'none' or 'gaussian'"),
        ({"source_field": True}, "source_field=true, but there is no source to show. Write source"),
        ({"source_field": 1}, "source_field=1: Input should be a valid boolean"),
        ({"diffusivity": 0}, "diffusivity=0: Input should be greater than 0"),
    ],
    "burgers": [
        *LINE,
        ({"grid": [7]}, "grid=[7]: Value error, need at least 8 cells. Give at least [8]"),
        ({"frequency": -0.1}, "frequency=-0.1: Input should be greater than or equal to 0"),
    ],
    "kuramoto_sivashinsky": [
        *LINE,
        ({"grid": [7], "length": 3.0}, "need at least 8 points. Give at least [8]"),
        ({"grid": [32], "length": 64.5}, "the spacing is 2.02, and above 0.7 the chaos is not"),
        ({"grid": [32], "length": 64.5}, "Give at least 93 points, or a shorter line"),
    ],
    "wave": [
        *PLANE,
        ({"speed": -1.0}, "speed=-1.0: Input should be greater than 0"),
        ({"walls": "open"}, "walls='open': Input should be 'fixed' or 'free'"),
        ({"dt": 0.012}, "dt=0.012 s is unstable: need dt <= 1.06 / (speed sqrt(1 / hx^2 + 1 / hy"),
        ({"speed": 1.5}, "= 0.00781 s (hx=0.0156 m, hy=0.0156 m, speed=1.5 m/s). Reduce dt, or"),
    ],
    "gray_scott": [
        *PLANE,
        ({"diffusion_u": 0}, "diffusion_u=0: Input should be greater than 0"),
        ({"diffusion_v": -1.0}, "diffusion_v=-1.0: Input should be greater than 0"),
        ({"spots": 0}, "spots=0: Input should be greater than or equal to 1"),
        ({"spots": 1001}, "spots=1001: Input should be less than or equal to 1000"),
        ({"spot_width": 0.0}, "spot_width=0.0: Input should be greater than 0"),
        ({"seed": -1}, "seed=-1: Input should be greater than or equal to 0"),
    ],
    "cavity": [
        *PLANE,
        ({"grid": [64, 64, 64]}, "grid=[64, 64, 64]: "),
        ({"mode": "laminar"}, "mode='laminar': Input should be 'unsteady' or 'steady'"),
        ({"lid": "smooth"}, "lid='smooth': Input should be 'uniform' or 'regularised'"),
    ],
    "navier_stokes": [
        *PLANE,
        ({"initial": {"kind": "voronoi"}}, "does not match any of the expected tags"),
        ({"initial": {"kind": "sines", "wave": 2}}, "initial.sines.wave=2: Extra inputs are not"),
        ({"initial": {"kind": "gaussian", "mean": 1.0}}, "mean=1: the vorticity of a periodic"),
    ],
    "darcy": [
        *PLANE,
        ({"coefficient": {"kind": "gaussian"}}, "does not match any of the expected tags"),
        ({"coefficient": {"kind": "voronoi", "low": 0}}, "Input should be greater than 0"),
        ({"steps": 3}, "steps=3: Extra inputs are not permitted"),
    ],
    "lorenz": [({"grid": [1]}, "grid=[1]: Extra inputs are not permitted")],
    "shallow_water": [
        *PLANE,
        ({"gravity": -1.0}, "gravity=-1.0: Input should be greater than 0"),
        ({"thin": 0.0}, "thin=0.0: Input should be greater than 0"),
        ({"max_substeps": 0}, "max_substeps=0: Input should be greater than or equal to 1"),
        ({"initial": "wave"}, "initial='wave': Input should be 'dam' or 'hump'"),
        ({"bottom": "hole"}, "bottom='hole': Input should be 'flat', 'bump' or 'slope'"),
        ({"boundary": "open"}, "boundary='open': Input should be 'walls' or 'periodic'"),
        ({"petsc_options": "-ksp_type cg"}, "Extra inputs are not permitted"),
    ],
}
BUILT_IN = [kind for kind in SOLVERS if kind not in ("program", "own")]


def refused_by(kind: str) -> Refused:
    config = SOLVERS[kind]
    rows: Refused = [
        ({"gird": [64, 64]}, "gird=[64, 64]: Extra inputs are not permitted"),
        ({"kind": "haet"}, f"kind='haet': Input should be '{kind}'"),
        *(STEPPED if issubclass(config, SteppedConfig) else []),
        *SPECIAL[kind],
    ]
    if "petsc_options" in config.model_fields:
        rows.append(({"petsc_options": "ksp_type cg"}, "PETSc options start with '-'"))
    return rows


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [(kind, *row) for kind in BUILT_IN for row in refused_by(kind)],
)
def test_what_is_refused(kind: str, settings: dict[str, object], message: str) -> None:
    assert message in refusal(SOLVERS[kind], settings)


@pytest.mark.parametrize("kind", list(SOLVERS))
def test_json_round_trip(kind: str) -> None:
    for config in (SOLVERS[kind](), SOLVER.validate_python({"kind": kind} | CHANGED[kind])):
        assert type(config) is SOLVERS[kind]
        assert SOLVER.validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("kind", BUILT_IN)
def test_configs_are_frozen_and_hashable(kind: str) -> None:
    config = SOLVERS[kind]()
    with pytest.raises(ValidationError, match="frozen"):
        config.petsc_options = "-x"  # type: ignore[union-attr]
    assert hash(config) == hash(SOLVERS[kind]())


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_number_says_its_unit(kind: str) -> None:
    for name, field in SOLVERS[kind].model_fields.items():
        if re.search(r"\b(int|float)\b", str(field.annotation)):
            assert (field.description or "").endswith("]"), name


@pytest.mark.parametrize("kind", BUILT_IN)
def test_what_is_announced_belongs_together(kind: str) -> None:
    config = SOLVERS[kind]()
    parameters = config.parameters()
    assert len({p.name for p in parameters}) == len({p.description for p in parameters})
    assert all(p.low < p.high and p.description and p.unit for p in parameters)
    if isinstance(config, SteppedConfig) and kind != "cavity":
        changed = SOLVERS[kind].model_validate({"steps": 7, "dt": 0.0078125})
        assert (changed.max_snapshots, changed.end_time) == (8, 7 / 128)
