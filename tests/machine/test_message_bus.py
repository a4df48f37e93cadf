"""Devices of different machines that talk through a message_bus."""

from __future__ import annotations

import msgpack
import pytest
from talker import BASE, LATER, MS, ONCE, POST, Place, Talker, wired

from devserver.machine.bus import BoardError, Bus, DeviceFault
from devserver.machine.message_bus import MAIL_LIMIT, MessageBus, VmPort
from devserver.models import Context, catalog
from devserver.models.device import StateError


@pytest.fixture(autouse=True, scope="module")
def _known() -> None:
    catalog.register(Talker)


@pytest.fixture
def message_bus() -> MessageBus:
    return MessageBus()


def test_every_other_member_hears_a_message_at_a_time_of_its_own(message_bus: MessageBus) -> None:
    one, two, three = (Place(message_bus, n, now_ns=1000 * n) for n in (1, 2, 3))
    two.write(POST, 0x42)
    message_bus.deliver()
    assert (one.heard(), two.heard(), three.heard()) == ([(2, 0x42, 1000)], [], [(2, 0x42, 3000)])


def test_the_sender_is_told_at_once_who_will_hear_it(message_bus: MessageBus) -> None:
    one, _two, _four = Place(message_bus, 1), Place(message_bus, 2), Place(message_bus, 4)
    one.write(POST, 0x42)
    assert one.said == [bytes((2, 4))]


