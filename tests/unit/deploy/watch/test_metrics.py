"""deploy/watch/metrics.py: scraped over real HTTP and parsed as Prometheus would."""

import math
import re
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.watch.metrics import FIGURES, MetricsServer, markdown_table
from tests.errors import made_errors
from tests.fake_study import CAPACITY, MEMBERS, stats_at

Scrape = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer(study="heat-2d") as running:
        yield running


def scrape(server: MetricsServer) -> Scrape:
    with urllib.request.urlopen(server.url, timeout=60.0) as answer:
        text = answer.read().decode()
    found: Scrape = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_before_the_first_figures_only_the_study_is_named(server: MetricsServer) -> None:
    assert scrape(server) == {"headrace_study_info": {(("study", "heat-2d"),): 1.0}}


def test_a_scrape_reads_the_newest_figures(server: MetricsServer) -> None:
    server(stats_at(20.0))
    server(stats_at(25.0))
    newest = stats_at(25.0)
    found = scrape(server)
    for rank, reservoir in enumerate(newest.reservoirs):
        key = (("rank", str(rank)),)
        assert found["headrace_reservoir_capacity_samples"][key] == CAPACITY
        assert found["headrace_reservoir_held_samples"][key] == reservoir.held
        assert found["headrace_reservoir_unseen_samples"][key] == reservoir.unseen
        assert found["headrace_reservoir_inserted_samples_total"][key] == reservoir.inserted
        assert found["headrace_reservoir_drawn_samples_total"][key] == reservoir.drawn
        assert found["headrace_reservoir_received_bytes_total"][key] == reservoir.bytes_received
        assert found["headrace_trainer_steps_total"][key] == newest.ranks[rank].train_step
        assert found["headrace_trainer_loss"][key] == pytest.approx(newest.ranks[rank].loss)
    result = newest.ranks[0].validation
    assert result is not None
    (one,) = result.one_step.fields
    of_field = (("field", "temperature"), ("kind", "one_step"))
    assert found["headrace_validation_mse"][of_field] == pytest.approx(one.mse)
    assert found["headrace_validation_nrmse_ratio"][of_field] == pytest.approx(one.nrmse)
    assert found["headrace_validation_error_ratio"][()] == pytest.approx(result.error)
    assert found["headrace_remaining_seconds"][()] == pytest.approx(11.0)


def test_errors_have_their_tail_and_the_study_its_price(server: MetricsServer) -> None:
    stats = stats_at(25.0)
    server(stats)
    found = scrape(server)
    result, paid = stats.ranks[0].validation, stats.breakeven
    assert result is not None
    assert paid is not None
    errors = found["headrace_validation_member_error_ratio"]
    assert {labels[1][1] for labels in errors} == {"mean", "median", "max", "std"}  # of 5 members
    spread = result.one_step.spread
    assert errors[(("kind", "one_step"), ("statistic", "max"))] == pytest.approx(spread.max)
    assert found["headrace_cost_seconds_total"][(("side", "solver"),)] == 44.0
    assert found["headrace_solver_member_seconds"][()] == 0.8
    assert found["headrace_surrogate_query_seconds"][(("batch", "batched"),)] == 0.0004
    assert found["headrace_breakeven_queries"][(("batch", "alone"),)] == paid.queries
    never = replace(paid, queries=None)
    rolled = replace(result, rollout=made_errors([0.5, math.inf] * 50, mse=math.inf))
    server(stats_at(25.0, breakeven=never, ranks=(replace(stats.ranks[0], validation=rolled),)))
    found = scrape(server)
    assert list(found["headrace_breakeven_queries"]) == [(("batch", "batched"),)]
    of_rollouts = (("kind", "rollout"),)
    assert found["headrace_validation_diverged_members"][of_rollouts] == 50.0
    assert found["headrace_validation_mse"][(("field", "temperature"), *of_rollouts)] == math.inf
    errors = found["headrace_validation_member_error_ratio"]
    assert errors[(*of_rollouts, ("statistic", "p99"))] == math.inf


def test_states_are_one_for_the_current_one_and_zero_for_the_others(server: MetricsServer) -> None:
    server(stats_at(10.0))
    found = scrape(server)
    assert {k[0][1] for k, v in found["headrace_phase"].items() if v == 1.0} == {"training"}
    assert len(found["headrace_phase"]) == 7
    assert {k[0][1] for k, v in found["headrace_waiting"].items() if v == 1.0} == {"trainer"}
    assert sum(found["headrace_members"].values()) == pytest.approx(MEMBERS + 5, abs=1)


def test_what_is_unknown_is_absent(server: MetricsServer) -> None:
    server(stats_at(4.0))
    found = scrape(server)
    for name in ("remaining_seconds", "validation_mse", "loss", "trainer_loss"):
        assert f"headrace_{name}" not in found


def test_what_only_grows_is_a_counter_and_everything_else_a_gauge(server: MetricsServer) -> None:
    server(stats_at(20.0))
    with urllib.request.urlopen(server.url, timeout=60.0) as answer:
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", answer.read().decode(), re.MULTILINE))
    assert types == {"headrace_study_info": "gauge"} | {
        one.exported_name: one.kind for one in FIGURES
    }
    earlier, later = stats_at(8.0), stats_at(34.0)
    for one in FIGURES:
        if one.kind == "counter":
            before = dict(one.read(earlier))
            assert all(value >= before[labels] for labels, value in one.read(later)), one.name


def test_the_endpoint_listens_on_loopback_and_frees_its_port() -> None:
    with MetricsServer(study="heat-2d") as server:
        assert server.url.startswith("http://127.0.0.1:")
        port = int(server.url.split(":")[2].split("/")[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_a_taken_port_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(OSError, match="in use"),
            MetricsServer(study="heat-2d", port=taken.getsockname()[1]),
        ):
            pass


def test_the_page_lists_exactly_what_is_exported(project: Path) -> None:
    page = (project / "docs" / "metrics.md").read_text()
    assert markdown_table() in page, (
        "run: python -c 'from deploy.watch.metrics import *; print(markdown_table())'"
    )
    listed = re.findall(r"^\| `(headrace_\w+)`", page, re.MULTILINE)
    assert sorted(listed) == sorted(["headrace_study_info", *(f.exported_name for f in FIGURES)])
