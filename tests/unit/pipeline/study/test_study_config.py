import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.distributions import KEYS
from pipeline.study.known_keys import known_keys
from pipeline.study.load import load, parse
from pipeline.study.sections import CsvDesign, RecordConfig, SourceConfig

Tree = dict[str, Any]
EXAMPLES = sorted((Path(__file__).parents[4] / "examples").glob("*.yaml"))
TEMPERATURE = {"uniform": [100, 500]}


def tree() -> Tree:
    return {
        "name": "plate",
        "seed": 7,
        "solver": {"kind": "heat", "grid": [24, 40], "steps": 30, "dt": 0.01},
        "parameters": {
            name: dict(TEMPERATURE) for name in ("initial", "west", "east", "south", "north")
        },
        "ensemble": {"members": 13, "validation": 3, "concurrent": 2, "design": "halton"},
        "reservoir": {"capacity": 120, "watermark": 40, "max_reuse": 5},
        "trainer": {"ranks": 3, "batch": 6},
    }


def changed(path: str, value: object) -> Tree:
    study = tree()
    *sections, key = path.split(".")
    node = study
    for section in sections:
        node = node.setdefault(section, {})
    node[key] = value
    return study


def problems(study: Tree, folder: Path | str = ".") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(study, folder=folder)
    return caught.value.problems


def test_a_good_study_has_no_warnings() -> None:
    study = parse(tree())
    assert study.warnings() == []
    assert study.parameter_names == ("initial", "west", "east", "south", "north")


def test_a_deterministic_study_draws_at_fixed_numbers_of_inserts() -> None:
    study = changed("reservoir.max_reuse", None) | {"deterministic": True}
    (line,) = problems(study)
    for word in ("reservoir.max_reuse=null", "deterministic=true", "Set it", "policy=firo"):
        assert word in line
    study["reservoir"]["policy"] = "firo"
    assert parse(study).deterministic
    (warning,) = parse(changed("deterministic", True)).warnings()
    assert "trainer.device" in warning
    assert parse(changed("trainer.device", "cpu") | {"deterministic": True}).warnings() == []


def test_the_points_of_a_csv_design_cannot_be_redrawn(tmp_path: Path) -> None:
    study = changed("ensemble.design", {"csv": "points.csv"})
    study["ensemble"]["on_failure"] = "redraw"
    names = ",".join(study["parameters"])
    (tmp_path / "points.csv").write_text("\n".join([names, *["200,200,200,200,200"] * 16]))
    (line,) = problems(study, tmp_path)
    for word in ('ensemble.on_failure="redraw"', "no further points", "Set it to skip"):
        assert word in line