def test_nothing_is_heard_before_the_access_is_over(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    one.write(POST, 0x42)
    assert two.heard() == []
    message_bus.deliver()
    assert len(two.heard()) == 1


def test_devices_of_one_machine_hear_each_other_too(message_bus: MessageBus) -> None:
    both = Place(message_bus, 1, 2)
    both.write(POST, 0x42)
    message_bus.deliver()
    assert both.heard() == [(1, 0x42, 0)]


def test_messages_to_a_machine_are_heard_in_the_order_in_which_they_were_posted(
    message_bus: MessageBus,
) -> None:
    one, two, both = Place(message_bus, 1), Place(message_bus, 2), Place(message_bus, 3, 4)
    for sender, byte in ((one, 10), (two, 20), (one, 11)):
        sender.write(POST, byte)
    message_bus.deliver()
    assert [byte for _, byte, _ in both.heard()] == [10, 10, 20, 20, 11, 11]


def test_what_a_device_does_on_hearing_is_done_in_its_own_machine(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    one.write(POST, 0xFD)
    message_bus.deliver()
    assert (one.lines, two.lines) == ([], [(5, True)])


def test_boxes_of_different_names_know_nothing_of_each_other(message_bus: MessageBus) -> None:
    one = Place(message_bus, 1)
    other = Bus([wired(1, box="other")], one, vm_port=VmPort(message_bus))
    one.write(POST, 0x42)
    message_bus.deliver()
    assert one.said == [b""]
    assert not other.vm_port.mail


def test_a_deadline_that_has_come_is_kept_before_a_message_is_heard(
    message_bus: MessageBus,
) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    two.write(LATER, 1)
    two.now_ns = 2 * MS
    one.write(POST, 0x42)
    message_bus.deliver()
    assert two.heard() == [(1, 0x42, 2 * MS)]
    assert one.heard() == [(2, 7, 0)], "posted by the deadline"


# -- bounds -----------------------------------------------------------------------------------


def test_a_machine_that_hears_nothing_is_sent_no_more_than_it_has_room_for(
    message_bus: MessageBus,
) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    for _ in range(1000):
        one.write(POST, 0x42)
    assert [bytes((2,))] * 4 + [b""] * 996 == one.said
    assert len(two.bus.vm_port.mail) == 4


def test_room_is_there_again_when_the_device_has_made_some(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    for _ in range(4):
        one.write(POST, 0x42)
    message_bus.deliver()
    one.said.clear()
    one.write(POST, 0x42)
    two.bus.read(0, BASE, 1, 0)  # type: ignore[arg-type]
    one.write(POST, 0x42)
    assert one.said == [b"", bytes((2,))]


def test_a_message_of_which_one_suffices_waits_once_and_needs_no_room(
    message_bus: MessageBus,
) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    for _ in range(4):
        one.write(POST, 0x42)
    for _ in range(1000):
        one.write(ONCE, 0x43)
    assert one.said[4:] == [bytes((2,))] * 1000
    assert len(two.bus.vm_port.mail) == 5


def test_even_such_messages_are_bounded(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    seat = one.bus.slots[1].device.seat  # type: ignore[attr-defined]
    for number in range(1000):
        seat.post(number.to_bytes(2, "big"), once=True)
    assert len(two.bus.vm_port.mail) == MAIL_LIMIT


# -- failures ---------------------------------------------------------------------------------


def test_a_model_that_fails_on_hearing_fails_in_its_own_machine(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    one.write(POST, 0xFF)
    with pytest.raises(DeviceFault, match=r"'talker2' .* ZeroDivisionError: on hearing"):
        two.bus.deliver_messages(0)


def test_a_model_may_not_post_while_it_hears(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    one.write(POST, 0xFE)
    with pytest.raises(DeviceFault, match="posts a message while it hears one"):
        two.bus.deliver_messages(0)
    two.write(POST, 1)
    assert two.said == [bytes((1,))], "later it may"


# -- coming and going -------------------------------------------------------------------------


def test_a_number_that_is_taken_is_refused_with_the_name_of_the_vm_that_has_it(
    message_bus: MessageBus,
) -> None:
    first = Place(message_bus, 1, name="ping")
    with pytest.raises(
        BoardError, match="device 'talker1': member 1 of box 'box' is taken already, by VM 'ping'"
    ):
        Place(message_bus, 1)
    first.bus.vm_port.leave()
    Place(message_bus, 1)


@pytest.mark.parametrize(
    ("member", "box", "why"),
    [
        (32, "box", "numbered from 0 to 31"),
        (-1, "box", "numbered from 0 to 31"),
        (0, "", "a name of 1 to 64 characters"),
        (0, "b" * 65, "a name of 1 to 64 characters"),
    ],
)
def test_what_can_be_no_place_is_refused(
    message_bus: MessageBus, member: int, box: str, why: str
) -> None:
    with pytest.raises(BoardError, match=why):
        Bus([wired(member, box=box)], Place(message_bus), vm_port=VmPort(message_bus))


def test_a_machine_that_could_not_be_built_is_in_no_box(message_bus: MessageBus) -> None:
    sink = Place(message_bus)
    with pytest.raises(BoardError, match="both claim"):
        Bus([wired(1), wired(2)], sink, vm_port=VmPort(message_bus))
    assert not message_bus.members_of("box")


def test_a_device_that_is_taken_out_leaves_its_box_and_its_mail(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2, 3)
    one.write(POST, 0x42)
    two.bus.remove(1)
    message_bus.deliver()
    assert len(two.heard()) == 1
    assert sorted(message_bus.members_of("box")) == [1, 3]


def test_a_device_that_is_plugged_in_joins_its_box(message_bus: MessageBus) -> None:
    one = Place(message_bus, 1)
    one.bus.add(wired(2, BASE + 3))
    one.write(POST, 0x42)
    message_bus.deliver()
    assert len(one.heard()) == 1


# -- snapshots --------------------------------------------------------------------------------


def test_what_waits_for_a_machine_is_in_its_snapshot(message_bus: MessageBus) -> None:
    one, two = Place(message_bus, 1), Place(message_bus, 2)
    one.write(POST, 0x42)
    saved = msgpack.unpackb(msgpack.packb(two.bus.save()))
    message_bus.deliver()
    two.heard()
    two.bus.load(saved)
    message_bus.deliver()
    assert two.heard() == [(1, 0x42, 0)]


@pytest.mark.parametrize("mail", [[[1]], [[1, "text"]], [[32, b"x"]], [[-1, b"x"]], 5, [5]])
def test_a_snapshot_with_damaged_mail_is_refused(message_bus: MessageBus, mail: object) -> None:
    place = Place(message_bus, 1)
    saved = place.bus.save()
    saved["slots"][0]["mail"] = mail
    with pytest.raises(StateError, match="damaged"):
        place.bus.load(saved)


def test_a_device_with_nobody_around_it_posts_to_nobody() -> None:
    alone = Talker(Context())
    assert alone.seat.others() == ()
    assert alone.seat.post(b"x") == ()
    assert alone.seat.room_of(2) == 0
