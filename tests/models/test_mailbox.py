"""The doorbell and mailbox, register by register."""

from __future__ import annotations

import pytest

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import BoardError, Bus
from devserver.machine.message_bus import MessageBus, VmPort
from devserver.models import Space
from devserver.models.mailbox import DEPTH, MAGIC, NOBODY, Enable, Offset, Status

BASE = 0x300
WIDTHS = {
    Offset.SIGNATURE: 4,
    Offset.DOORBELL: 4,
    Offset.DATA: 4,
    Offset.ACCEPTED: 4,
    Offset.PRESENT: 4,
}


class Guest:
    """A machine with a mailbox, as its guest sees it."""

    def __init__(self, message_bus: MessageBus, member: int, box: str = "pair") -> None:
        self.interrupt = False
        self.message_bus = message_bus
        options: dict[str, object] = {"box": box, "member": member}
        wiring = DeviceWiring(
            name="mail", kind="mailbox", bases={"": BASE}, lines={"": 5}, options=options
        )
        self.bus = Bus([wiring], self, vm_port=VmPort(message_bus))
        self.bus.vm_port.on_message = lambda: self.bus.deliver_messages(0)

    def read(self, register: Offset) -> int:
        return self.bus.read(Space.PORT, BASE + register, WIDTHS.get(register, 1), 0)

    def write(self, register: Offset, value: int) -> None:
        self.bus.write(Space.PORT, BASE + register, WIDTHS.get(register, 1), value, 0)
        self.message_bus.deliver()

    def status(self) -> Status:
        return Status(self.read(Offset.STATUS))

    def send(self, *words: int, to: int) -> None:
        self.write(Offset.PEER, to)
        for word in words:
            self.write(Offset.DATA, word)

    def line(self, line: int, level: bool) -> None:
        self.interrupt = level

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        raise AssertionError("it says nothing to the world")

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        raise AssertionError("it takes nothing from the world")

    def signal(self, device_id: int, signal: object, value: int) -> None:
        raise AssertionError("it asks nothing of the machine")


@pytest.fixture
def pair() -> tuple[Guest, Guest]:
    """Members 1 and 2 of a box."""
    message_bus = MessageBus()
    return Guest(message_bus, 1), Guest(message_bus, 2)


Pair = tuple[Guest, Guest]


def test_a_guest_finds_the_device_and_its_own_number(pair: Pair) -> None:
    assert pair[1].read(Offset.SIGNATURE) == MAGIC
    assert [guest.read(Offset.SELF) for guest in pair] == [1, 2]


def test_present_has_a_bit_for_each_other_member(pair: Pair) -> None:
    third = Guest(pair[0].message_bus, 31)
    assert pair[0].read(Offset.PRESENT) == 1 << 2 | 1 << 31
    third.bus.vm_port.leave()
    assert pair[0].read(Offset.PRESENT) == 1 << 2


def test_a_peer_is_a_number_of_five_bits(pair: Pair) -> None:
    pair[0].write(Offset.PEER, 0xE2)
    assert pair[0].read(Offset.PEER) == 2


# -- the doorbell -----------------------------------------------------------------------------


def test_a_ring_sets_the_sender_s_bit_at_the_peer_alone(pair: Pair) -> None:
    one, two = pair
    three = Guest(one.message_bus, 3)
    one.write(Offset.PEER, 2)
    one.write(Offset.RING, 0)
    assert [guest.read(Offset.DOORBELL) for guest in (one, two, three)] == [0, 1 << 1, 0]


def test_a_bit_of_the_doorbell_is_cleared_by_writing_1_to_it(pair: Pair) -> None:
    one, two = pair
    three = Guest(one.message_bus, 3)
    for guest in (one, three):
        guest.write(Offset.PEER, 2)
        guest.write(Offset.RING, 0)
    two.write(Offset.DOORBELL, 1 << 1)
    assert two.read(Offset.DOORBELL) == 1 << 3


def test_a_ring_interrupts_if_that_is_enabled_and_until_it_is_cleared(pair: Pair) -> None:
    one, two = pair
    one.write(Offset.PEER, 2)
    one.write(Offset.RING, 0)
    assert not two.interrupt
    two.write(Offset.ENABLE, Enable.DOORBELL)
    assert two.interrupt
    assert Status.INTERRUPT in two.status()
    two.write(Offset.DOORBELL, 1 << 1)
    assert not two.interrupt
    assert Status.INTERRUPT not in two.status()