# Path, value, limit and remedy are in every message: (change, words that must all be there).
CROSS_CHECKS: list[tuple[str, Any, list[str]]] = [
    ("reservoir.watermark", 200,
     ["reservoir.capacity=120", "watermark=200", "never start", "Lower watermark"]),
    ("reservoir.capacity", 42,
     ["reservoir.capacity=42", "watermark=40", "concurrent=2", "ranks-1=2", "Raise capacity"]),
    ("ensemble.concurrent", 100,
     ["reservoir.capacity=120", "concurrent=100", "Raise capacity to at least 142"]),
    ("reservoir.max_reuse", 0.5, ["reservoir.max_reuse=0.5", "<= 1", "deadlock", "Raise"]),
    ("reservoir.max_surplus", 30,
     ["reservoir.max_surplus=30", "max_reuse=5 * (watermark=40", "Raise max_surplus"]),
    ("reservoir.policy", "fifo", ["reservoir.max_reuse=5", "policy=fifo", "Leave max_reuse out"]),
    ("trainer.ranks", 0, ["trainer.ranks=0", "at least 1", "Raise"]),
    ("parameters.sud", TEMPERATURE,
     ["parameters.sud={", "no such parameter", "It has: initial, west", "Rename or remove"]),
    ("parameters.west", {"uniform": [500, 100]},
     ["parameters.west.uniform=[500, 100]", "reversed", "low=500", "Write uniform: [100, 500]"]),
    ("solver.grid", [2, 64], ["solver.grid=[2, 64]", "at least 3 points", "ive at least [3, 64]"]),
    ("ensemble.design", "grid",
     ["ensemble.members=13", "5 ranges", "1 or 32 members", "Set ensemble.members"]),
    ("stream.credit_bytes", 1000,
     ["stream.credit_bytes=1000", "524288", "never be sent", "Raise credit_bytes to at least"]),
    ("trainer.task", {"kind": "direct", "window": 31},
     ["trainer.task.window=31", "only 30 snapshots", "Lower the window to at most 30"]),
    ("name", "no spaces",
     ['name="no spaces"', "must match", "Use only letters"]),
    ("name", "x" * 65, ['name="xxx', "limit is 64 characters", "another length"]),
    ("seed", -1, ["seed=-1", "at least 0", "Raise"]),
    ("ensemble.max_failed_fraction", 1.5,
     ["ensemble.max_failed_fraction=1.5", "at most 1", "Lower"]),
    ("ensemble.mpi_ranks", 1025, ["ensemble.mpi_ranks=1025", "at most 1024", "Lower"]),
    ("ensemble.mpi_ranks", 41,
     ["ensemble.mpi_ranks=41", "longest axis of solver.grid has 40", "Lower it to at most 40"]),
    ("ensemble.mpi_ranks", 40,
     ["reservoir.capacity=120", "concurrent=2 * (mpi_ranks=40 + 3) + ranks-1=2", "at least 128"]),
    ("reservoir.watermark", 0, ["reservoir.watermark=0", "at least 1", "Raise"]),
    ("ensemble.member_timeout", 0, ["ensemble.member_timeout=0", "above 0", "Raise"]),
    ("stream.fields", ["temprature"],
     ['stream.fields="temprature"', "no such field", "Did you mean 'temperature'", "Rename"]),
    ("stream.fields", [], ["stream.fields=[]", "at least 1"]),
    ("stream.input_fields", ["u"],
     ['stream.input_fields="u"', "It yields temperature", "Rename or remove"]),
    ("stream.coarsen", 65, ["stream.coarsen=65", "at most 40", "Lower it"]),
    ("stream.coarsen", [32], ["stream.coarsen=[32]", "one number of points per axis", "[24, 40]"]),
    ("stream.coarsen", [25, 40], ["stream.coarsen=[25, 40]", "none above the solver's [24, 40]"]),
    ("stream.every", 0, ["stream.every=0", "at least 1", "Raise"]),
    ("stream.every", 31, ["trainer.task.window=1", "only 0 snapshots", "stream.every=31"]),
    ("trainer.task", {"kind": "operator"},
     ["trainer.task.kind=", "operator", "nothing is given", "stream.input_fields: [temperature]"]),
    ("trainer.task", {"kind": "bundle", "trajectory": 5},
     ["trainer.task", "trajectory=5", "takes 9", "raise it"]),
    ("trainer.task", {"kind": "next", "history": 20, "ahead": 11},
     ["trainer.task.window=31", "only 30 snapshots"]),
    ("trainer.task", {"kind": "derivative", "history": 2}, ["trainer.task.history=2"]),
    ("trainer.field_weights", {"temprature": 2.0},
     ["trainer.field_weights.temprature=2.0", "Did you mean 'temperature'"]),
    ("trainer.field_weights", {"temperature": 0.0}, ["temperature=0.0", "above 0"]),
    ("trainer.parameter_scales", {"wst": "log"},
     ['trainer.parameter_scales.wst="log"', "Did you mean 'west'"]),
    ("trainer.parameter_scales", {"west": "root"}, ["west", "linear", "log"]),
    ("stream.dtype", "float64", ['stream.dtype="float64"', "float32"]),
    ("stream.batch_bytes", 10**8, ["stream.batch_bytes=100000000", "at most 8", "Lower"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "words"), CROSS_CHECKS, ids=[f"{p}={v}"[:50] for p, v, _ in CROSS_CHECKS]
)
def test_a_study_that_cannot_run_is_refused(path: str, value: object, words: list[str]) -> None:
    found = problems(changed(path, value))
    assert any(all(word in line for word in words) for line in found), found


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ({"kind": "lorenz"}, "solver 'lorenz' runs in one process"),
        (
            {
                "kind": "program", "command": "true", "options": {"nu": "-nu {value}"},
                "components": {"u": "1"}, "grid": [24, 32], "steps": 3, "dt": 0.1,
            },
            "starts its own ranks. Set it to 1, and solver.mpi_ranks to 3",
        ),
    ],
)  # fmt: skip
def test_a_solver_of_one_process_is_refused_on_several_mpi_ranks(
    solver: dict[str, Any], words: str
) -> None:
    study = tree() | {"solver": solver}
    study["ensemble"]["mpi_ranks"] = 3
    (line,) = [line for line in problems(study) if line.startswith("ensemble.mpi_ranks=3")]
    assert words in line


def test_a_missing_parameter_is_named_with_its_unit_and_range() -> None:
    study = tree()
    del study["parameters"]["south"]
    (line,) = problems(study)
    assert line == (
        "parameters.south=nothing: solver 'heat' needs this parameter (temperature of the wall at "
        "y = 0, K, meant for 100 to 500). Add 'south: {uniform: [100, 500]}'"
    )


def test_validation_needs_a_point_that_is_not_trained_on() -> None:
    study = tree()
    for name in study["parameters"]:
        study["parameters"][name] = {"values": [100, 200]}
    (line,) = problems(study)
    assert line == (
        "ensemble.validation=3: all parameters together have 32 different values, which training "
        "takes, so validation must be at most 0. Give a parameter a range, or set "
        "ensemble.validation to 0"
    )


