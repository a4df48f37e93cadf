"""What the base class promises every model: splitting, byte lanes, banks, storage, snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgpack
import pytest

from devserver.models import Access, Context, Device, Policy, Region, Register
from devserver.models.device import ModelError, OptionError, StateError
from devserver.models.state import from_plain, to_plain


class Colour(IntEnum):
    RED = 1
    BLUE = 2


@dataclass
class Part:
    level: int = 7
    colour: Colour = Colour.BLUE


class Toy(Device):
    """Offsets: 0 PLAIN, 1 and 2 banked, 3 nothing, 4-7 WIDE, 8 STATUS (RO), 9 COMMAND (WO),
    10-11 PAIR, a wide register with methods."""

    kind = "toy"
    version = 3
    outputs = ("irq",)
    regions = (
        Region(
            name="io",
            size=12,
            registers=(
                Register(offset=0, name="PLAIN", reset=0x11, storage="plain"),
                Register(offset=1, name="A", bank="low", storage="a", policy=Policy.POSTED),
                Register(offset=1, name="B", bank="high", storage="b"),
                Register(offset=2, name="SHARED", storage="shared", policy=Policy.POSTED),
                Register(offset=2, name="OWN", bank="high", storage="own", policy=Policy.POSTED),
                Register(offset=4, name="WIDE", width=4, storage="wide"),
                Register(offset=8, name="STATUS", access=Access.RO, reset=0x5A),
                Register(offset=9, name="COMMAND", access=Access.WO),
                Register(offset=10, name="PAIR", width=2),
            ),
        ),
    )

    @dataclass
    class State:
        plain: int = 0x11
        a: int = 0xA0
        b: int = 0xB0
        shared: int = 0xC0
        own: int = 0xD0
        wide: int = 0
        high: bool = False
        due_ns: int | None = None
        part: Part = field(default_factory=Part)
        memory: bytearray = field(default_factory=lambda: bytearray(4))
        queue: list[int] = field(default_factory=list)
        names: dict[str, int] = field(default_factory=dict)

    @dataclass(frozen=True)
    class Options:
        speed: int = 9600
        paced: bool = False

    state: State

    def started(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def bank(self) -> str:
        return "high" if self.state.high else "low"

    def read_status(self, now_ns: int) -> int:
        self.calls.append(("status", 0, now_ns))
        return 0x5A

    def write_command(self, value: int, now_ns: int) -> None:
        self.calls.append(("command", value, now_ns))
        self.state.high = bool(value & 1)
        self.set_line("irq", self.state.high)

    def read_pair(self, now_ns: int) -> int:
        self.calls.append(("read pair", 0, now_ns))
        return 0xBEEF

    def write_pair(self, value: int, now_ns: int) -> None:
        self.calls.append(("pair", value, now_ns))


class RecordingBus:
    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []

    def set_line(self, output: str, level: bool) -> None:
        self.lines.append((output, level))

    def emit(self, channel: str, data: bytes) -> None:
        raise AssertionError("the toy emits nothing")

    def signal(self, signal: object, value: int) -> None:
        raise AssertionError("the toy signals nothing")


@pytest.fixture
def toy() -> Toy:
    return Toy()


# -- dispatch ---------------------------------------------------------------------------------


def test_a_register_with_storage_needs_no_methods(toy: Toy) -> None:
    assert toy.read("io", 0, 1, 0) == 0x11
    toy.write("io", 0, 1, 0x42, 0)
    assert toy.read("io", 0, 1, 0) == toy.state.plain == 0x42


def test_a_method_is_given_the_vm_time(toy: Toy) -> None:
    toy.read("io", 8, 1, 17)
    toy.write("io", 9, 1, 2, 23)
    assert toy.calls == [("status", 0, 17), ("command", 2, 23)]


def test_a_wide_access_is_made_of_successive_registers(toy: Toy) -> None:
    assert toy.read("io", 0, 2, 0) == 0xA011
    toy.write("io", 0, 2, 0x1234, 0)
    assert (toy.state.plain, toy.state.a) == (0x34, 0x12)


def test_the_guest_sees_all_ones_where_no_register_answers(toy: Toy) -> None:
    assert toy.read("io", 3, 1, 0) == 0xFF
    assert toy.read("io", 2, 2, 0) == 0xFFC0


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_reading_beyond_the_region_gives_all_ones_for_the_bytes_outside(
    toy: Toy, size: int
) -> None:
    toy.state.plain = 0
    assert toy.read("io", 12, size, 0) == (1 << 8 * size) - 1
    assert toy.read("io", 11, size, 0) == ((1 << 8 * size) - 1) & ~0xFF | 0xBE


def test_writing_beyond_the_region_changes_nothing_but_the_bytes_inside(toy: Toy) -> None:
    before = toy.save()
    toy.write("io", 12, 8, 0xFFFF_FFFF_FFFF_FFFF, 0)
    assert toy.save() == before


def test_a_read_only_register_ignores_writes(toy: Toy) -> None:
    before = toy.save()
    toy.write("io", 8, 1, 0xFF, 0)
    assert toy.save() == before
    assert toy.calls == []


def test_a_write_only_register_reads_all_ones(toy: Toy) -> None:
    assert toy.read("io", 9, 1, 0) == 0xFF
    assert toy.calls == []


# -- byte lanes -------------------------------------------------------------------------------


def test_a_narrow_read_takes_its_lanes_of_a_wide_register(toy: Toy) -> None:
    toy.state.wide = 0x44332211
    assert [toy.read("io", 4 + lane, 1, 0) for lane in range(4)] == [0x11, 0x22, 0x33, 0x44]
    assert toy.read("io", 5, 2, 0) == 0x3322
    assert toy.read("io", 6, 4, 0) == 0xFF5A4433  # two lanes of WIDE, STATUS, COMMAND (WO)


def test_a_wide_register_is_read_once_by_a_read_of_its_width(toy: Toy) -> None:
    assert toy.read("io", 10, 2, 5) == 0xBEEF
    assert toy.calls == [("read pair", 0, 5)]


@pytest.mark.parametrize(
    ("offset", "size", "value", "wide"),
    [
        (4, 4, 0xAABBCCDD, 0xAABBCCDD),
        (4, 1, 0xEE, 0x443322EE),
        (6, 1, 0xEE, 0x44EE2211),
        (5, 2, 0xEEDD, 0x44EEDD11),
        (6, 4, 0x0000EEDD, 0xEEDD2211),  # its upper half falls on STATUS and COMMAND
        (3, 4, 0xCCBBAA00, 0x44CCBBAA),  # its lowest byte falls on nothing
    ],
)
def test_a_write_to_some_lanes_keeps_the_others_of_a_stored_register(
    toy: Toy, offset: int, size: int, value: int, wide: int
) -> None:
    toy.state.wide = 0x44332211
    toy.write("io", offset, size, value, 0)
    assert toy.state.wide == wide


def test_a_write_to_some_lanes_gives_zeros_to_the_others_of_a_register_with_a_method(
    toy: Toy,
) -> None:
    toy.write("io", 10, 2, 0x1234, 0)
    toy.write("io", 11, 1, 0x56, 0)
    assert toy.calls == [("pair", 0x1234, 0), ("pair", 0x5600, 0)]


# -- banks ------------------------------------------------------------------------------------


def test_the_selected_bank_decides_which_register_answers(toy: Toy) -> None:
    assert toy.read("io", 1, 2, 0) == 0xC0A0
    toy.write("io", 9, 1, 1, 0)
    assert toy.read("io", 1, 2, 0) == 0xD0B0  # OWN of the bank replaces SHARED of all banks
    toy.write("io", 1, 1, 0x77, 0)
    assert (toy.state.a, toy.state.b) == (0xA0, 0x77)


def test_a_bank_that_no_register_names_shows_the_registers_of_every_bank(toy: Toy) -> None:
    toy.bank = lambda: "nowhere"  # type: ignore[method-assign]
    assert toy.read("io", 0, 2, 0) == 0xFF11


def test_a_wide_write_that_switches_the_bank_goes_on_in_the_new_one() -> None:
    class Selector(Toy):
        regions = (
            Region(
                name="io",
                size=2,
                registers=(
                    Register(offset=0, name="COMMAND", access=Access.WO),
                    Register(offset=1, name="A", bank="low", storage="a"),
                    Register(offset=1, name="B", bank="high", storage="b"),
                ),
            ),
        )

    device = Selector()
    device.write("io", 0, 2, 0x7701, 0)
    assert (device.state.a, device.state.b) == (0xA0, 0x77)


# -- declarations -----------------------------------------------------------------------------


def test_a_write_is_posted_only_where_every_register_allows_it() -> None:
    (region,) = Toy.regions
    assert [region.write_policy(offset) for offset in range(4)] == [
        Policy.FINISH,
        Policy.FINISH,  # A allows it, B does not
        Policy.POSTED,
        Policy.FINISH,  # nothing there
    ]


def test_a_register_outside_its_region_is_refused_by_name() -> None:
    wide = Register(offset=2, name="WIDE", width=4, storage="wide")
    with pytest.raises(ModelError, match=r"WIDE at offset 0x2, 4 bytes wide, .* 'io' of 4 bytes"):

        class Narrow(Toy):
            regions = (Region(name="io", size=4, registers=(wide,)),)


def test_a_register_with_neither_method_nor_storage_is_refused_by_name() -> None:
    class Bare(Device):
        kind = "bare"
        regions = (Region(name="io", size=1, registers=(Register(offset=0, name="X"),)),)

    with pytest.raises(TypeError, match="'bare': register X needs a method read_x or a storage"):
        Bare()


# -- options ----------------------------------------------------------------------------------


def test_options_take_their_defaults_and_what_is_given() -> None:
    assert Toy().options == Toy.Options(speed=9600, paced=False)
    assert Toy(Context(options={"paced": True})).options == Toy.Options(speed=9600, paced=True)


def test_an_unknown_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"'toy' has no option 'sped' \(it has: speed, paced\)"):
        Toy(Context(options={"sped": 1}))


@pytest.mark.parametrize("options", [{"speed": "fast"}, {"speed": True}, {"paced": 1}])
def test_an_option_of_the_wrong_type_is_refused_by_name(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=rf"toy\.{name}: expected"):
        Toy(Context(options=options))


# -- reset, save and load ---------------------------------------------------------------------


def test_reset_gives_a_fresh_state_and_lowers_the_lines() -> None:
    bus = RecordingBus()
    toy = Toy(Context(bus=bus))
    toy.write("io", 0, 8, 0x1234_5678, 0)
    toy.write("io", 9, 1, 1, 0)
    toy.reset()
    assert toy.save() == Toy().save()
    assert bus.lines == [("irq", True), ("irq", False)]


def test_a_loaded_snapshot_is_the_saved_state_in_its_types_and_moves_no_line(toy: Toy) -> None:
    toy.state.part = Part(level=1, colour=Colour.RED)
    toy.state.memory[2] = 9
    toy.state.queue, toy.state.names, toy.state.due_ns = [1, 2], {"x": 3}, 1 << 63
    toy.state.high = True
    bus = RecordingBus()
    twin = Toy(Context(bus=bus))
    twin.load(msgpack.unpackb(msgpack.packb(toy.save())))
    assert twin.state == toy.state
    assert isinstance(twin.state.part.colour, Colour)
    assert isinstance(twin.state.memory, bytearray)
    assert bus.lines == []


def test_a_snapshot_is_a_copy_that_later_changes_leave_alone(toy: Toy) -> None:
    before = toy.save()
    kept = msgpack.packb(before)
    toy.state.memory[0], toy.state.part.level = 1, 1
    toy.state.queue.append(1)
    assert msgpack.packb(before) == kept


def damaged(snapshot: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    return {**snapshot, "state": {**snapshot["state"], name: value}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plain", "x"),
        ("plain", None),
        ("plain", True),
        ("high", 1),
        ("due_ns", b""),
        ("part", {"level": 1}),
        ("part", {"level": 1, "colour": 3}),
        ("memory", [0, 0]),
        ("queue", ["x"]),
        ("names", {1: 2}),
        ("unheard_of", 1),
    ],
)
def test_a_damaged_field_is_refused_by_name_and_leaves_the_state(
    toy: Toy, name: str, value: object
) -> None:
    before = toy.save()
    with pytest.raises(StateError, match=name):
        toy.load(damaged(before, name, value))
    assert toy.save() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "of kind 'other', not 'toy'"),
        ({"version": 4}, "has version 4; this model reads version 3"),
        ({"version": None}, "has version None"),
        ({"state": None}, "expected a map"),
        ({"state": {}}, "missing"),
    ],
)
def test_a_snapshot_of_another_model_or_version_is_refused(
    toy: Toy, change: dict[str, object], message: str
) -> None:
    with pytest.raises(StateError, match=message):
        toy.load({**toy.save(), **change})


def test_state_becomes_nothing_but_plain_data_and_comes_back(toy: Toy) -> None:
    toy.state.queue = [3, 1]
    plain = to_plain(toy.state)
    assert plain["part"] == {"level": 7, "colour": 2}
    assert type(plain["memory"]) is bytes
    assert type(plain["part"]["colour"]) is int
    assert from_plain(Toy.State, plain) == toy.state
