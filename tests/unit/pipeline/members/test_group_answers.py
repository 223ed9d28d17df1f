"""What an mpiexec group's SolverActor concludes from what its mpi_ranks say; without processes."""

import math
from dataclasses import replace

import pytest

from pipeline.members.attempt import Assignment, MemberReport
from pipeline.members.group import Answers
from pipeline.members.rank_lines import Failed, Failing, Hello, Ready, Run, Setup, decode, encode
from pipeline.members.run_member import merged
from pipeline.slots.layout import SampleLayout
from pipeline.slots.memory import SlotsDescription
from pipeline.stream.endpoint import DirectEndpoint, Endpoint, StudyKeys
from tests.small_study import small_study

LAYOUT = SampleLayout(window=1, sample_shape=(2, 5, 6), num_parameters=2)
REPORT = MemberReport(
    member=3, attempt=2, samples=21, bytes_sent=300, wall_seconds=2.0, wait_seconds=0.5
)
DIVERGED = Failed(reason="DIVERGED_ITS at step 4", final=True)


def answers() -> Answers:
    return Answers(ranks=3, grace=5.0)


def test_an_attempt_has_succeeded_when_every_mpi_rank_says_so() -> None:
    said = answers()
    states = []
    for rank, report in ((2, REPORT), (0, REPORT), (1, replace(REPORT, bytes_sent=40))):
        said.heard(rank, report, 1.0)
        states.append((said.complete, said.reusable))
    assert states == [(False, False), (False, False), (True, True)]
    assert said.deadline == math.inf
    assert sorted(report.bytes_sent for report in said.reports()) == [40, 300, 300]


def test_the_others_have_a_few_seconds_from_the_first_failure() -> None:
    said = answers()
    said.heard(1, Failing(reason=DIVERGED.reason), 10.0)
    said.heard(2, Failing(reason="field is not finite: on another mpi_rank"), 13.0)
    assert said.deadline == 15.0
    assert said.failure == DIVERGED


def test_who_has_told_its_failure_may_take_its_time_to_store_what_it_sent() -> None:
    said = answers()
    for rank in range(3):
        said.heard(rank, Failing(reason=DIVERGED.reason), 10.0)
    assert said.deadline == math.inf
    states = [said.complete]
    for rank in range(3):
        said.heard(rank, DIVERGED, 60.0)
        states.append(said.complete)
    assert states == [False, False, False, True]
    assert said.reusable
    assert said.failure == DIVERGED


@pytest.mark.parametrize("other", [REPORT, Failed(reason="TimeoutError: no room", final=False)])
def test_a_group_is_not_used_again_when_its_mpi_ranks_do_not_agree(
    other: MemberReport | Failed,
) -> None:
    said = answers()
    for rank in range(2):
        said.heard(rank, DIVERGED, 1.0)
    said.heard(2, other, 1.0)
    assert said.complete
    assert not said.reusable
    assert said.failure == DIVERGED


def test_reports_of_all_mpi_ranks_make_one() -> None:
    parts = [REPORT, replace(REPORT, bytes_sent=40, wall_seconds=3.0, wait_seconds=0.1)]
    assert merged(parts) == replace(REPORT, bytes_sent=340, wall_seconds=3.0)


def test_mpi_ranks_that_sent_different_samples_are_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"have sent \[21, 20\] samples"):
        merged([REPORT, replace(REPORT, samples=20)])


@pytest.mark.parametrize(
    "message",
    [
        Hello(rank=1, size=3),
        Ready(),
        Failing(reason='a "quoted" reason\nof two lines'),
        DIVERGED,
        REPORT,
        Run(
            assignment=Assignment(member=7, attempt=2, validation=True),
            parameters={"west": 0.1, "east": 1e300, "a": -3.0},
        ),
        Setup(
            study=small_study(),
            endpoints=[
                Endpoint(address="tcp://10.0.0.1:5", server_key=b"\x00\xff" * 20),
                Endpoint(
                    direct=DirectEndpoint(
                        path="/tmp/s",
                        training=SlotsDescription(path="/dev/shm/t", capacity=3, layout=LAYOUT),
                        validation=None,
                        node="n",
                    )
                ),
            ],
            keys=StudyKeys.generate(),
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_every_message_is_one_line_and_comes_back_as_it_was(message: object) -> None:
    line = encode(message)  # type: ignore[arg-type]
    assert line.count(b"\n") == 1
    assert decode(line) == message
    if isinstance(message, Run):
        back = decode(line)
        assert isinstance(back, Run)
        assert list(back.parameters) == ["west", "east", "a"]


@pytest.mark.parametrize("line", [b"", b"[]", b'{"kind": "Stop"}', b'{"kind": "Hello"}'])
def test_nonsense_is_no_message(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a line of an mpi_rank"):
        decode(line)