def test_all_errors_are_listed_at_once(tmp_path: Path) -> None:
    study = tree()
    study["sead"] = 1
    study["solver"] |= {"grid": [2, 9], "dt": "fast"}
    study["parameters"]["west"] = {"uniform": [5, 1]}
    study["parameters"]["sud"] = TEMPERATURE
    del study["parameters"]["north"]
    study["ensemble"] |= {"members": 0, "concurent": 4}
    study["reservoir"]["watermark"] = 5000
    study["trainer"] |= {"ranks": 0, "optimizer": {"kind": "adan"}}
    found = problems(study, tmp_path)
    starts = [
        "sead=1", "solver.grid=[2, 9]", 'solver.dt="fast"', "parameters.west.uniform=[5, 1]",
        "parameters.sud=", "parameters.north=nothing", "ensemble.members=0",
        "ensemble.concurent=4", "reservoir.capacity=120 < watermark=5000", "trainer.ranks=0",
        'trainer.optimizer.kind="adan"',
    ]  # fmt: skip
    for start in starts:
        assert sum(line.startswith(start) for line in found) == 1, (start, found)
    assert len(found) == len(starts)


def one_of_everything() -> Tree:
    """A rank that gets one sample, of one member of one snapshot."""
    study = tree()
    study["solver"]["steps"] = 1
    study["ensemble"] = {"members": 1, "max_failed_fraction": 1.0, "concurrent": 1}
    study["trainer"] = {"ranks": 1, "batch": 2}
    study["reservoir"] = {"capacity": 40, "watermark": 2, "policy": "fifo"}
    return study


def test_one_of_a_thing_is_one_in_every_line() -> None:
    study = one_of_everything()
    study["trainer"]["task"] = {"kind": "direct", "window": 2}
    (line,) = [line for line in problems(study) if line.startswith("trainer.task.window=2")]
    assert "a member yields only 1 snapshot (" in line

    study = one_of_everything()
    (line,) = problems(study)
    assert line.startswith("trainer.batch=2: only 1 sample will reach a rank, and")
    study["trainer"]["batch"] = 1
    assert any("only 1 sample will reach" in line for line in parse(study).warnings())
    study["trainer"]["ranks"] = 2
    study["ensemble"] |= {"members": 3, "max_failed_fraction": 0.4}
    study["reservoir"] |= {"watermark": 1, "capacity": 3}
    assert any("with up to 1 failed member (" in line for line in parse(study).warnings())

    study = one_of_everything()
    study["ensemble"] = {"members": 3, "validation": 1, "design": "grid"}
    study["trainer"]["batch"] = 1
    study["parameters"] = {name: {"constant": 300} for name in study["parameters"]}
    grid, held_out = problems(study)
    assert "has 1 combination of listed values and 0 ranges" in grid
    assert "so 1 member. Set ensemble.members to 1, or" in grid
    assert "together have 1 different value, " in held_out


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("stream", {"every": 0}),
        ("trainer", {"ranks": 3, "batch": 6, "device": "abacus"}),
        ("ensemble", {"members": 0}),
        ("solver", {"kind": "heat", "grid": [24, 40], "steps": -1}),
    ],
)
def test_a_section_that_is_wrong_hides_nothing_of_the_others(section: str, value: object) -> None:
    study = changed("reservoir.watermark", 200) | {section: value}
    study["parameters"]["sud"] = TEMPERATURE
    found = problems(study)
    for start in (f"{section}.", "parameters.sud=", "reservoir.capacity=120 < watermark=200"):
        assert sum(line.startswith(start) for line in found) == 1, (start, found)


def test_a_csv_error_is_listed_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("initial,west,east,south,nord\n" + "200,200,200,200,200\n" * 16)
    study = changed("ensemble.design", {"csv": "p.csv"})
    assert len(problems(study, tmp_path)) == 2
    study["reservoir"]["watermark"] = 5000
    found = problems(study, tmp_path)
    path = tmp_path / "p.csv"
    assert found[0].startswith("reservoir.capacity=120 < watermark=5000")
    assert found[1].startswith(f"ensemble.design.csv={path}: column 'nord' is no parameter")
    assert found[2].startswith(f"ensemble.design.csv={path}: column 'north' is missing")
    study["trainer"]["rank"] = 2
    assert len(problems(study, tmp_path)) == 4


def test_csv_paths_are_relative_to_the_study_and_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "200,200,200,200,200\n" * 16
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "p.csv").write_text("initial,west,east,south,north\n" + rows)
    (tmp_path / "in" / "s.yaml").write_text(
        json.dumps(changed("ensemble.design", {"csv": "p.csv"}))
    )
    monkeypatch.chdir(tmp_path)
    study = load("in/s.yaml")
    assert study.ensemble.design == CsvDesign(csv=tmp_path / "in" / "p.csv")


