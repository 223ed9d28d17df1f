"""A receiver that serves a live stream while frames, strangers and silence come at it."""

import pytest

from benchmarks.fuzz_rig import FULL, Attack, Outcome, measure

MEMORY = 64 << 20
PAUSE = 0.0005  # seconds that an honest sender computes for a sample


def judge(outcome: Outcome, attack: Attack) -> None:
    assert outcome.wrong == 0
    assert (outcome.stored, outcome.twice) == (outcome.sent, 0)
    assert outcome.grown_bytes < MEMORY
    assert outcome.peak_bytes < 2 * MEMORY
    # 8 of the 11 kinds of frames are refused always, mutated ones nearly always.
    assert outcome.refused > 8 / 11 * attack.frames + attack.strangers
    assert outcome.attackers > 0  # frames with nothing wrong in them were among them, and stored


@pytest.mark.slow
def test_twenty_thousand_fuzzed_frames_spoil_nothing() -> None:
    attack = FULL.scaled(1 / 50)
    judge(measure(attack, quiet_seconds=0.5, pause=PAUSE), attack)


@pytest.mark.slow
def test_a_million_fuzzed_frames_spoil_nothing() -> None:
    judge(measure(FULL, quiet_seconds=5.0, pause=PAUSE), FULL)
