"""A client's turn: it ends by time, whatever was said and whatever its devices have to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import pytest
import trial_device
from session_rig import BASE, Rig, attached, error_of, posted, read, write
from trial_device import BIG, COUNT, VALUE

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import MAX_DEADLINES, Bus
from devserver.machine.turns import Behind
from devserver.models import catalog
from devserver.models.device import Device, Region, Register, Signal, Space
from devserver.protocol.connection import blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.limits import MAX_TIME_JUMP_NS
from devserver.protocol.messages import (
    FIELDS,
    TYPE_OF,
    Add,
    Added,
    Batch,
    Clock,
    Detach,
    Direction,
    Emit,
    Event,
    Feed,
    Feedback,
    Interrupt,
    Message,
    MessageType,
    Ping,
    Pong,
    Request,
    Save,
    State,
    Status,
    WantedDevice,
    Write,
)
from devserver.session.outbox import MAX_CALL_BYTES

LEAP_NS = MAX_TIME_JUMP_NS - 10**9


class Looks:
    """A turn that is over at every so many looks at it."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._looks = 0

    def is_over(self) -> bool:
        self._looks += 1
        return self._looks % self._every == 0


class Restless(Device):
    """Wants to be called again a nanosecond later, for ever; with ``steps``, one period a call."""

    kind = "restless"
    regions = (Region(name="io", size=1, registers=(Register(offset=0, name="CALLS"),)),)

    @dataclass
    class State:
        due_ns: int = 1
        calls: int = 0

    @dataclass(frozen=True)
    class Options:
        steps: bool = False

    state: State

    def deadline_ns(self) -> int | None:
        return self.state.due_ns

    def advance(self, now_ns: int) -> None:
        self.state.calls += 1
        self.state.due_ns = (self.state.due_ns if self.options.steps else now_ns) + 1

    def read_calls(self, now_ns: int) -> int:
        return self.state.calls & 0xFF

    def write_calls(self, value: int, now_ns: int) -> None: ...


class Sink:
    """Counts the edges of lines."""

    def __init__(self) -> None:
        self.edges = 0

    def line(self, line: int, level: bool) -> None:
        self.edges += 1

    def emit(self, device_id: int, channel: int, data: bytes) -> None: ...
    def consumed(self, device_id: int, channel: int, total: int) -> None: ...
    def signal(self, device_id: int, signal: Signal, value: int) -> None: ...


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.BUNDLED, Restless.kind, f"{__name__}:Restless")


def in_pieces(rig: Rig, *messages: Message, looks: int = 1) -> list[list[Message]]:
    """What is said in each turn, where a turn is over at every so many looks."""
    rig.session.turn = rig.session.bus.turn = Looks(looks)
    said: list[list[Message]] = []
    rig.session.hear(rig.client.send(*messages), rig.now_ns)
    said.append(rig.client.receive(rig.session.outbox.take_bytes()))
    while rig.session.is_behind:
        rig.session.go_on(rig.now_ns)
        said.append(rig.client.receive(rig.session.outbox.take_bytes()))
    return said


def test_each_message_may_be_the_last_of_a_turn_and_all_are_answered_in_order() -> None:
    rig = attached()
    said = in_pieces(rig, *[read(COUNT, 8)] * 3, Ping(7))
    assert [len(turn) for turn in said] == [1, 1, 1, 1, 0]
    *counts, pong = (message for turn in said for message in turn)
    assert [m.data[0] for m in counts if isinstance(m, Feedback)] == [1, 2, 3]
    assert isinstance(pong, Pong)