def test_parameters_may_be_left_out_with_a_csv(tmp_path: Path) -> None:
    rows = "200,200,200,200,200\n" * 16
    (tmp_path / "p.csv").write_text("initial,west,east,south,north\n" + rows)
    study = changed("ensemble.design", {"csv": "p.csv"})
    del study["parameters"]
    assert parse(study, folder=tmp_path).parameters == {}


BEYOND = """parameters.west={"uniform": [50.0, 500.0]}: goes beyond what solver 'heat' is meant \
for, 100 to 500 K"""
LATE = """reservoir.watermark=200: only 130 samples will reach a rank, so training starts when all \
simulations are over"""
ROOMY = """reservoir.capacity=130: there is room for all samples of a rank (130), so solvers never \
wait for the trainer, and each sample may be drawn only once: how long is trained depends on how \
fast this machine is. Set max_reuse or min_reuse"""
BLIND = "ensemble.validation=0: nothing will say how good the surrogate is"
WARNINGS: list[tuple[str, object, str]] = [
    ("parameters.west", {"uniform": [50, 500]}, BEYOND),
    ("reservoir", {"capacity": 400, "watermark": 200, "policy": "fifo"}, LATE),
    ("reservoir", {"capacity": 130, "watermark": 40}, ROOMY),
    ("ensemble.validation", 0, BLIND),
]


@pytest.mark.parametrize(("path", "value", "line"), WARNINGS)
def test_what_is_probably_not_meant_is_a_warning(path: str, value: object, line: str) -> None:
    assert parse(changed(path, value)).warnings() == [line]


def test_failures_that_could_starve_a_rank_are_a_warning() -> None:
    study = changed("ensemble.members", 400)
    (line,) = parse(study).warnings()
    # 0.5 * (400 + 3) failures, 2 concurrent members, 3 ranks; watermark 40, batch 6.
    assert "with up to 201 failed members" in line
    assert "205 samples more" in line
    assert f"Raise capacity to {40 + 6 + 205}" in line


def test_a_network_sees_the_logarithm_of_a_log_uniform_parameter() -> None:
    study = tree()
    study["parameters"] |= {"west": {"loguniform": [1, 1000]}, "east": {"loguniform": [1, 1000]}}
    study["trainer"]["parameter_scales"] = {"east": "linear", "north": "log"}
    names = ("initial", "west", "east", "south", "north")
    assert [name for name in names if parse(study).sees_logarithm(name)] == ["west", "north"]


def test_a_parameter_that_is_not_above_zero_has_no_logarithm(tmp_path: Path) -> None:
    study = changed("trainer.parameter_scales", {"west": "log"})
    study["parameters"]["west"] = {"values": [0, 10, 100]}
    (line,) = problems(study)
    for word in ('trainer.parameter_scales.west="log"', "west=0 has no logarithm", "above 0"):
        assert word in line
    study["ensemble"]["design"] = {"csv": "points.csv"}
    (tmp_path / "points.csv").write_text(
        "\n".join([",".join(study.pop("parameters")), *["200,200,200,200,200"] * 16])
    )
    (line,) = problems(study, tmp_path)
    assert "Set parameters.west: {loguniform: [low, high]}, too" in line


@pytest.mark.parametrize(
    ("given", "scale", "seen"),
    [
        ({"values": [0.0, 1e-9, 1.0]}, None, (2, 3)),
        ({"loguniform": [1e-12, 1.0]}, "linear", (546, 1025)),
        ({"uniform": [1e16, 1e16 + 4]}, None, (3, 1025)),
    ],
)
def test_values_that_are_one_number_to_the_network_are_a_warning(
    given: Tree, scale: str | None, seen: tuple[int, int]
) -> None:
    study = changed("parameters.west", given)
    study["trainer"]["parameter_scales"] = {} if scale is None else {"west": scale}
    found = [line for line in parse(study).warnings() if "different numbers" in line]
    (line,) = found
    assert line.startswith("parameters.west=")
    assert f"the network sees {seen[0]} different numbers for {seen[1]} values" in line


@pytest.mark.parametrize(
    "given", [{"uniform": [1.7e9, 1_700_000_060]}, {"loguniform": [1e-300, 1e300]}, {"constant": 7}]
)
def test_a_range_that_float64_resolves_is_no_warning(given: Tree) -> None:
    lines = parse(changed("parameters.west", given)).warnings()
    assert not any("different numbers" in line for line in lines)


def test_members_that_are_all_equal_are_a_warning() -> None:
    study = changed("ensemble.validation", 0)
    for name in study["parameters"]:
        study["parameters"][name] = {"constant": 300}
    assert (
        "ensemble.members=13: all parameters are constant, all members equal"
        in parse(study).warnings()
    )


