import pytest

from pipeline.stream.frames import Control, Kind, Ranges
from pipeline.stream.outbox import MAX_PROBE_SECONDS, Outbox

PROBE = 0.5


def outbox(credit: int = 1000) -> Outbox[str]:
    return Outbox(credit_bytes=credit, probe_seconds=PROBE)


def ack(*ranges: tuple[int, int]) -> Control:
    return Control(kind=Kind.ACK, study=1, sender=2, sequence=0, ranges=list(ranges))


def held(ping: int, ranges: Ranges | None = None) -> Control:
    return Control(kind=Kind.HELD, study=1, sender=2, sequence=ping, ranges=ranges or [])


def test_bytes_outstanding_never_pass_the_credit() -> None:
    box = outbox(credit=1000)
    sent = 0
    while box.room(300):
        box.add(f"m{sent}", 300, now=0.0)
        sent += 1
    assert sent == 3
    assert box.outstanding == 900
    box.heard(ack((0, 0)), now=0.1)
    assert box.room(300)
    assert not box.room(401)


def test_it_is_known_when_something_was_last_said_to_wait() -> None:
    box = outbox()
    assert box.held_at == float("-inf")
    box.heard(held(1, [(0, 0)]), now=1.0)  # nothing is outstanding
    box.add("m0", 300, now=2.0)
    box.heard(held(2), now=3.0)
    assert box.held_at == float("-inf")
    box.heard(held(3, [(0, 0)]), now=4.0)
    assert box.held_at == 4.0


def test_who_has_waited_goes_on_when_a_quarter_of_the_credit_is_free() -> None:
    box = outbox(credit=1000)
    for number in range(10):
        box.add(f"m{number}", 100, now=0.0)
    box.heard(ack((0, 0)), now=0.1)
    assert box.room(100)
    assert not box.ample(100)
    box.heard(ack((1, 2)), now=0.1)
    assert box.ample(100)
    assert not box.ample(301)


def test_a_message_is_given_back_exactly_once_when_it_is_acknowledged() -> None:
    box = outbox()
    for number in range(4):
        box.add(f"m{number}", 100, now=0.0)
    assert box.heard(ack((1, 2)), now=0.1) == (["m1", "m2"], [])
    assert box.heard(ack((0, 2)), now=0.2) == (["m0"], [])
    assert box.outstanding == 100
    assert box.released == 3
    assert len(box) == 1


def test_a_refused_message_gives_its_credit_back() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    refused = Control(kind=Kind.REFUSED, study=1, sender=2, sequence=0, reason="not finite: 3")
    assert box.heard(refused, now=0.1) == (["m0"], [])
    assert not box
    assert box.outstanding == 0


def test_a_range_of_any_width_costs_only_what_is_outstanding() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    assert box.heard(ack((0, 2**64 - 1)), now=0.1) == (["m0"], [])


def test_a_message_goes_out_again_when_a_later_ping_proves_it_lost() -> None:
    box = outbox()
    for number in range(3):
        box.add(f"m{number}", 100, now=0.0)
    assert box.ping(now=PROBE) == 1
    box.add("m3", 100, now=PROBE)  # after the ping: its answer says nothing about this one
    assert box.heard(held(1, [(1, 1)]), now=0.6) == ([], ["m0", "m2"])
    assert box.resent == 2


def test_what_waits_at_the_receiver_is_never_sent_again() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    now, again = 0.0, []
    for _ in range(200):
        now += PROBE
        number = box.ping(now)
        if number is not None:
            again += box.heard(held(number, [(0, 0)]), now + 0.01)[1]
    assert again == []
    assert len(box) == 1


def test_two_answers_to_two_pings_cause_one_resend() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    first, second = box.ping(now=1.0), box.ping(now=4.0)
    assert (first, second) == (1, 2)
    assert box.heard(held(1), now=4.1) == ([], ["m0"])
    assert box.heard(held(2), now=4.2) == ([], [])
    third = box.ping(now=9.0)
    assert third == 3
    assert box.heard(held(3), now=9.1) == ([], ["m0"])


def test_a_frame_that_went_out_twice_is_not_offered_for_reuse() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    box.add("m1", 100, now=0.0)
    assert box.ping(now=1.0) == 1
    box.heard(held(1, [(1, 1)]), now=1.1)
    assert box.heard(ack((0, 1)), now=1.2) == (["m1"], [])
    assert box.outstanding == 0


def test_pings_double_up_to_a_limit_while_nobody_answers() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    times, now = [], 0.0
    while now < 30.0:
        now += 0.1
        if box.ping(now) is not None:
            times.append(now)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert gaps[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0], abs=0.11)
    assert max(gaps) <= MAX_PROBE_SECONDS + 0.11
    box.heard(held(1), now)
    assert box.ping(now + PROBE) is not None


def test_nothing_is_asked_while_nothing_is_outstanding() -> None:
    box = outbox()
    assert box.ping(now=99.0) is None
    box.add("m0", 100, now=100.0)
    assert box.ping(now=100.1) is None
    box.heard(ack((0, 0)), now=100.2)
    assert box.ping(now=200.0) is None


def test_an_answer_that_is_none_changes_nothing() -> None:
    box = outbox()
    box.add("m0", 100, now=0.0)
    stray = Control(kind=Kind.PING, study=1, sender=2, sequence=0)
    assert box.heard(stray, now=1.0) == ([], [])
    assert len(box) == 1
