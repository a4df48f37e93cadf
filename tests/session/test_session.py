"""One VM's session, with no sockets: the handshake, accesses, and what a server may refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from session_rig import (
    BASE,
    IRQ_LINE,
    KEY,
    OTHER_LINE,
    SECOND,
    TRIAL,
    Rig,
    attached,
    error_of,
    feed,
    posted,
    read,
    request,
    write,
)
from trial_device import BIG, COUNT, FAIL, IRQ, ROOM, SIZE, VALUE

from devserver.identity import Identity
from devserver.protocol import codec, limits
from devserver.protocol.connection import blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import (
    Ack,
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Batch,
    Consumed,
    Detach,
    Direction,
    Emit,
    Error,
    Event,
    EventKind,
    Feedback,
    Finish,
    Hello,
    Interrupt,
    Message,
    Ping,
    PolicyRange,
    Pong,
    Request,
    Status,
    WantedDevice,
    Welcome,
    Write,
)


def kinds(said: list[Message]) -> list[type[Any]]:
    return [type(message) for message in said]


def answer(said: list[Message]) -> Any:
    (message,) = said
    return message


# -- the handshake --------------------------------------------------------------------------------


def test_a_client_is_welcomed_with_the_server_s_identity_and_an_id_of_its_own() -> None:
    identity = Identity(server_id=4, name="rack", heartbeat_ns=10, deadline_ns=30)
    welcome = answer(Rig(identity).say(Hello()))
    assert welcome == Welcome(
        limits.PROTOCOL_VERSION,
        4,
        client_id=1,
        epoch=2,
        name="rack",
        heartbeat_ns=10,
        deadline_ns=30,
    )


def test_a_client_that_has_an_id_keeps_it() -> None:
    assert answer(Rig().say(Hello(client_id=77))).client_id == 77


def test_a_vm_is_told_what_it_has_got_and_where() -> None:
    (got,) = Rig(Identity(window=100)).attach(TRIAL)
    region = AttachedRegion("io", 0, BASE, SIZE, [PolicyRange(VALUE, 1, "posted")])
    device = AttachedDevice(1, "trial", TRIAL.kind, 3, [region], ["in", "spare"], ["out"])
    assert got == Attached(vm_id=3, window=100, devices=[device], key=KEY)


def test_a_vm_that_has_an_id_keeps_it() -> None:
    assert answer(Rig().attach(vm_id=55)) == Attached(55, key=KEY)


def test_a_line_that_is_high_from_the_start_is_told_behind_the_answer() -> None:
    said = Rig().attach(replace(TRIAL, options={"raised": True}))
    assert kinds(said) == [Attached, Interrupt]
    assert (said[1].line, said[1].level) == (IRQ_LINE, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        ([WantedDevice("com", "uart16650")], "'com': no device model of kind 'uart16650'; did you"),
        ([TRIAL, replace(TRIAL, name="b")], "'trial' and 'b' both claim port 0x100"),
        ([TRIAL, TRIAL], "two devices are named 'trial'"),
        ([replace(TRIAL, options={"x": 1})], "no option 'x'"),
        ([replace(TRIAL, options={"raised": "yes"})], "raised: expected bool, got 'yes'"),
        ([replace(TRIAL, bases={"oi": 1})], "no region 'oi'"),
        ([replace(TRIAL, bases={"io": 1 << 63})], "outside the address space"),
        ([replace(TRIAL, lines={"rq": 1})], "no interrupt output 'rq'"),
        ([replace(TRIAL, options={"broken": True})], "'trial' .* failed: RuntimeError: broken"),
        ([replace(TRIAL, name=str(n), bases={}) for n in range(257)], "at most 256 devices"),
    ],
)
def test_a_machine_that_can_t_be_built_is_refused(devices: list[WantedDevice], why: str) -> None:
    rig = Rig()
    message = error_of(rig.attach(*devices), ErrorCode.MACHINE)
    assert pytest.raises(AssertionError, match=why).matches(AssertionError(message))
    assert rig.session.finished


def test_a_refusal_has_room_in_its_message_however_much_went_wrong() -> None:
    message = error_of(Rig().attach(replace(TRIAL, options={"broken": True})), ErrorCode.MACHINE)
    assert len(message) == limits.MAX_TEXT_BYTES


def test_a_message_at_a_wrong_time_is_refused() -> None:
    rig = Rig()
    attach = codec.frame(codec.encode(Attach(1)))
    assert "ATTACH received while OPENING" in error_of(rig.carry(attach), ErrorCode.STATE)
    assert rig.session.finished


def test_another_version_is_refused_by_name() -> None:
    message = error_of(Rig().say(Hello(version=1)), ErrorCode.VERSION)
    assert message == "the client speaks version 1 of the protocol, this server version 3"


# -- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_an_in_is_answered_by_a_feedback_with_its_bytes(size: int) -> None:
    rig = attached()
    rig.say(write(COUNT, 0x11223344556677, 8))
    feedback = answer(rig.say(read(COUNT, size)))
    assert isinstance(feedback, Feedback)
    assert (feedback.request, feedback.applied, feedback.status) == (2, 2, Status.OK)
    assert feedback.data == bytes.fromhex("7866554433221100")[:size]


def test_an_out_is_answered_by_a_finish() -> None:
    rig = attached()
    finish = answer(rig.say(write(COUNT, 1)))
    assert isinstance(finish, Finish)
    assert (finish.request, finish.applied, finish.status) == (1, 1, Status.OK)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_string_input_reads_the_register_once_for_each_element(size: int) -> None:
    feedback = answer(attached().say(read(COUNT, size, elements=5)))
    assert feedback.data == b"".join(n.to_bytes(size, "little") for n in range(1, 6))


def test_string_input_of_a_register_that_only_stores_gives_what_it_stores() -> None:
    rig = attached()
    rig.say(write(ROOM, 7))
    assert answer(rig.say(read(ROOM, elements=5))).data == b"\7\7\7\7\7"


def test_string_output_writes_each_element_in_turn() -> None:
    said = attached().say(write(VALUE, 0, data=b"abc", elements=3))
    assert kinds(said) == [Emit, Finish]
    assert said[0].data == b"abc"  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_longest_string_is_taken(size: int) -> None:
    elements = limits.MAX_DATA_BYTES // size
    rig = attached()
    assert len(answer(rig.say(read(COUNT, size, elements=elements))).data) == limits.MAX_DATA_BYTES
    data = bytes(limits.MAX_DATA_BYTES)
    out = request(Direction.OUT, BASE + COUNT, size=size, elements=elements, data=data)
    assert answer(rig.say(out)).status == Status.OK


@pytest.mark.parametrize(
    "mistaken",
    [
        read(VALUE, 3),
        read(VALUE, 0),
        read(VALUE, elements=0),
        read(VALUE, elements=limits.MAX_DATA_BYTES + 1),
        read(COUNT, 8, elements=limits.MAX_DATA_BYTES // 8 + 1),
        read(VALUE, elements=(1 << 32) - 1),
        read(VALUE, data=b"x"),
        write(VALUE, 0, data=b""),
        write(VALUE, 0, data=b"xy"),
        write(VALUE, 0, 2, data=b"x"),
        read(VALUE, direction=2),
    ],
)
def test_a_request_whose_sizes_do_not_fit_is_refused(mistaken: Request) -> None:
    rig = attached()
    assert error_of(rig.say(mistaken), ErrorCode.MALFORMED)
    assert rig.session.finished


@pytest.mark.parametrize(
    "mistaken",
    [
        read(VALUE, device_id=2),
        read(VALUE, device_id=0),
        read(VALUE, device_id=9),
        read(-1),
        read(SIZE - 1, 2),
        read(VALUE, address=(1 << 64) - 1),
        read(VALUE, space=1),
        read(VALUE, space=2),
        blank(Batch, writes=(Write(2, 1, 0, BASE, 1, 0, 0),)),
        blank(Batch, writes=(Write(1, 1, 1, BASE, 1, 0, 0),)),
        blank(Batch, writes=(Write(1, 1, 0, BASE + SIZE - 1, 2, 0, 0),)),
    ],
)
def test_a_device_that_does_not_answer_there_is_refused(mistaken: Request | Batch) -> None:
    rig = attached(TRIAL, SECOND)
    assert "which does not answer there" in error_of(rig.say(mistaken), ErrorCode.DEVICE)
    assert rig.session.finished


def test_what_came_before_a_mistake_is_applied_and_nothing_behind_it() -> None:
    said = attached().say(write(IRQ, 1), read(VALUE, device_id=9), write(IRQ, 0))
    assert kinds(said) == [Interrupt, Finish, Error]
    assert said[1].applied == 1  # type: ignore[union-attr]


def test_an_answer_acknowledges_what_was_applied_and_nothing_behind_it() -> None:
    said = attached().say(read(COUNT), read(COUNT), read(COUNT))
    assert [message.applied for message in said] == [1, 2, 3]  # type: ignore[union-attr]


# -- what a request causes ------------------------------------------------------------------------


def test_an_interrupt_stands_before_the_answer_of_what_caused_it() -> None:
    said = attached().say(write(IRQ, 1))
    assert kinds(said) == [Interrupt, Finish]


def test_the_changes_of_each_line_are_numbered() -> None:
    rig = attached()
    said = [message for value in (1, 3, 0) for message in rig.say(write(IRQ, value))[:-1]]
    assert all(isinstance(message, Interrupt) for message in said)
    changes = [(m.line, m.level, m.number) for m in said]  # type: ignore[union-attr]
    one, two = IRQ_LINE, OTHER_LINE
    assert changes == [(one, 1, 1), (two, 1, 1), (one, 0, 2), (two, 0, 2)]


def test_outputs_on_one_line_are_ored() -> None:
    rig = attached(TRIAL, SECOND)
    second = BASE + SIZE + IRQ

    def drive(device_id: int, address: int, value: int) -> list[Message]:
        out = request(Direction.OUT, address, device_id=device_id, data=bytes((value,)))
        return rig.say(out)

    assert kinds(drive(1, BASE + IRQ, 1)) == [Interrupt, Finish]
    assert kinds(drive(2, second, 1)) == [Finish]
    assert kinds(drive(1, BASE + IRQ, 0)) == [Finish]
    assert kinds(drive(2, second, 0)) == [Interrupt, Finish]


def test_long_output_is_split() -> None:
    said = attached().say(write(BIG, 40))
    assert [len(m.data) for m in said[:-1]] == [16384, 16384, 7232]  # type: ignore[union-attr]
    assert kinds(said) == [Emit, Emit, Emit, Finish]


def test_much_output_is_put_into_several_frames() -> None:
    rig = attached()
    answers = rig.session.receive(rig.client.send(*[write(BIG, 255)] * 9), rig.now_ns)
    assert len(answers) > 2 * limits.MAX_FRAME_BYTES
    emitted = [message for message in rig.client.receive(answers) if isinstance(message, Emit)]
    assert sum(len(message.data) for message in emitted) == 9 * 255_000


def test_a_guest_s_exit_is_an_event_with_its_status() -> None:
    rig = attached(WantedDevice("exit", "debugexit", {"io": BASE}))
    event, finish = rig.say(write(0, 0x2A, 4))
    assert isinstance(event, Event)
    assert (event.device_id, event.kind, event.value) == (1, EventKind.EXIT, 42)
    assert isinstance(finish, Finish)


# -- posted writes --------------------------------------------------------------------------------


def test_posted_writes_are_applied_in_order_and_not_answered() -> None:
    said = attached().say(posted(VALUE, 1, 2, 3))
    assert [message.data for message in said] == [b"\1\2\3"]  # type: ignore[union-attr]


def test_a_read_behind_posted_writes_sees_them_applied() -> None:
    said = attached().say(posted(VALUE, 1, 9), read(VALUE))
    assert said[-1].data == b"\x09"  # type: ignore[union-attr]


def test_a_value_wider_than_its_write_is_cut() -> None:
    said = attached().say(blank(Batch, writes=(Write(1, 1, 0, BASE + VALUE, 1, 0, 0x1FF),)))
    assert answer(said).data == b"\xff"


def test_a_posted_write_of_a_strange_size_is_refused() -> None:
    said = attached().say(blank(Batch, writes=(Write(1, 1, 0, BASE + COUNT, 3, 0, 0),)))
    assert error_of(said, ErrorCode.MALFORMED)


@pytest.mark.parametrize(("window", "every"), [(4096, 512), (100, 25), (4, 1), (1, 1)])
def test_posted_writes_are_acknowledged_long_before_the_window_is_full(
    window: int, every: int
) -> None:
    rig = attached(identity=Identity(window=window))
    for _ in range(every - 1):
        assert rig.say(posted(ROOM, 0)) == []
    assert rig.say(posted(ROOM, 0)) == [Ack(every)]
    assert kinds([m for _ in range(every) for m in rig.say(posted(ROOM, 0))]) == [Ack]


def test_more_writes_than_the_window_allows_are_refused() -> None:
    rig = attached(identity=Identity(window=10))
    assert rig.say(posted(ROOM, *[0] * 6)) == [Ack(1)]
    said = rig.say(posted(ROOM, *[0] * 6), posted(ROOM, *[0] * 6))
    assert kinds(said) == [Ack, Error]
    assert error_of(said[1:], ErrorCode.WINDOW) == (
        "12 posted writes are not acknowledged; the window is 10"
    )


@pytest.mark.parametrize("between", [read(COUNT), Ping(1), write(IRQ, 1)])
def test_whatever_acknowledges_opens_the_window_again(between: Message) -> None:
    rig = attached(identity=Identity(window=10))
    for _ in range(4):
        rig.say(posted(ROOM, 0))  # too few for an ACK of their own, some of them
        assert not isinstance(rig.say(posted(ROOM, *[0] * 5), between)[-1], Error)


def test_a_long_batch_is_acknowledged_at_once() -> None:
    assert attached().say(posted(ROOM, *[0] * limits.MAX_BATCH_WRITES)) == [Ack(1)]


# -- bytes from the world -------------------------------------------------------------------------


def test_a_client_is_told_how_much_a_device_has_taken() -> None:
    rig = attached()
    assert rig.say(feed(b"abc")) == []  # no room yet
    said = rig.say(write(ROOM, 2)) + rig.say(write(ROOM, 9))
    assert kinds(said) == [Consumed, Finish, Consumed, Finish]
    assert [message.total for message in said[::2]] == [2, 3]  # type: ignore[union-attr]


def test_the_end_of_input_reaches_the_device_behind_the_last_byte() -> None:
    rig = attached()
    assert rig.say(feed(b"abc", end=1)) == []
    said = rig.say(write(ROOM, 3))
    assert kinds(said) == [Emit, Consumed, Finish]
    assert said[0].data == b"end of in"  # type: ignore[union-attr]


def test_an_end_with_nothing_before_it_reaches_the_device_at_once() -> None:
    assert answer(attached().say(feed(b"", channel=1, end=1))).data == b"end of spare"


@pytest.mark.parametrize("wrong", [{"device_id": 2}, {"device_id": 0}, {"channel": 2}])
def test_bytes_for_a_channel_that_is_not_there_are_refused(wrong: dict[str, int]) -> None:
    assert "which is not there" in error_of(attached().say(feed(b"a", **wrong)), ErrorCode.DEVICE)


def test_a_client_that_feeds_far_beyond_its_credit_is_refused() -> None:
    rig = attached()
    full = feed(bytes(limits.MAX_FEED_BYTES))
    said = [message for _ in range(17) for message in rig.say(full)]
    assert "bytes are waiting on 'in'" in error_of(said, ErrorCode.MALFORMED)


def test_the_credit_that_a_client_has_fits_what_a_server_holds() -> None:
    rig = attached()
    parts = limits.FEED_WINDOW_BYTES // limits.MAX_FEED_BYTES
    assert [rig.say(feed(bytes(limits.MAX_FEED_BYTES))) for _ in range(parts)] == [[]] * parts


# -- a model that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [read(FAIL), write(FAIL, 1), read(FAIL, elements=3)])
def test_a_model_s_failure_is_told_before_the_answer_that_it_spoils(failing: Request) -> None:
    rig = attached()
    event, answered = rig.say(failing)
    assert isinstance(event, Event)
    assert event.kind == EventKind.FAULT
    assert event.text.startswith("device 'trial' (session-trial) failed: ")
    assert "Traceback" in event.text
    assert answered.status == Status.FAULT  # type: ignore[union-attr]
    assert getattr(answered, "data", b"") == b""


def test_after_a_failure_nothing_is_applied_any_more() -> None:
    rig = attached(TRIAL, SECOND)
    rig.say(read(FAIL))
    said = rig.say(
        write(IRQ, 1), read(COUNT), posted(VALUE, 1), feed(b"a"), read(COUNT, elements=2)
    )
    assert kinds(said) == [Finish, Feedback, Feedback]
    assert {message.status for message in said} == {Status.FAULT}  # type: ignore[union-attr]
    assert not rig.session.finished


def test_a_failure_in_a_batch_drops_the_writes_behind_it() -> None:
    said = attached().say(
        blank(Batch, writes=tuple(Write(1, 1, 0, BASE + at, 1, 0, 1) for at in (VALUE, FAIL, IRQ)))
    )
    assert kinds(said) == [Emit, Event]


def test_a_failure_harms_no_other_session() -> None:
    one, two = attached(), attached()
    one.say(read(FAIL))
    assert answer(two.say(read(COUNT))).data == b"\x01"


# -- keeping alive and ending ---------------------------------------------------------------------


def test_a_ping_is_answered_behind_what_came_before_it() -> None:
    assert attached().say(posted(ROOM, 1), Ping(5)) == [Pong(5, 1)]


def test_a_session_asks_for_a_sign_of_life_once_it_has_a_peer() -> None:
    rig = Rig()
    assert rig.session.ping() == b""
    rig.say(Hello())
    assert rig.client.receive(rig.session.ping()) == [Ping(0)]


@pytest.mark.parametrize("last", [blank(Detach), Error("internal", "the client gave up")])
def test_a_client_that_ends_its_session_gets_no_answer(last: Message) -> None:
    rig = attached()
    assert rig.say(last) == []
    assert rig.session.finished
    assert rig.session.end(ErrorCode.SHUTDOWN, "too late") == b""


def test_a_server_that_ends_a_session_says_why_once() -> None:
    rig = attached()
    said = rig.client.receive(rig.session.end(ErrorCode.SHUTDOWN, "the server is being shut down"))
    assert error_of(said, ErrorCode.SHUTDOWN) == "the server is being shut down"
    assert rig.session.finished
    assert rig.session.end(ErrorCode.TIMEOUT, "again") == b""