def test_what_is_resolved_reads_back_from_its_json(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "initial,west,east,south,north\n" + "2e2,300,300,300,300\n" * 16
    )
    for design in ("sobol", {"csv": "p.csv"}):
        study = parse(changed("ensemble.design", design), folder=tmp_path)
        text = json.dumps(study.as_json())
        assert StudyConfig.model_validate_json(text) == study
        assert StudyConfig.model_validate(json.loads(text)) == study


def test_a_resolved_study_needs_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("initial,west,east,south,north\n" + "200,200,200,200,200\n" * 16)
    resolved = parse(changed("ensemble.design", {"csv": "p.csv"}), folder=tmp_path).as_json()
    path.unlink()
    assert StudyConfig.model_validate(resolved).as_json() == resolved


def test_a_study_made_in_python_is_checked_too() -> None:
    resolved = parse(tree()).as_json()
    resolved["reservoir"]["watermark"] = 119
    with pytest.raises(ConfigError, match=r"reservoir\.capacity=120 < watermark=119"):
        StudyConfig.model_validate(resolved)


def test_a_study_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(tree()).reservoir.capacity = 3


def test_sizes_follow_from_the_study() -> None:
    study = parse(tree())
    assert study.samples_per_member == 30
    assert study.expected_samples == 390
    assert study.sample_bytes == 24 * 40 * 4
    # 120 slots of 3 ranks and 3 x 30 validation samples; 6 inputs, member and step beside each.
    assert study.slots_bytes == (3 * 120 + 90) * (24 * 40 * 4 + 6 * 8 + 24)
    assert study.max_train_steps == 109  # 390 * 5 / (3 * 6), rounded up
    layout = study.sample_layout()
    assert (layout.window, layout.sample_shape, layout.num_parameters) == (1, (1, 24, 40), 5)
    assert layout.nbytes == study.sample_bytes


def test_the_initial_state_and_the_window_change_the_number_of_samples() -> None:
    assert parse(changed("stream.initial_state", True)).samples_per_member == 31
    windows = changed("trainer.task", {"kind": "direct", "window": 4})
    assert parse(windows).samples_per_member == 27
    assert parse(windows).sample_layout().nbytes == 4 * 24 * 40 * 4


