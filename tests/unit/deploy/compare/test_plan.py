"""What is compared is checked before anything starts."""

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from deploy.compare.plan import Method, Plan, plan
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from tests.small_study import small_study

NOTHING: dict[str, Any] = {
    "methods": None, "seconds": None, "members": None, "seeds": 1, "disk": None, "workers": None,
    "keep_data": False,
}  # fmt: skip


def planned(study: StudyConfig | None = None, **asked: Any) -> Plan:
    return plan(small_study() if study is None else study, **(NOTHING | asked))


def problems(study: StudyConfig | None = None, **asked: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        planned(study, **asked)
    return error.value.problems


def labels(made: Plan) -> list[str]:
    return [method.label for method in made.methods]


def test_without_a_time_limit_files_are_read_so_many_times() -> None:
    made = planned(methods="reservoir,npy,npy:1,zarr:3")
    assert labels(made) == ["reservoir", "npy:10", "npy:1", "zarr:3"]
    assert made.online(3, "reservoir").ensemble.members == 9


def test_with_a_time_limit_neither_members_nor_passes_are_counted() -> None:
    made = planned(methods="firo,npy,npy:2", seconds=30.0)
    assert labels(made) == ["firo", "npy", "npy:2"]
    assert made.online(3, "firo").ensemble.members > 10_000
    assert made.of_seed(3).ensemble.members == 9


def test_policies_that_draw_once_have_no_limit_on_reuse() -> None:
    made = planned()
    assert labels(made)[:3] == ["reservoir", "firo", "fifo"]
    assert made.online(4, "reservoir").reservoir.max_reuse == 4
    fifo = made.online(4, "fifo")
    assert (fifo.reservoir.policy, fifo.reservoir.max_reuse, fifo.seed) == ("fifo", None, 4)


def test_methods_of_a_seed_differ_in_nothing_else() -> None:
    made = planned(methods="reservoir,firo")
    one, other = (made.online(3, name).as_json() for name in ("reservoir", "firo"))
    del one["reservoir"], other["reservoir"]
    assert one == other


def test_members_and_seeds_are_those_asked_for() -> None:
    made = planned(members=5, seeds=3)
    assert made.study.ensemble.members == 5
    assert made.seeds == (3, 4, 5)
    assert made.workers == 2
    assert planned(workers=0).workers == 0


def test_a_disk_budget_adds_a_smaller_data_set() -> None:
    row = 10 * 14 * 4 + 6 * 8 + 8
    made = planned(methods="npy:2", disk=f"{3.5 * (21 * row + 8192):.0f}")
    assert labels(made) == ["npy:2", "npy@disk:10"]
    assert made.members_on_disk == 3
    assert planned(disk="1GB").members_on_disk == 9
    assert labels(planned(methods="zarr@disk:3", disk="200kB")) == ["zarr@disk:3"]


def test_data_that_memory_cannot_hold_are_not_held_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert labels(planned())[-1] == "ram:10"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    assert "ram:10" not in labels(planned())
    (line,) = problems(methods="reservoir,ram")
    assert line.startswith("--methods: ram holds the data set, ")
    assert "100 kB of memory are free" in line


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"methods": "hdf5"},
            r"--methods: 'hdf5' is unknown. Known: fifo, firo, reservoir, uniform",
        ),
        ({"methods": "npy:0"}, "--methods: 'npy:0' is unknown"),
        ({"methods": "fifo:3"}, "--methods: 'fifo:3': a stream has no passes"),
        ({"methods": "npy@disk"}, "--methods: @disk needs a budget"),
        ({"disk": "many"}, "--disk=many: is no size"),
        ({"disk": "1kB"}, "--disk=1kB: one member takes"),
    ],
)
def test_what_cannot_be_compared_is_refused(asked: dict[str, Any], line: str) -> None:
    (found,) = problems(**asked)
    assert found.startswith(line)


def test_a_time_limit_needs_a_design_and_a_schedule_without_an_end() -> None:
    study = small_study(
        ensemble={"design": "latin_hypercube"}, trainer={"schedule": {"kind": "cosine"}}
    )
    design, schedule = problems(study, seconds=5.0)
    assert design.startswith("ensemble.design=latin_hypercube: with --seconds")
    assert schedule.startswith("trainer.schedule.kind=cosine: with --seconds")
    assert labels(planned(study))  # without a time limit both are fine


def test_every_rank_needs_a_validation_member() -> None:
    (found,) = problems(small_study(ensemble={"validation": 1}))
    assert found.startswith("ensemble.validation=1: a comparison needs at least one")


def test_a_policy_that_the_study_cannot_have_is_named() -> None:
    study = small_study(reservoir={"capacity": 60, "watermark": 57})
    (found,) = problems(study, methods="npy,firo")
    assert found.startswith("method firo: ")
    assert labels(planned(study, methods="npy")) == ["npy:10"]


def test_methods_are_read_as_they_are_written() -> None:
    for text in ("reservoir", "npy-member", "npy:10", "zarr@disk:1", "npy@disk"):
        assert Method.parse(text).label == text
