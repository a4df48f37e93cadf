"""Devices that are saved, taken away, added, left behind and adopted, with no sockets."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_rig import BASE, IRQ_LINE, KEY, TRIAL, Rig, attached, error_of, feed, read, write
from trial_device import COUNT, DELAY, IRQ, ROOM, TIME, VALUE

from devserver.protocol.connection import blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.limits import MAX_TIME_JUMP_NS
from devserver.protocol.messages import (
    Add,
    Added,
    Attached,
    Consumed,
    Detach,
    Feedback,
    Finish,
    Interrupt,
    Message,
    Save,
    State,
    Status,
    WantedDevice,
)
from devserver.session.vm_table import VmTable

MS = 1_000_000


def state_of(rig: Rig, *, remove: bool = False, time_ns: int = 0) -> bytes:
    answer = rig.say(blank(Save, device_id=1, remove=int(remove), time_ns=time_ns))[-1]
    assert isinstance(answer, State)
    assert answer.status == Status.OK
    return answer.data


def added(rig: Rig, wanted: WantedDevice, time_ns: int = 0) -> list[Message]:
    return rig.say(blank(Add, data=msgpack.packb(asdict(wanted)), time_ns=time_ns))


def value_of(said: list[Message]) -> int:
    (answer,) = [message for message in said if isinstance(message, Feedback)]
    return int.from_bytes(answer.data, "little")


def levels(said: list[Message]) -> list[tuple[int, int]]:
    return [(m.line, m.level) for m in said if isinstance(m, Interrupt)]


# -- a state that goes along ----------------------------------------------------------------------


def test_a_device_with_a_state_goes_on_where_the_other_stood() -> None:
    first = attached()
    for _ in range(3):
        first.say(read(COUNT, 8))
    second = attached(replace(TRIAL, state=state_of(first)))
    assert value_of(second.say(read(COUNT, 8))) == 4


@pytest.mark.parametrize("age_ns", [1000 * MAX_TIME_JUMP_NS, (1 << 62) - 1, (1 << 64) - 1])
def test_a_device_may_be_old_when_it_is_attached(age_ns: int) -> None:
    old = Rig()
    old.attach(TRIAL)
    state = msgpack.unpackb(state_of(old))
    rig = Rig()
    rig.attach(replace(TRIAL, state=msgpack.packb(state | {"now_ns": age_ns})))
    latest_ns = min(age_ns, 1 << 62)
    rig.clock(time_ns=latest_ns)
    assert levels(rig.say(write(IRQ, 1, time_ns=latest_ns))) == [(IRQ_LINE, 1)]


def test_a_line_that_was_high_is_told_again() -> None:
    first = attached()
    first.say(write(IRQ, 1))
    said = Rig().attach(replace(TRIAL, state=state_of(first)))
    assert levels(said) == [(IRQ_LINE, 1)]


def test_a_deadline_comes_at_its_vm_time_on_the_other_side() -> None:
    first = attached()
    first.clock(0)
    first.say(write(DELAY, 5))
    second = attached(replace(TRIAL, state=state_of(first, time_ns=2 * MS)))
    second.clock(2 * MS)
    assert levels(second.advance(2 * MS)) == []
    assert levels(second.advance(1 * MS)) == [(IRQ_LINE, 1)]


def test_bytes_that_were_fed_and_not_taken_go_along_and_are_not_counted_again() -> None:
    first = attached()
    first.say(feed(b"abc"))
    second = attached(replace(TRIAL, state=state_of(first)))
    assert not [m for m in second.say(write(ROOM, 3)) if isinstance(m, Consumed)]
    second.say(feed(b"de"))
    (told,) = [m for m in second.say(write(ROOM, 9)) if isinstance(m, Consumed)]
    assert told.total == 2


@pytest.mark.parametrize("state", [b"\xc0", b"nonsense", b"\x81\xa4name\xa5other", b"\x80"])
def test_a_state_that_is_none_is_refused_with_the_device_s_name(state: bytes) -> None:
    why = error_of(Rig().attach(replace(TRIAL, state=state)), ErrorCode.MACHINE)
    assert "device 'trial'" in why


@given(st.binary(max_size=60))
def test_no_bytes_do_harm_as_a_state(state: bytes) -> None:
    rig = attached()
    said = added(rig, replace(TRIAL, name="two", bases={"io": 0x900}, state=state))
    assert isinstance(said[-1], Added)
    assert value_of(rig.say(read(COUNT, 8))) == 1


# -- devices that come and go in the middle of a session ------------------------------------------


def test_a_device_that_is_taken_away_does_not_answer_any_more() -> None:
    rig = attached()
    state_of(rig, remove=True)
    assert error_of(rig.say(read(COUNT, 8)), ErrorCode.DEVICE)


def test_a_device_that_is_taken_away_drives_no_line_any_more() -> None:
    rig = attached()
    rig.say(write(IRQ, 1))
    said = rig.say(blank(Save, device_id=1, remove=1))
    assert levels(said) == [(IRQ_LINE, 0)]


def test_a_device_comes_back_under_another_number_and_as_it_was() -> None:
    rig = attached()
    rig.say(read(COUNT, 8))
    said = added(rig, replace(TRIAL, state=state_of(rig, remove=True)))
    assert isinstance(said[-1], Added)
    assert msgpack.unpackb(said[-1].data)["device_id"] == 2
    assert value_of(rig.say(read(COUNT, 8, device_id=2))) == 2


def test_a_device_that_clashes_is_not_added_and_harms_nothing() -> None:
    rig = attached()
    (answer,) = added(rig, replace(TRIAL, name="two"))
    assert isinstance(answer, Added)
    assert answer.status == Status.REFUSED
    assert b"both claim" in answer.data
    assert value_of(rig.say(read(COUNT, 8))) == 1


def test_a_device_that_is_not_there_can_not_be_saved() -> None:
    (answer,) = attached().say(blank(Save, device_id=9))
    assert isinstance(answer, State)
    assert answer.status == Status.NO_DEVICE


# -- devices left behind --------------------------------------------------------------------------


class Host:
    """Several sessions of one host."""

    def __init__(self) -> None:
        self.vms = VmTable(itertools.count(100).__next__, make_key=lambda: KEY)

    def rig(self) -> Rig:
        return Rig(vms=self.vms)


def left_behind(host: Host, *before: Message, time_ns: int = 0) -> None:
    rig = host.rig()
    rig.attach(TRIAL, vm_id=7)
    for message in before:
        rig.say(message)
    rig.say(blank(Detach, keep=1, time_ns=time_ns))
    rig.session.close()


def test_devices_that_are_left_behind_are_there_for_who_has_the_key() -> None:
    host = Host()
    left_behind(host, write(IRQ, 1), read(COUNT, 8))
    rig = host.rig()
    said = rig.attach(vm_id=7, key=KEY)
    assert isinstance(said[0], Attached)
    assert [device.name for device in said[0].devices] == ["trial"]
    assert levels(said) == [(IRQ_LINE, 1)]
    assert value_of(rig.say(read(COUNT, 8))) == 2


def test_the_adopter_s_numbers_are_its_own() -> None:
    host = Host()
    left_behind(host, write(VALUE, 3), write(VALUE, 4))
    rig = host.rig()
    rig.attach(vm_id=7, key=KEY)
    (answer,) = rig.say(write(ROOM, 1))
    assert isinstance(answer, Finish)
    assert (answer.seq, answer.request) == (1, 1)


CLAIMS = [
    {"vm_id": 7, "key": "guessed"},
    {"vm_id": 7, "key": "schlüssel"},
    {"vm_id": 8, "key": KEY},
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_nobody_else_gets_them(claim: dict[str, Any]) -> None:
    host = Host()
    left_behind(host)
    assert error_of(host.rig().attach(**claim), ErrorCode.IDENTITY)
    assert isinstance(host.rig().attach(vm_id=7, key=KEY)[0], Attached)


def test_they_are_adopted_once() -> None:
    host = Host()
    left_behind(host)
    host.rig().attach(vm_id=7, key=KEY)
    assert error_of(host.rig().attach(vm_id=7, key=KEY), ErrorCode.IDENTITY)


def test_they_can_be_left_behind_again_and_again() -> None:
    host = Host()
    left_behind(host)
    for count in range(1, 5):
        rig = host.rig()
        rig.attach(vm_id=7, key=KEY)
        assert value_of(rig.say(read(COUNT, 8))) == count
        rig.say(blank(Detach, keep=1))
        rig.session.close()


def test_time_stands_for_them_until_they_are_adopted() -> None:
    host = Host()
    left_behind(host, write(DELAY, 5), time_ns=1 * MS)
    rig = host.rig()
    rig.now_ns += 3_000 * MS
    said = rig.attach(vm_id=7, key=KEY)
    assert levels(said) == []
    rig.clock(1 * MS)
    assert value_of(rig.say(read(TIME, 8, time_ns=2 * MS))) == 2 * MS
    assert levels(rig.advance(4 * MS)) == [(IRQ_LINE, 1)]


def test_those_that_nobody_comes_for_go_after_a_while() -> None:
    host = Host()
    left_behind(host)
    until_ns = host.vms.next_expiry_ns()
    assert until_ns is not None
    assert host.vms.expire(until_ns - 1) == []
    assert host.vms.expire(until_ns) == [7]
    assert error_of(host.rig().attach(vm_id=7, key=KEY), ErrorCode.IDENTITY)


def test_a_vm_is_here_once() -> None:
    host = Host()
    host.rig().attach(TRIAL, vm_id=7, vm_name="one")
    why = error_of(host.rig().attach(TRIAL, vm_id=7, vm_name="two"), ErrorCode.IDENTITY)
    assert "VM 7 ('one') has its devices here already" in why


def test_a_vm_whose_client_is_lost_can_come_again() -> None:
    host = Host()
    rig = host.rig()
    rig.attach(TRIAL, vm_id=7)
    rig.session.close()
    assert isinstance(host.rig().attach(TRIAL, vm_id=7)[0], Attached)


def test_a_vm_that_could_not_be_attached_is_not_here() -> None:
    host = Host()
    rig = host.rig()
    rig.attach(replace(TRIAL, kind="nonsense"), vm_id=7)
    rig.session.close()
    assert isinstance(host.rig().attach(TRIAL, vm_id=7)[0], Attached)


def test_a_vm_that_names_no_identifier_gets_one_that_nobody_has() -> None:
    host = Host()
    host.rig().attach(TRIAL, vm_id=100)
    (got,) = host.rig().attach(replace(TRIAL, bases={"io": BASE}))
    assert isinstance(got, Attached)
    assert got.vm_id == 101