def test_train_steps_follow_from_the_trainer_s_settings() -> None:
    # Of 650 draws of a rank: 390 samples * 5 / 3 ranks.
    assert parse(changed("trainer.accumulate", 4)).max_train_steps == 28
    study = changed("trainer.after_production", {"kind": "steps", "steps": 500})
    assert parse(study).max_train_steps == 109 + 500
    assert parse(study).expected_train_steps == 109 + 500
    for kind, draws in (("drain", 650), ("stop", 650 - 400)):
        study["reservoir"]["max_surplus"] = 400
        study["trainer"]["after_production"] = {"kind": kind}
        assert parse(study).expected_train_steps == -(-draws // 6), kind


def test_float16_is_refused_without_a_gpu() -> None:
    study = tree()
    study["trainer"] |= {"precision": "float16", "device": "cpu"}
    (line,) = problems(study)
    assert line.startswith('trainer.precision="float16": trainer.device=cpu cannot train in it')
    study["trainer"]["precision"] = "bfloat16"
    parse(study)


def test_what_goes_by_the_validation_error_needs_one() -> None:
    study = changed("ensemble.validation", 0)
    study["trainer"] |= {"early_stop": {"patience": 3}, "schedule": {"kind": "plateau"}}
    first, second = problems(study)
    assert first.startswith("trainer.early_stop: goes by the validation error")
    assert second.startswith("trainer.schedule.kind=plateau: goes by the validation error")
    study["ensemble"]["validation"] = 1
    parse(study)


def test_a_study_that_would_stop_before_it_starts_is_refused() -> None:
    study = changed("trainer.after_production", {"kind": "stop"})
    parse(study)
    study["reservoir"] |= {"capacity": 400, "watermark": 130}  # of 130 samples at each rank
    (line,) = problems(study)
    assert line.startswith("reservoir.watermark=130: only 130 samples will reach a rank")
    study["trainer"]["after_production"] = {"kind": "drain"}
    parse(study)


def test_a_batch_larger_than_the_stream_of_a_rank_is_refused() -> None:
    study = changed("trainer.batch", 131)  # of 130 samples at each rank
    study["reservoir"] |= {"capacity": 400}
    (line,) = problems(study)
    assert line.startswith("trainer.batch=131: only 130 samples will reach a rank")
    study["trainer"]["batch"] = 130
    parse(study)


def test_a_least_reuse_is_expected_and_contradicts_the_end_with_production() -> None:
    study = changed("reservoir.max_reuse", None)
    assert parse(study).expected_train_steps is None
    study["reservoir"]["min_reuse"] = 20.0
    assert parse(study).expected_train_steps == -(-130 * 20 // 6)
    study["trainer"]["after_production"] = {"kind": "stop"}
    (line,) = problems(study)
    assert line.startswith("reservoir.min_reuse=20.0: is reached by drawing on after the end of")


def test_a_wrong_logger_is_named_with_its_place() -> None:
    loggers = [{"kind": "tensorboard"}, {"kind": "wandb", "projekt": "dam"}]
    (line,) = problems(changed("trainer.loggers", loggers))
    assert line.startswith('trainer.loggers[1].projekt="dam": unknown key.')
    assert "project" in line
    (line,) = problems(changed("trainer.loggers", [{"kind": "comet"}]))
    assert line.startswith('trainer.loggers[0].kind="comet"')
    assert "tensorboard, wandb, mlflow" in line


def test_no_limit_on_reuse_is_no_limit_on_train_steps() -> None:
    assert parse(changed("reservoir.max_reuse", None)).max_train_steps is None


@pytest.mark.parametrize(
    ("validation", "ranks", "steps"), [(3, 3, 30), (5, 4, 7), (0, 2, 9), (2, 3, 2)]
)
def test_validation_capacity_is_what_arrives(validation: int, ranks: int, steps: int) -> None:
    study = changed("ensemble.validation", validation)
    study["trainer"]["ranks"] = ranks
    study["solver"]["steps"] = steps
    arriving = [member % ranks for member in range(validation) for _ in range(steps)]
    config = parse(study)
    counts = [config.validation_capacity(rank) for rank in range(ranks)]
    assert counts == [arriving.count(rank) for rank in range(ranks)]


@pytest.mark.parametrize(
    ("grid", "window", "batch_bytes"),
    [((64, 64), 1, 524_288), ((3, 3), 1, 8_388_608), ((3, 5), 9, 1), ((24, 40), 4, 100_000)],
)
def test_the_credit_that_is_asked_for_holds_a_message(
    grid: tuple[int, int], window: int, batch_bytes: int
) -> None:
    from pipeline.slots.layout import Box
    from pipeline.stream.wire import MAX_COUNT, message_bytes

    study = changed("solver.grid", grid)
    study["trainer"]["task"] = {"kind": "direct", "window": window}
    study["stream"] = {"batch_bytes": batch_bytes}
    config = parse(study)
    together = min(max(1, batch_bytes // config.sample_bytes), MAX_COUNT)
    actual = message_bytes(config.sample_layout(), Box.whole(grid), together)
    bound = config.message_bytes
    assert bound == actual
    study["stream"]["credit_bytes"] = bound
    assert parse(study).stream.credit_bytes == bound
    study["stream"]["credit_bytes"] = bound - 1
    assert problems(study)[0].startswith(f"stream.credit_bytes={bound - 1}: a message has up to")


# --- reading files --------------------------------------------------------------------------------


def file_problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["holds nothing", "headrace init"]),
        (b"- a\n- b\n", ["holds a list", "headrace init"]),
        (b"just text", ["holds a str"]),
        (b"name: a\nname: b\n", ["line 2", "'name'", "twice"]),
        (b"name: \xff\n", ["byte 6", "UTF-8"]),
        (b"name: [1\n", ["line 2", "Correct"]),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else None,
)
def test_a_file_that_is_no_study_is_refused(
    content: bytes, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    (line,) = file_problems(path)
    assert line.startswith(f"{path}: ")
    for word in words:
        assert word in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in file_problems(tmp_path / "s.yaml")[0]
    assert "cannot be read (Is a directory" in file_problems(tmp_path)[0]


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(tree()))
    return path


def test_overrides_are_applied_in_order(study_file: Path) -> None:
    study = load(
        study_file,
        ["trainer.batch=5", "stream.linger_ms=2.5", "solver.grid.1=16", "trainer.batch=4",
         "trainer.optimizer={kind: adamw, lr: 1e-4}", "parameters.west={constant: 300}"],
    )  # fmt: skip
    assert study.trainer.batch == 4
    assert study.stream.linger_ms == 2.5
    assert study.solver.spec().shape == (24, 16)
    assert study.trainer.optimizer.lr == 1e-4
    assert study.parameters["west"].levels == 1


def test_an_override_of_an_unknown_key_is_an_unknown_key(study_file: Path) -> None:
    (line,) = file_problems(study_file, "trainer.bach=4")
    assert line.startswith("trainer.bach=4: unknown key. Did you mean 'batch'?")


def test_an_override_that_is_none_is_refused_with_all_others(study_file: Path) -> None:
    found = file_problems(study_file, "trainer", "seed.x=1")
    assert found[0].startswith("--set trainer: not of the form")
    assert found[1].startswith("--set seed.x=1: seed is 7")


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\n")
    starts = [line.split(":")[0] for line in file_problems(path)]
    assert starts == [f"{name}=nothing" for name in ("solver", "ensemble", "reservoir", "trainer")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads_without_a_warning(path: Path) -> None:
    assert load(path).warnings() == []


@pytest.mark.parametrize(
    ("model", "stream", "words"),
    [
        ({"kind": "fno", "n_modes": [4, 41]}, {}, ["n_modes=[4, 41]", "[24, 40]", "Lower n_modes"]),
        ({"kind": "unet", "depth": 5}, {}, ["depth=5", "[24, 40]", "at most 4"]),
        ({"kind": "uno", "depth": 4}, {"coarsen": [6, 8]}, ["depth=4", "[6, 8]", "at most 2"]),
        ({"path": "net.py", "class": "Net"}, {}, ["path=", "/net.py: cannot be read"]),
    ],
)
def test_what_a_network_cannot_do_on_the_grid_is_refused(
    model: Tree, stream: Tree, words: list[str], tmp_path: Path
) -> None:
    study = changed("trainer.model", model)
    study["stream"] = stream
    (line,) = problems(study, tmp_path)
    assert line.startswith("trainer.model.")
    for word in words:
        assert word in line


def test_the_path_of_ones_own_network_is_relative_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("class Net: ...")
    study = changed("trainer.model", {"path": "net.py", "class": "Net", "widths": [3, 4]})
    model = parse(study, folder=tmp_path).as_json()["trainer"]["model"]
    path = str(tmp_path / "net.py")
    assert model == {"kind": "own", "path": path, "class": "Net", "widths": [3, 4]}


def test_the_keys_of_ones_own_network_are_named_as_they_are_written(tmp_path: Path) -> None:
    (line,) = problems(changed("trainer.model", {"path": "net.py"}), tmp_path)
    assert line.startswith("trainer.model.class=nothing: required, but missing. Add 'class: ...'")
    assert "class in that file" in line


def test_the_demo_is_the_one_that_is_promised(project: Path) -> None:
    study = load(project / "examples" / "heat.yaml")
    assert (study.ensemble.members, study.ensemble.validation) == (250, 10)
    assert study.solver.spec().shape == (64, 64)
    assert study.expected_samples == 25_000
    assert (study.trainer.ranks, study.ensemble.concurrent) == (2, 2)


# --- the whole tree of keys -----------------------------------------------------------------------


def every_key(place: tuple[str, ...], study: Tree) -> list[tuple[str, ...]]:
    """All keys that may stand in a study, those of the alternatives it has chosen."""
    found = []
    for name in known_keys(place, study, StudyConfig):
        inner = (*place, str(name))
        found += [inner, *every_key(inner, study)]
    return found


def test_an_unknown_key_is_refused_in_every_section() -> None:
    full = parse(tree()).as_json()
    sections = {key[:-1] for key in every_key((), full)}
    assert {(), ("trainer", "optimizer"), ("solver",), ("stream",)} <= sections
    for section in sections:
        study = json.loads(json.dumps(full))
        node: Any = study
        for name in section:
            node = node[name]
        node["no_such_key"] = 1
        (line,) = problems(study)
        assert line.startswith(".".join([*section, "no_such_key=1: unknown key."]))


def all_keys() -> list[tuple[str, ...]]:
    full = parse(tree()).as_json()
    full["ensemble"]["design"] = {"csv": "p.csv"}
    full["record"] = RecordConfig().model_dump()
    full["source"] = SourceConfig(record=Path("run")).model_dump()
    distributions = [("parameters", "west", key) for key in KEYS]
    return every_key((), full) + distributions


def test_every_key_is_in_the_reference(project: Path) -> None:
    reference = (project / "docs" / "study.md").read_text()
    keys = all_keys()
    assert len(keys) > 50
    for key in keys:
        assert f"`{key[-1]}" in reference, f"docs/study.md says nothing of {'.'.join(key)}"


def test_every_default_in_the_reference_is_the_default(project: Path) -> None:
    reference = (project / "docs" / "study.md").read_text()
    resolved = parse({**tree(), "record": {}}).as_json()
    resolved["source"] = SourceConfig(record=Path("run")).model_dump()
    for section in ("ensemble", "stream", "reservoir", "trainer", "checkpoint", "record", "source"):
        for name, field in known_fields(section).items():
            if field.is_required() or isinstance(resolved[section][name], dict | list):
                continue
            default = json.dumps(field.default).strip('"')
            rows = [line for line in reference.splitlines() if line.startswith(f"| `{name}` ")]
            assert any(f"| {default} |" in row for row in rows), (
                f"{section}.{name}={default}: {rows}"
            )


def known_fields(section: str) -> dict[str, FieldInfo]:
    if section == "record":  # optional
        return RecordConfig.model_fields
    if section == "source":
        return SourceConfig.model_fields
    model = StudyConfig.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model.model_fields


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("fraction", 0.0, "above 0"),
        ("fraction", 1.5, "at most 1"),
        ("every", 0, "at least 1"),
        ("what", "all", "inserted"),
        ("what", "reservoir", "must be 'inserted' or 'drawn'. Choose one of them"),
        ("compression", "gzip", "zstd"),
        (
            "when_full",
            "wait",
            "unknown key. Known keys of record: compression, every, fraction, what",
        ),
    ],
)
def test_a_wrong_record_is_refused(key: str, value: object, limit: str) -> None:
    (line,) = problems(changed(f"record.{key}", value))
    assert line.startswith(f"record.{key}=")
    assert limit in line


def test_the_size_of_a_record_is_known_before_it_is_written() -> None:
    assert parse(tree()).record_bytes == 0
    sample = 24 * 40 * 4 + 8 * (5 + 1 + 3) + 4
    study = parse({**tree(), "record": {"fraction": 0.25, "every": 2}})
    assert study.record_bytes == 49 * sample  # of 390 samples an eighth, rounded up


def test_every_key_says_what_it_is() -> None:
    full = parse({**tree(), "record": {}}).as_json()
    for key in every_key((), full):
        what = known_keys(key[:-1], full, StudyConfig)[key[-1]]
        if key[-1] != "kind" and len(key) > 1:
            assert what, f"{'.'.join(key)} has no description"


def test_checking_a_study_loads_nothing_heavy(project: Path) -> None:
    program = (
        "import sys; from pipeline.study.load import load; load('examples/heat.yaml').warnings();"
        "print(*[m for m in ('torch', 'ray', 'zmq', 'petsc4py', 'mpi4py', 'scipy')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_what_leaves_the_solver_is_what_is_counted() -> None:
    plain = parse(tree())
    study = tree()
    study["stream"] = {
        "every": 4, "coarsen": [16, 32], "dtype": "float16", "input_fields": ["temperature"],
    }  # fmt: skip
    thinned = parse(study)
    assert (plain.samples_per_member, thinned.samples_per_member) == (30, 7)
    assert thinned.spec.names == ("temperature", "initial_temperature")
    assert thinned.spec.shape == (16, 32)
    assert plain.sample_bytes == 4 * 24 * 40
    assert thinned.sample_bytes == 2 * 2 * 16 * 32
    layout = thinned.sample_layout()
    assert (layout.nbytes, layout.dtype) == (thinned.sample_bytes, "float16")


def test_a_seed_that_no_network_can_see_is_warned_of() -> None:
    study = tree()
    study["solver"] = {"kind": "kuramoto_sivashinsky", "grid": [96], "steps": 30, "dt": 0.4}
    study["parameters"] = {"amplitude": {"constant": 1}, "seed": {"uniform": [0, 1000]}}
    (line,) = [each for each in parse(study).warnings() if "seed" in each]
    assert line.startswith("parameters.seed=")
    assert "stream.input_fields" in line
    study["stream"] = {"input_fields": ["u"]}
    assert not any("seed" in each for each in parse(study).warnings())


@pytest.mark.parametrize("kind", ["next", "delta", "derivative", "bundle"])
def test_a_seed_shows_in_the_snapshots_that_a_stepping_network_is_given(kind: str) -> None:
    study = tree()
    study["solver"] = {"kind": "kuramoto_sivashinsky", "grid": [96], "steps": 30, "dt": 0.4}
    study["parameters"] = {"amplitude": {"constant": 1}, "seed": {"uniform": [0, 1000]}}
    study["trainer"]["task"] = {"kind": kind}
    assert not any("seed" in each for each in parse(study).warnings())


def test_a_csv_is_warned_of_where_it_repeats_members_or_leaves_the_solver(tmp_path: Path) -> None:
    rows = [f"{100 + place},200,200,200,200" for place in range(16)]
    study = changed("ensemble.design", {"csv": "p.csv"})
    study["ensemble"] |= {"members": 14, "validation": 2}
    study = {name: section for name, section in study.items() if name != "parameters"}
    header = "initial,west,east,south,north"

    def said() -> list[str]:
        (tmp_path / "p.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
        return [w for w in parse(study, folder=tmp_path).warnings() if "csv" in w]

    assert said() == []
    rows[15] = rows[3]
    (line,) = said()
    assert line.startswith(f"ensemble.design.csv={tmp_path / 'p.csv'}: validation members with")
    assert "1 of 2 (row 16 as 4)" in line
    rows[15] = "1e5,200,200,200,200"
    (line,) = said()
    assert "column 'initial' has 100 to 100000 and goes beyond what solver 'heat' is" in line