@pytest.mark.parametrize(
    "long",
    [
        read(COUNT, 1, elements=4096),
        write(VALUE, 0, elements=2000, data=bytes(range(250)) * 8),
        posted(VALUE, *(n % 256 for n in range(1000))),
        blank(Batch, writes=tuple(Write(1, n & 1, 0, BASE, 1, 0, n & 0xFF) for n in range(1000))),
    ],
    ids=["string in", "string out", "a run", "a mixed batch"],
)
def test_a_long_message_takes_several_turns_and_says_the_same(long: Message) -> None:
    def output(said: list[list[Message]]) -> tuple[bytes, list[Message]]:
        flat = [message for turn in said for message in turn]
        emitted = b"".join(m.data for m in flat if isinstance(m, Emit))
        return emitted, [m for m in flat if isinstance(m, Feedback)]

    at_once, cut = attached(), attached()
    whole, pieces = [at_once.say(long)], in_pieces(cut, long)
    assert len(pieces) > 10
    emitted, feedbacks = output(pieces)
    assert emitted == output(whole)[0]
    assert [f.data for f in feedbacks] == [f.data for f in output(whole)[1]]


def test_what_is_said_in_between_does_not_confirm_a_message_that_is_not_done() -> None:
    rig = attached()
    said = in_pieces(rig, posted(VALUE, *[1] * 100), Ping(1))
    emits = [message for turn in said for message in turn if isinstance(message, Emit)]
    assert [emit.applied for emit in emits[:-1]] == [0] * (len(emits) - 1)
    assert len(emits) > 2


PIT = WantedDevice("timer", "pit8254", {"": 0x40}, {"": 0})
RESTLESS = WantedDevice("restless", "restless", {"io": 0x10})


def fast_pit(rig: Rig) -> None:
    """A rig's device 1 is a timer; from now on it is one of the fastest."""
    rig.clock(time_ns=0)
    for port, value in ((0x43, 0x34), (0x40, 30), (0x40, 0)):
        rig.say(write(0, value)._replace(address=port))


def test_a_request_far_ahead_waits_for_its_devices_and_so_do_those_behind_it() -> None:
    rig = attached(PIT)
    fast_pit(rig)
    ahead = read(0, address=0x40, time_ns=LEAP_NS)
    said = in_pieces(rig, ahead, Ping(1), looks=100)
    assert len(said) > 20
    *_, feedback, pong = (message for turn in said for message in turn)
    assert isinstance(feedback, Feedback)
    assert isinstance(pong, Pong)
    for turn in said[:-3]:
        assert all(isinstance(message, Interrupt) for message in turn)


@pytest.mark.parametrize("leap", [read(0, address=0x40), blank(Clock, running=1), blank(Detach)])
def test_a_leap_of_vm_time_costs_a_bounded_number_of_events(leap: Message) -> None:
    rig = attached(PIT)
    fast_pit(rig)
    said = rig.say(leap._replace(time_ns=LEAP_NS))  # type: ignore[union-attr]
    assert len(said) <= MAX_DEADLINES + 4


def test_slow_timers_miss_no_edge_however_far_the_leap() -> None:
    sink = Sink()
    bus = Bus([DeviceWiring(name="timer", kind="pit8254", bases={"": 0x40}, lines={"": 0})], sink)
    for port, value in ((0x43, 0x36), (0x40, 0), (0x40, 0)):
        bus.write(Space.PORT, port, 1, value, 0)
    before = sink.edges
    bus.advance(LEAP_NS)
    assert sink.edges - before == int(LEAP_NS / (65536 * 17600 / 21) * 2)


def test_a_device_whose_deadline_is_always_next_does_not_hold_its_vm_up() -> None:
    rig = attached(RESTLESS)
    (feedback,) = rig.say(read(0, address=0x10, time_ns=LEAP_NS))
    assert isinstance(feedback, Feedback)
    assert feedback.status == 0
    (feedback,) = rig.say(read(0, address=0x10, time_ns=LEAP_NS + 10))
    assert isinstance(feedback, Feedback)


def test_a_device_that_can_not_pass_over_its_periods_fails_with_its_name() -> None:
    rig = Rig()
    rig.attach(WantedDevice("stepper", "restless", {"io": 0x10}, options={"steps": True}))
    event, feedback = rig.say(read(0, address=0x10, time_ns=LEAP_NS))
    assert isinstance(event, Event)
    assert "'stepper' (restless)" in event.text
    assert isinstance(feedback, Feedback)
    assert feedback.status == 2


