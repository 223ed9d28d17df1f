"""The faults of a drill: seeded, fair, and only what the study can suffer."""

from collections import Counter

import pytest
import yaml

from deploy.drill.nodes import cpus_of
from deploy.drill.plan import (
    CHECKPOINT_SECONDS,
    KINDS,
    MAX_PAUSE_SECONDS,
    MEANING,
    MEMBERS_FOR_A_FAULT,
    Fault,
    absent,
    built_in,
    kinds_of,
    plan,
    settings,
)
from pipeline.errors import ConfigError
from pipeline.study.config import StudyConfig
from pipeline.study.load import parse
from tests.small_study import small_study


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    assert plan(KINDS, 20, 3) == plan(KINDS, 20, 3)
    assert plan(KINDS, 20, 3) != plan(KINDS, 20, 4)


@pytest.mark.parametrize("faults", [1, 7, 60])
def test_every_kind_comes_as_often_as_any_other(faults: int) -> None:
    kinds = KINDS[:-1]
    made = plan(kinds, faults, 5)
    assert [fault.number for fault in made] == list(range(1, faults + 1))
    times = Counter(dict.fromkeys(kinds, 0))
    times.update(fault.kind for fault in made)
    assert max(times.values()) - min(times.values()) <= 1
    assert all(0.0 <= fault.pause <= MAX_PAUSE_SECONDS for fault in made)


@pytest.mark.parametrize(("pick", "chosen"), [(0.0, 0), (0.4, 1), (0.999, 2)])
def test_any_of_the_victims_may_be_picked(pick: float, chosen: int) -> None:
    fault = Fault(number=1, kind="solver", pause=0.0, pick=pick)
    assert fault.chosen(3) == chosen


def test_what_cannot_happen_to_a_study_is_named_with_the_reason() -> None:
    alone, group = (
        small_study(),
        small_study(ensemble={"mpi_ranks": 2}, reservoir={"capacity": 100}),
    )
    assert absent(alone) == {
        "node": "there is one; --nodes 2 makes two of this machine",
        "mpi_rank": "ensemble.mpi_ranks is 1",
        "program": "solver.kind is heat",
    }
    assert set(absent(group, nodes=2)) == {"program"}
    assert set(kinds_of(alone, None)) == set(KINDS) - {"mpi_rank", "program", "node"}
    assert "node" in kinds_of(alone, None, nodes=2)
    assert "mpi_rank" in kinds_of(group, None)


def test_kinds_are_those_asked_for() -> None:
    assert kinds_of(small_study(), "driver, solver") == ("solver", "driver")


def test_wrong_kinds_are_all_named() -> None:
    with pytest.raises(ConfigError) as error:
        kinds_of(small_study(), "solver,fire,program")
    unknown, missing = error.value.problems
    assert "'fire' is unknown. Known: solver, hung" in unknown
    assert missing == "--kinds program: not in this study: solver.kind is heat"


def changed(study: StudyConfig, faults: int) -> dict[str, str]:
    return dict(each.split("=") for each in settings(study, faults))


def test_a_study_is_changed_only_where_it_must_be() -> None:
    default = changed(small_study(ensemble={"max_attempts": 3}), 10)
    assert default == {
        "ensemble.max_attempts": "11",
        "checkpoint.every_seconds": str(CHECKPOINT_SECONDS),
        "ensemble.member_timeout": "20.0",
        "record": "{}",
    }
    ready = small_study(
        ensemble={"max_attempts": 30, "member_timeout": 5.0},
        checkpoint={"every_seconds": 0.3},
        record={},
    )
    assert changed(ready, 10) == {"ensemble.max_attempts": "30"}
    never = small_study(checkpoint={"every_seconds": None})
    assert changed(never, 2)["checkpoint.every_seconds"] == str(CHECKPOINT_SECONDS)


def test_the_built_in_study_can_be_run_and_grows_with_the_faults() -> None:
    short, long = (parse(yaml.safe_load(built_in(faults))) for faults in (1, 60))
    assert short.warnings() == long.warnings() == []
    assert short.ensemble.members == 2 * MEMBERS_FOR_A_FAULT
    assert long.ensemble.members == 61 * MEMBERS_FOR_A_FAULT
    assert short.ensemble.validation >= short.trainer.ranks


def test_every_kind_is_explained() -> None:
    assert set(MEANING) == set(KINDS)


def test_the_first_node_could_hold_the_whole_study() -> None:
    study = small_study(ensemble={"mpi_ranks": 3, "concurrent": 2}, reservoir={"capacity": 120})
    assert cpus_of(study, 3) == [2 * 3 + 2, 3, 3]
    assert cpus_of(small_study(), 2) == [4, 2]
