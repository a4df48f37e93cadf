"""VM time as a session sees it: what requests say, what the clock says, and what can't be true."""

from __future__ import annotations

import pytest
from session_rig import Rig, attached, error_of, feed, posted, read, write
from trial_device import DELAY, ROOM, TIME, VALUE

from devserver.protocol.connection import blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.limits import MAX_TIME_JUMP_NS
from devserver.protocol.messages import Clock, Feed, FromClient, Interrupt, Request

MS = 1_000_000


def time_read(rig: Rig, time_ns: int) -> int:
    """The VM time at which the device saw a read that was stamped ``time_ns``."""
    (feedback,) = rig.say(read(TIME, 8, time_ns=time_ns))
    return int.from_bytes(feedback.data, "little")  # type: ignore[union-attr]


def due_in_ns(rig: Rig) -> int | None:
    """How far ahead the session wants to be called again."""
    due_ns = rig.session.next_deadline_ns()
    return None if due_ns is None else due_ns - rig.now_ns


def test_a_device_sees_the_time_of_the_request() -> None:
    rig = attached()
    assert [time_read(rig, at) for at in (5, 70, 800)] == [5, 70, 800]


def test_time_never_runs_back() -> None:
    rig = attached()
    assert [time_read(rig, at) for at in (500, 20, 501)] == [500, 500, 501]


def test_a_deadline_is_wanted_when_vm_time_reaches_it() -> None:
    rig = attached()
    rig.clock(time_ns=0)
    rig.say(write(DELAY, 7, time_ns=0))
    assert due_in_ns(rig) == 7 * MS
    assert rig.advance(7 * MS - 1) == []
    assert due_in_ns(rig) == 1
    (interrupt,) = rig.advance(1)
    assert isinstance(interrupt, Interrupt)
    assert due_in_ns(rig) is None


def test_a_deadline_that_lies_before_a_request_is_met_before_it() -> None:
    rig = attached()
    rig.clock(time_ns=0)
    rig.say(write(DELAY, 7))
    said = rig.say(read(TIME, 8, time_ns=8 * MS))
    assert [type(message).__name__ for message in said] == ["Interrupt", "Feedback"]


def test_nothing_is_due_while_vm_time_stands() -> None:
    rig = attached()
    rig.say(write(DELAY, 7))
    assert due_in_ns(rig) is None
    assert rig.advance(9 * MS) == []
    rig.clock(time_ns=2 * MS)
    assert due_in_ns(rig) == 5 * MS
    rig.clock(time_ns=3 * MS, running=0)
    assert due_in_ns(rig) is None
    assert rig.advance(9 * MS) == []


def test_the_clock_itself_meets_deadlines() -> None:
    rig = attached()
    rig.say(write(DELAY, 7))
    (interrupt,) = rig.clock(time_ns=7 * MS, running=0)
    assert isinstance(interrupt, Interrupt)


def test_the_message_with_the_least_delay_tells_the_time() -> None:
    rig = attached()
    rig.clock(time_ns=0)  # this one took 300 µs longer than ...
    rig.say(write(DELAY, 10))
    assert due_in_ns(rig) == 10 * MS
    rig.now_ns += MS
    rig.say(read(VALUE, time_ns=MS + 300_000))  # ... this one
    assert due_in_ns(rig) == 8_700_000
    rig.now_ns += MS
    rig.say(read(VALUE, time_ns=2 * MS))  # a slow one teaches nothing
    assert due_in_ns(rig) == 7_700_000


@pytest.mark.parametrize(
    "message",
    [
        read(VALUE, time_ns=3 * MS),
        read(VALUE, elements=2, time_ns=3 * MS),
        posted(VALUE, 1, time_ns=3 * MS),
        feed(b"a", time_ns=3 * MS),
    ],
)
def test_every_kind_of_message_tells_the_time(message: FromClient) -> None:
    rig = attached()
    rig.clock(time_ns=0)
    rig.say(write(DELAY, 10))
    rig.say(message)
    assert due_in_ns(rig) == 7 * MS


FAR_AHEAD_NS = MAX_TIME_JUMP_NS + 1


@pytest.mark.parametrize("far_ns", [FAR_AHEAD_NS, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize(
    "message",
    [
        read(VALUE),
        read(VALUE, elements=2),
        feed(b"a"),
        blank(Clock, running=0),
        blank(Clock, running=1),
    ],
)
@pytest.mark.parametrize("running", [0, 1])
def test_a_time_that_can_t_be_true_is_refused(
    message: Request | Feed | Clock, far_ns: int, running: int
) -> None:
    rig = attached()
    rig.clock(time_ns=0, running=running)
    said = rig.say(message._replace(time_ns=far_ns))
    assert "ahead of what this VM's earlier messages make likely" in error_of(
        said, ErrorCode.MALFORMED
    )


def test_a_posted_write_from_the_far_future_is_refused() -> None:
    rig = attached()
    assert error_of(rig.say(posted(ROOM, 0, time_ns=FAR_AHEAD_NS)), ErrorCode.MALFORMED)


def test_any_time_may_pass_between_two_messages() -> None:
    rig = attached()
    rig.clock(time_ns=0)
    year_ns = 365 * 86400 * 10**9
    rig.now_ns += year_ns
    assert time_read(rig, year_ns + MAX_TIME_JUMP_NS) == year_ns + MAX_TIME_JUMP_NS


@pytest.mark.parametrize("running", [0, 1])
def test_a_vm_without_devices_may_have_lived_for_any_time(running: int) -> None:
    rig = Rig()
    rig.attach()
    year_ns = 365 * 86400 * 10**9
    assert rig.clock(time_ns=year_ns, running=running) == []