def test_a_bus_that_is_behind_goes_on_where_it_was() -> None:
    bus = Bus([DeviceWiring(name="r", kind="restless", bases={"io": 0x10})], Sink())
    bus.turn = Looks(10)
    turns = 0
    while bus.now_ns < 95:
        try:
            bus.advance(95)
        except Behind:
            turns += 1
    assert turns == 9
    assert bus.read(Space.PORT, 0x10, 1, 95) == 95


def test_timers_that_are_behind_are_due_at_once() -> None:
    rig = attached(PIT)
    fast_pit(rig)
    rig.session.turn = rig.session.bus.turn = Looks(10)
    rig.now_ns += 10**9
    rig.client.receive(rig.session.advance(rig.now_ns))
    due_ns = rig.session.next_deadline_ns()
    assert due_ns is not None
    assert due_ns < rig.now_ns


def test_a_clock_that_is_behind_starts_when_it_was_started() -> None:
    rig = attached(PIT)
    fast_pit(rig)
    rig.session.turn = rig.session.bus.turn = Looks(1)
    rig.session.hear(rig.client.send(blank(Clock, running=1, time_ns=10**9)), rig.now_ns)
    began_ns = rig.now_ns
    while rig.session.is_behind:
        rig.now_ns += 50_000
        rig.session.go_on(rig.now_ns)
    rig.client.receive(rig.session.outbox.take_bytes())
    assert rig.session.clock.now_ns(rig.now_ns) == 10**9 + rig.now_ns - began_ns


def test_a_model_that_says_too_much_in_one_call_has_failed() -> None:
    rig = attached()
    (event, *_) = (m for m in _flooded(rig) if isinstance(m, Event))
    assert str(MAX_CALL_BYTES) in event.text


def _flooded(rig: Rig) -> list[Message]:
    every = MAX_CALL_BYTES // 250_000 + 1
    writes = tuple(Write(1, Direction.OUT, 0, BASE + BIG, 1, 0, 250) for _ in range(every))
    return rig.say(blank(Batch, writes=writes))


TIMED = {
    cls: blank(cls, **fields)
    for cls, fields in (
        (Request, {"device_id": 1, "size": 1, "elements": 1, "address": BASE, "data": b""}),
        (Batch, {"writes": (Write(1, 1, 0, BASE, 1, 0, 1),)}),
        (Feed, {"device_id": 1, "data": b""}),
        (Clock, {"running": 1}),
        (Detach, {"keep": 1}),
        (Save, {"device_id": 1}),
        (Add, {"data": b""}),
    )
}


def test_these_are_all_messages_that_name_a_time() -> None:
    timed = {kind for kind, fields in FIELDS.items() if "time_ns" in fields}
    assert {TYPE_OF[cls] for cls in TIMED} == timed | {MessageType.BATCH}


@pytest.mark.parametrize("time_ns", [MAX_TIME_JUMP_NS + 1, 1 << 62, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("cls", list(TIMED))
def test_every_time_that_a_client_names_goes_through_the_same_check(
    cls: type[Any], time_ns: int
) -> None:
    rig = attached()
    message: Any = TIMED[cls]
    if cls is Batch:
        message = blank(Batch, writes=(message.writes[0]._replace(time_ns=time_ns),))
    else:
        message = message._replace(time_ns=time_ns)
    assert "ahead of what" in error_of(rig.say(message), ErrorCode.MALFORMED)


@pytest.mark.parametrize("now_ns", [MAX_TIME_JUMP_NS + 1, (1 << 64) - 1, -1])
def test_a_device_that_is_added_brings_no_time_far_ahead(now_ns: int) -> None:
    old, rig = attached(), attached()
    (state,) = old.say(blank(Save, device_id=1))
    assert isinstance(state, State)
    ahead = msgpack.packb(msgpack.unpackb(state.data) | {"now_ns": now_ns})
    wanted = WantedDevice("later", trial_device.KIND, {"io": 0x800}, state=ahead)
    (added,) = rig.say(blank(Add, data=msgpack.packb(asdict(wanted))))
    assert isinstance(added, Added)
    assert added.status == Status.REFUSED
    assert b"VM time" in added.data
    assert isinstance(rig.say(read(COUNT, 8))[0], Feedback)