@pytest.mark.parametrize("peer", [1, 9])
def test_nobody_can_be_rung_who_is_not_there_and_not_oneself(pair: Pair, peer: int) -> None:
    one, _ = pair
    one.write(Offset.PEER, peer)
    one.write(Offset.RING, 0)
    assert one.status() == Status.REFUSED
    one.write(Offset.STATUS, Status.REFUSED)
    assert one.status() == 0


# -- the mailbox ------------------------------------------------------------------------------


def test_words_come_out_in_the_order_in_which_they_were_sent(pair: Pair) -> None:
    one, two = pair
    three = Guest(one.message_bus, 3)
    one.send(0xDEADBEEF, 2, to=2)
    three.send(3, to=2)
    assert two.read(Offset.COUNT) == 3
    got = [(two.read(Offset.SENDER), two.read(Offset.DATA)) for _ in range(3)]
    assert got == [(1, 0xDEADBEEF), (1, 2), (3, 3)]
    assert (two.read(Offset.SENDER), two.read(Offset.DATA)) == (NOBODY, 0)


def test_a_word_interrupts_if_that_is_enabled_and_until_all_are_read(pair: Pair) -> None:
    one, two = pair
    two.write(Offset.ENABLE, Enable.READY)
    one.send(1, 2, to=2)
    assert two.interrupt
    two.read(Offset.DATA)
    assert two.interrupt
    two.read(Offset.DATA)
    assert not two.interrupt
    assert two.status() == 0


def test_a_word_that_there_is_no_room_for_is_refused_at_the_sender(pair: Pair) -> None:
    one, two = pair
    one.send(*range(DEPTH), to=2)
    assert one.status() == Status.PEER_PRESENT | Status.PEER_FULL
    assert Status.FULL in two.status()
    one.write(Offset.DATA, 99)
    assert Status.REFUSED in one.status()
    assert one.read(Offset.ACCEPTED) == two.read(Offset.COUNT) == DEPTH


def test_after_a_refusal_no_word_is_taken_until_it_is_cleared(pair: Pair) -> None:
    one, two = pair
    one.send(*range(DEPTH + 1), to=2)
    two.read(Offset.DATA)
    one.write(Offset.DATA, 100)
    assert one.read(Offset.ACCEPTED) == DEPTH, "or words could be missing in the middle"
    one.write(Offset.STATUS, Status.REFUSED)
    one.write(Offset.DATA, 16)
    assert [two.read(Offset.DATA) for _ in range(DEPTH)] == list(range(1, DEPTH + 1))


def test_a_ring_gets_through_to_a_full_mailbox(pair: Pair) -> None:
    one, two = pair
    one.send(*range(DEPTH), to=2)
    one.write(Offset.RING, 0)
    assert two.read(Offset.DOORBELL) == 1 << 1
    assert Status.REFUSED not in one.status()


def test_words_that_wait_on_their_way_take_their_room_too(pair: Pair) -> None:
    one, two = pair
    two.bus.vm_port.on_message = lambda: None  # its time stands
    one.send(*range(DEPTH + 5), to=2)
    assert one.read(Offset.ACCEPTED) == DEPTH
    two.bus.deliver_messages(0)
    assert two.read(Offset.COUNT) == DEPTH


# -- the rest ---------------------------------------------------------------------------------


def test_a_reset_empties_the_mailbox_and_leaves_the_device_in_its_box(pair: Pair) -> None:
    one, two = pair
    two.write(Offset.ENABLE, Enable.READY)
    one.send(1, to=2)
    two.bus.reset()
    assert (two.interrupt, two.read(Offset.COUNT)) == (False, 0)
    one.send(5, to=2)
    assert two.read(Offset.DATA) == 5


@pytest.mark.parametrize("member", [-1, 32])
def test_a_member_number_beyond_the_range_is_refused(member: int) -> None:
    with pytest.raises(BoardError, match="members are numbered"):
        Guest(MessageBus(), member)


def test_a_number_that_another_machine_has_is_refused(pair: Pair) -> None:
    with pytest.raises(BoardError, match="device 'mail': member 2 of box 'pair' is taken already"):
        Guest(pair[0].message_bus, 2)


def test_without_a_box_it_is_alone() -> None:
    message_bus = MessageBus()
    one, _two = Guest(message_bus, 0, box=""), Guest(message_bus, 0, box="")
    one.send(1, to=0)
    assert (one.read(Offset.PRESENT), one.status()) == (0, Status.REFUSED)
