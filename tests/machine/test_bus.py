"""Devices plugged together: decoding, VM time, interrupt lines, faults, feeds, snapshots."""

from __future__ import annotations

from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probe import Probe, Recorder, probe, two_probes

from devserver.machine.board import BOARDS, DeviceWiring
from devserver.machine.bus import FEED_LIMIT_BYTES, BoardError, Bus, DeviceFault
from devserver.models import Space, catalog
from devserver.models.device import StateError

MEMORY_BASE = 0xD000_0000


@pytest.fixture(autouse=True, scope="module")
def probe_kind() -> Iterator[None]:
    """Lets the catalog find the probe in these tests, and in no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.BUNDLED, Probe.kind, "probe:Probe")
        yield


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


@pytest.fixture
def plane(sink: Recorder) -> Bus:
    return two_probes(sink)


def inb(plane: Bus, port: int, now_ns: int = 0) -> int:
    return plane.read(Space.PORT, port, 1, now_ns)


def outb(plane: Bus, port: int, value: int, now_ns: int = 0) -> None:
    plane.write(Space.PORT, port, 1, value, now_ns)


# -- decoding ---------------------------------------------------------------------------------


def test_each_device_answers_at_its_own_ports(plane: Bus) -> None:
    outb(plane, 0x10, 0xA1)
    outb(plane, 0x15, 0xB2)
    assert (inb(plane, 0x10), inb(plane, 0x15)) == (0xA1, 0xB2)


@pytest.mark.parametrize("space", list(Space))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_unclaimed_addresses_read_all_ones_and_swallow_writes(
    plane: Bus, space: Space, size: int
) -> None:
    before = plane.save()
    for address in (0, 0x10 - size, 0x1A, 0xFFFE, 0xFFFF):
        plane.write(space, address, size, 0x1122334455667788, 0)
        assert plane.read(space, address, size, 0) == (1 << 8 * size) - 1
    assert plane.save() == before


def test_a_wide_access_across_two_devices_and_beyond_reaches_each_with_its_bytes(
    sink: Recorder,
) -> None:
    wirings = [
        DeviceWiring(name="p", kind="postcode", bases={"io": 0x80}),
        DeviceWiring(name="q", kind="postcode", bases={"io": 0x81}),
    ]
    plane = Bus(wirings, sink)
    plane.write(Space.PORT, 0x7F, 4, 0x44332211, 0)
    assert [(device, data) for device, _, data in sink.emitted] == [(1, b"\x22"), (2, b"\x33")]
    assert plane.read(Space.PORT, 0x7F, 4, 0) == 0xFF3322FF


def test_a_wide_access_across_the_end_of_port_space_does_not_wrap(sink: Recorder) -> None:
    wirings = [
        DeviceWiring(name="first", kind="postcode", bases={"io": 0}),
        DeviceWiring(name="last", kind="postcode", bases={"io": 0xFFFF}),
    ]
    plane = Bus(wirings, sink)
    plane.write(Space.PORT, 0xFFFF, 2, 0x2211, 0)
    assert plane.read(Space.PORT, 0xFFFF, 2, 0) == 0xFF11
    assert inb(plane, 0) == 0


def test_memory_and_ports_are_separate(sink: Recorder) -> None:
    plane = Bus([probe("a", bases={"io": 0x10, "window": 0x10})], sink)
    plane.write(Space.MEMORY, 0x10, 4, 0x44332211, 0)
    assert plane.read(Space.MEMORY, 0x10, 4, 0) == 0x44332211
    assert plane.read(Space.MEMORY, 0x12, 8, 0) == 0xFFFF_FFFF_FFFF_4433
    assert inb(plane, 0x10) == 0


def test_a_region_that_is_not_wired_is_not_there(sink: Recorder) -> None:
    plane = Bus([probe("a", bases={"window": MEMORY_BASE})], sink)
    assert [(mapped.region.name, mapped.base) for mapped in plane.mapped()] == [
        ("window", MEMORY_BASE)
    ]


@pytest.mark.parametrize("board", BOARDS)
def test_every_board_that_comes_with_us_can_be_built(board: str, sink: Recorder) -> None:
    plane = Bus(BOARDS[board], sink)
    assert len(plane.slots) == len(BOARDS[board])


# -- what cannot be built ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ({"io": 0x10}, {"io": 0x14}, "'a' and 'b' both claim port 0x14;"),
        ({"io": 0x10}, {"io": 0x0D}, "'a' and 'b' both claim port 0x10-0x11;"),
        ({"io": 0x10}, {"io": 0x10}, "'a' and 'b' both claim port 0x10-0x14;"),
        ({"window": 0x100}, {"window": 0x103}, "'a' and 'b' both claim memory address 0x103;"),
    ],
)
def test_an_overlap_is_refused_naming_both_devices_and_the_address(
    one: dict[str, int], two: dict[str, int], message: str
) -> None:
    with pytest.raises(BoardError, match=message):
        Bus([probe("a", bases=one), probe("b", bases=two)], Recorder())


@pytest.mark.parametrize(
    ("wirings", "message"),
    [
        ([probe("a", 0x10), probe("a", 0x20)], "two devices are named 'a'"),
        ([DeviceWiring(name="a", kind="bus-prob")], "'a': no device model of kind"),
        ([probe("a", bases={"oi": 1})], r"'a': kind .* has no region 'oi' \(it has: io, window\)"),
        ([probe("a", 0, lines={"iqr": 1})], r"no interrupt output 'iqr' \(it has: irq, other\)"),
        ([probe("a", 0, options={"mask": 1})], r"'a': .* has no option 'mask'"),
        ([probe("a", 0xFFFC)], "'a': region 'io' at 0xfffc lies outside the address space"),
        ([probe("a", -1)], "'a': region 'io' at -0x1 lies outside the address space"),
    ],
)
def test_wiring_that_fits_no_model_is_refused_naming_the_device(
    wirings: list[DeviceWiring], message: str
) -> None:
    with pytest.raises(BoardError, match=message):
        Bus(wirings, Recorder())


# -- VM time ----------------------------------------------------------------------------------


def test_deadlines_run_in_order_of_time_across_devices(plane: Bus, sink: Recorder) -> None:
    for port, delay_ns in ((0x12, 30), (0x17, 20), (0x12, 10), (0x17, 40)):
        outb(plane, port, delay_ns)
    assert plane.next_deadline_ns() == 10
    plane.advance(30)
    assert sink.expiries == [[1, 10, 10], [2, 20, 20], [1, 30, 30]]
    assert plane.next_deadline_ns() == 40


def test_an_access_lets_happen_first_what_was_due_before_it(plane: Bus, sink: Recorder) -> None:
    outb(plane, 0x17, 20)
    assert inb(plane, 0x17, 19) == 1
    assert inb(plane, 0x17, 20) == 0
    assert sink.expiries == [[2, 20, 20]]
    assert plane.next_deadline_ns() is None


def test_vm_time_never_goes_back(plane: Bus, sink: Recorder) -> None:
    plane.advance(100)
    outb(plane, 0x12, 5, now_ns=50)
    plane.advance(60)
    assert plane.now_ns == 100
    assert plane.next_deadline_ns() == 105


def test_a_model_that_leaves_its_deadline_in_the_past_is_stopped_by_name(sink: Recorder) -> None:
    plane = Bus([probe("lazy", 0x10, options={"stuck": True})], sink)
    outb(plane, 0x12, 5)
    with pytest.raises(DeviceFault, match=r"'lazy' .* left the deadline at 5"):
        plane.advance(10)


# -- interrupt lines --------------------------------------------------------------------------


def test_outputs_on_one_line_are_wired_or(plane: Bus, sink: Recorder) -> None:
    outb(plane, 0x11, 1)
    outb(plane, 0x16, 1)
    outb(plane, 0x11, 0)
    assert sink.lines == [(5, True)]
    outb(plane, 0x16, 0)
    assert sink.lines == [(5, True), (5, False)]


def test_two_outputs_of_one_device_may_share_a_line(plane: Bus, sink: Recorder) -> None:
    for value in (1, 3, 2, 0):
        outb(plane, 0x11, value)
    assert sink.lines == [(5, True), (5, False)]
    assert plane.line_levels() == {5: False}


def test_a_level_that_a_line_already_has_is_not_told_again(plane: Bus, sink: Recorder) -> None:
    for _ in range(3):
        outb(plane, 0x16, 3)
    assert sink.lines == [(5, True), (6, True)]


def test_an_output_that_is_not_wired_goes_nowhere(sink: Recorder) -> None:
    plane = Bus([probe("a", 0x10)], sink)
    outb(plane, 0x11, 3)
    assert sink.lines == []


# -- faults -----------------------------------------------------------------------------------


def test_a_model_that_raises_on_a_read_is_named_with_the_place(plane: Bus) -> None:
    with pytest.raises(DeviceFault, match=r"'b' \(bus-probe\) failed: ZeroDivisionError"):
        inb(plane, 0x19)


def test_a_fault_carries_device_kind_and_traceback(plane: Bus) -> None:
    with pytest.raises(DeviceFault, match=r"probe\.py:\d+") as caught:
        outb(plane, 0x14, 3)
    assert (caught.value.device, caught.value.kind) == ("a", "bus-probe")
    assert "write_fail" in caught.value.details


@pytest.mark.parametrize("moment", ["started", "reset", "advance", "deadline_ns", "feed"])
def test_a_model_that_raises_at_any_other_moment_is_named_too(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of order")

    def use() -> None:
        plane = Bus([probe("a", 0x10)], Recorder())
        outb(plane, 0x12, 10)
        monkeypatch.setattr(Probe, moment, fail)
        plane.feed(1, 0, b"x", 0)
        plane.advance(10)
        plane.reset()

    if moment == "started":
        monkeypatch.setattr(Probe, moment, fail)
    with pytest.raises(DeviceFault, match=r"'a' .*: RuntimeError: out of order"):
        use()


# -- what the world sends ---------------------------------------------------------------------


def received(plane: Bus, device_id: int = 1) -> bytes:
    (saved,) = [slot["device"] for slot in plane.save()["slots"][device_id - 1 : device_id]]
    return bytes(saved["state"]["got"])


def test_what_a_device_cannot_take_is_offered_again_after_it_is_accessed(
    plane: Bus, sink: Recorder
) -> None:
    outb(plane, 0x13, 2)
    plane.feed(1, 0, b"hello", 0)
    assert received(plane) == b"he"
    outb(plane, 0x13, 1)
    assert received(plane) == b"hel"
    outb(plane, 0x13, 10)
    assert received(plane) == b"hello"
    assert sink.totals == [(1, 0, 2), (1, 0, 3), (1, 0, 5)]


def test_what_a_device_cannot_take_is_offered_again_when_its_deadline_comes(
    plane: Bus,
) -> None:
    plane.feed(1, 0, b"x", 0)
    plane.slots[1].device.state.room = 1  # as if the device had made room on its own
    outb(plane, 0x12, 10)
    assert received(plane) == b"x"


def test_the_end_of_input_comes_after_the_last_byte(plane: Bus) -> None:
    plane.feed(1, 0, b"xy", 0, end=True)
    outb(plane, 0x13, 1)
    assert plane.slots[1].device.state.ended is False
    outb(plane, 0x13, 1)
    assert plane.slots[1].device.state.ended is True


def test_bytes_that_wait_are_bounded(plane: Bus) -> None:
    plane.feed(1, 0, bytes(FEED_LIMIT_BYTES), 0)
    with pytest.raises(OverflowError, match=rf"'a': more than {FEED_LIMIT_BYTES} bytes"):
        plane.feed(1, 0, b"x", 0)
    plane.feed(2, 0, b"x", 0)  # the limit is each device's own


def test_a_feed_to_what_is_not_there_is_refused(plane: Bus) -> None:
    with pytest.raises(LookupError):
        plane.feed(3, 0, b"x", 0)
    with pytest.raises(LookupError):
        plane.feed(1, 1, b"x", 0)


# -- snapshots --------------------------------------------------------------------------------


def test_a_twin_restored_from_a_snapshot_goes_on_identically(plane: Bus, sink: Recorder) -> None:
    outb(plane, 0x11, 1, now_ns=3)
    outb(plane, 0x12, 20)
    plane.feed(2, 0, b"waiting", 4, end=True)
    other = Recorder()
    twin = two_probes(other)
    twin.load(msgpack.unpackb(msgpack.packb(plane.save())))
    assert other.lines == []
    assert twin.save() == plane.save()
    assert twin.line_levels() == plane.line_levels()
    assert twin.next_deadline_ns() == plane.next_deadline_ns() == 23
    sink.lines.clear()
    for one in (plane, twin):
        outb(one, 0x18, 9, now_ns=30)
        outb(one, 0x11, 0, now_ns=31)
    assert (other.lines, other.emitted, other.totals) == (sink.lines, sink.emitted, sink.totals)
    assert other.lines == [(5, False)]
    assert received(twin, 2) == b"waiting"


@pytest.mark.parametrize(
    ("wirings", "message"),
    [
        ([probe("a", 0x10)], "snapshot has 2 devices; this machine has 1"),
        ([probe("a", 0x10), probe("c", 0x15)], "snapshot is of 'b', not 'c'"),
        (
            [probe("a", 0x10), DeviceWiring(name="b", kind="postcode", bases={"io": 0x80})],
            "of kind 'bus-probe', not 'postcode'",
        ),
    ],
)
def test_a_snapshot_of_another_machine_is_refused(
    plane: Bus, wirings: list[DeviceWiring], message: str
) -> None:
    with pytest.raises(StateError, match=message):
        Bus(wirings, Recorder()).load(plane.save())


def test_reset_lowers_the_lines_and_makes_every_device_fresh(plane: Bus, sink: Recorder) -> None:
    outb(plane, 0x10, 9)
    outb(plane, 0x16, 3)
    outb(plane, 0x12, 50)
    plane.reset()
    assert plane.line_levels() == {5: False, 6: False}
    assert sink.lines == [(5, True), (6, True), (5, False), (6, False)]
    assert plane.next_deadline_ns() is None
    assert inb(plane, 0x10) == 0


# -- whatever happens -------------------------------------------------------------------------

happenings = st.lists(
    st.one_of(
        st.tuples(st.just("irq"), st.sampled_from([0x11, 0x16]), st.integers(0, 3)),
        st.tuples(st.just("delay"), st.sampled_from([0x12, 0x17]), st.integers(0, 255)),
        st.tuples(st.just("wait"), st.integers(-100, 300), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 0x1F), st.sampled_from([1, 2, 4, 8])),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(steps=happenings)
def test_each_deadline_runs_once_on_time_and_each_line_is_the_or_of_its_outputs(
    steps: list[tuple[str, int, int]],
) -> None:
    sink = Recorder()
    plane = two_probes(sink)
    now_ns, expected, high = 0, [], {0x11: 0, 0x16: 0}
    for step, where, value in steps:
        match step:
            case "irq":
                high[where] = value
                outb(plane, where, value, now_ns)
            case "delay":
                expected.append([1 if where == 0x12 else 2, plane.now_ns + value])
                outb(plane, where, value, now_ns)
            case "wait":
                now_ns = max(0, now_ns + where)
                before_ns = plane.now_ns
                plane.advance(now_ns)
                assert plane.now_ns == max(before_ns, now_ns)
            case "read" if not {0x14, 0x19} & set(range(where, where + value)):
                assert 0 <= plane.read(Space.PORT, where, value, now_ns) < 1 << 8 * value
    plane.advance(plane.now_ns + 256)
    assert sorted(entry[:2] for entry in sink.expiries) == sorted(expected)
    assert all(due_ns == given_ns for _, due_ns, given_ns in sink.expiries)
    assert [due_ns for _, due_ns, _ in sink.expiries] == sorted(due for _, due in expected)
    assert plane.line_levels().get(5, False) == bool(high[0x11] or high[0x16] & 1)
    assert plane.line_levels().get(6, False) == bool(high[0x16] & 2)


@pytest.mark.parametrize("damage", ["now_ns", "lines", "slots"])
def test_a_damaged_snapshot_is_refused_and_changes_nothing(damage: str) -> None:
    bus = Bus(BOARDS["pc"], Recorder())
    bus.write(Space.PORT, 0xE0, 1, 0x5A, 1000)
    before = bus.save()
    without = {key: value for key, value in before.items() if key != damage}
    for damaged in ({}, without, {**before, damage: 5.5}, {**before, damage: [[]]}):
        with pytest.raises(StateError):
            bus.load(damaged)
        assert bus.save() == before


def test_what_could_not_be_added_whole_leaves_no_region_behind(plane: Bus) -> None:
    plane.add(probe("window", bases={"io": 0x800, "window": MEMORY_BASE}))
    with pytest.raises(BoardError, match="'half'"):
        plane.add(probe("half", bases={"io": 0x40, "window": MEMORY_BASE}))
    assert inb(plane, 0x40) == 0xFF
    whole = plane.add(probe("whole", bases={"io": 0x40, "window": MEMORY_BASE + 0x100}))
    outb(plane, 0x40, 7)
    assert whole.device.state.value == 7
