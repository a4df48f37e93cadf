"""The 8259A against another one that is written as lists of levels; and a PC's order of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pic_bench import NO_SPECIAL_MASK, POLL, SPECIAL_MASK, Bench, NaivePic

from devserver.models.i8259.chip import Chip
from devserver.models.i8259.registers import Icw1, Icw4, Ocw2

some = settings(max_examples=80, deadline=None)
Step = tuple[Any, ...]

levels = st.integers(0, 7)
bytes_ = st.integers(0, 0xFF)
chip_steps = st.lists(
    st.one_of(
        st.tuples(st.just("line"), levels, st.booleans()),
        st.tuples(st.just("line"), levels, st.just(True)),
        st.tuples(st.sampled_from(["inta", "poll"])),
        st.tuples(st.just("mask"), bytes_ | st.just(0)),
        st.tuples(st.just("eoi"), levels | st.none(), st.booleans()),
        st.tuples(st.just("lowest"), levels),
        st.tuples(st.just("rotating"), st.booleans()),
        st.tuples(st.just("special mask"), st.booleans()),
        st.tuples(st.just("triggers"), bytes_),
    ),
    max_size=50,
)

#: The lines of a PC from the highest priority to the lowest, the slave's in the place of line 2.
PC_ORDER = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7]
pc_lines = st.sampled_from(PC_ORDER)
pc_steps = st.lists(
    st.one_of(
        st.tuples(st.just("up"), pc_lines),
        st.tuples(st.just("up"), pc_lines),
        st.tuples(st.just("down"), pc_lines),
        st.tuples(st.just("mask"), st.integers(0, 0xFFFF) | st.just(0)),
        st.tuples(st.sampled_from(["inta", "end"])),
    ),
    max_size=60,
)
#: Everything that can be done to a pair by its ports and lines.
any_steps = st.lists(
    st.one_of(
        st.tuples(st.just("line"), st.integers(0, 15), st.booleans()),
        st.tuples(st.just("acknowledge")),
        st.tuples(st.just("read"), st.sampled_from(["master", "slave", "elcr"]), st.integers(0, 1)),
        st.tuples(
            st.just("write"),
            st.sampled_from(["master", "slave", "elcr"]),
            st.integers(0, 1),
            bytes_ | st.sampled_from([0x11, 0x13, 0x20, 0x0C, 0x00, 0x01, 0x03]),
        ),
    ),
    max_size=40,
)


def members(bits: int) -> set[int]:
    return {n for n in range(16) if bits >> n & 1}


def as_bits(numbers: Sequence[int] | set[int]) -> int:
    return sum(1 << n for n in numbers)


def do_to_chip(chip: Chip, step: Step) -> int | None:
    """A step as pins and words have it; an acknowledge gives the level."""
    match step:
        case "line", level, high:
            chip.drive(level, high)
        case ("inta",):
            level = chip.begin_acknowledge()
            chip.end_acknowledge(level)
            return level
        case ("poll",):
            chip.write_command(POLL)
            level = chip.begin_poll()
            chip.end_acknowledge(level)
            return level
        case "mask", mask:
            chip.write_data(mask)
        case "eoi", None, rotate:
            chip.write_command(Ocw2.ROTATE_ON_NON_SPECIFIC_EOI if rotate else Ocw2.NON_SPECIFIC_EOI)
        case "eoi", level, rotate:
            chip.write_command(
                (Ocw2.ROTATE_ON_SPECIFIC_EOI if rotate else Ocw2.SPECIFIC_EOI) | level
            )
        case "lowest", level:
            chip.write_command(Ocw2.SET_PRIORITY | level)
        case "rotating", on:
            chip.write_command(Ocw2.ROTATE_IN_AEOI_SET if on else Ocw2.ROTATE_IN_AEOI_CLEAR)
        case "special mask", on:
            chip.write_command(SPECIAL_MASK if on else NO_SPECIAL_MASK)
        case "triggers", elcr:
            chip.choose_triggers(elcr)
    return None


def do_to_naive(naive: NaivePic, step: Step) -> int | None:
    match step:
        case "line", level, high:
            naive.line(level, high)
        case ("inta",) | ("poll",):
            return naive.inta()
        case "mask", mask:
            naive.masked = members(mask)
        case "eoi", level, rotate:
            naive.eoi(level, rotate)
        case "lowest", level:
            naive.put_last(level)
        case "rotating", on:
            naive.rotating = on
        case "special mask", on:
            naive.special_mask = on
        case "triggers", elcr:
            naive.by_level = members(elcr)
            naive.risen -= naive.by_level
    return None


@settings(some, max_examples=100)
@given(steps=chip_steps, aeoi=st.booleans())
def test_one_chip_agrees_with_one_that_keeps_lists_of_levels(steps: list[Step], aeoi: bool) -> None:
    chip, naive = Chip(), NaivePic(aeoi=aeoi)
    chip.write_command(Icw1.D4 | Icw1.SNGL | Icw1.IC4)
    chip.write_data(0)
    chip.write_data(Icw4.UPM | (Icw4.AEOI if aeoi else 0))
    for step in steps:
        assert do_to_chip(chip, step) == do_to_naive(naive, step)
        assert chip.request() == naive.request()
        assert chip.irr == as_bits(naive.requesting())
        assert chip.isr == as_bits(set(naive.serving))


def end_service(pic: Bench, irq: int) -> None:
    """As an operating system does it: the master's EOI when the slave has nothing left."""
    if irq >= 8:
        pic.slave.eoi()
        if pic.slave.isr:
            return
    pic.master.eoi()


@some
@given(steps=pc_steps, nests=st.booleans())
def test_the_interrupt_is_always_the_first_in_a_pcs_order_that_no_service_shuts_out(
    steps: list[Step], nests: bool
) -> None:
    """``nests``: special fully nested mode, where a service shuts out only what follows it."""
    pic = Bench(master=Icw4.SFNM if nests else 0)
    high: set[int] = set()
    waiting: set[int] = set()
    masked: set[int] = set()
    services: list[int] = []

    def first() -> int | None:
        last = services[-1] if services else None
        for irq in PC_ORDER:
            if irq == last or (not nests and last is not None and irq >= 8 and last >= 8):
                return None
            shut = irq in masked or (irq >= 8 and 2 in masked)
            if irq in waiting and not shut:
                return irq
        return None

    for step in steps:
        match step:
            case "up", irq:
                waiting |= {irq} - high
                high.add(irq)
                pic.up(irq)
            case "down", irq:
                high.discard(irq)
                pic.down(irq)
            case "mask", mask:
                masked = members(mask)
                pic.master.data(mask & 0xFF)
                pic.slave.data(mask >> 8)
            case ("inta",):
                if (irq := first()) is not None:
                    assert pic.inta() == irq
                    waiting.discard(irq)
                    services.append(irq)
            case ("end",):
                if services:
                    end_service(pic, services.pop())
        assert pic.intr == (first() is not None)


def do_to_pair(pic: Bench, step: Step) -> int | None:
    match step:
        case "line", irq, level:
            pic.pair.line(irq, level)
        case ("acknowledge",):
            return pic.pair.acknowledge()
        case "read", region, offset:
            return pic.pair.read(region, offset, 1, 0)
        case "write", region, offset, value:
            pic.pair.write(region, offset, 1, value, 0)
    return None


@some
@given(before=any_steps, after=any_steps)
def test_a_twin_restored_at_any_point_has_the_same_future(
    before: list[Step], after: list[Step]
) -> None:
    pic = Bench()
    for step in before:
        do_to_pair(pic, step)
    twin = pic.twin()
    for step in after:
        assert do_to_pair(twin, step) == do_to_pair(pic, step)
        assert twin.intr == pic.intr
    assert twin.pair.save() == pic.pair.save()


@some
@given(steps=any_steps)
def test_whatever_was_done_an_initialization_makes_the_pair_work(
    steps: list[Step],
) -> None:
    pic = Bench()
    for step in steps:
        do_to_pair(pic, step)
    for irq in range(16):
        pic.down(irq)
    pic.elcr(0)
    pic.master.initialize(0x11, 0x30, 0x04, 0x01)
    pic.slave.initialize(0x11, 0x78, 0x02, 0x01)
    assert not pic.intr
    assert pic.master.isr | pic.master.irr | pic.slave.isr | pic.slave.irr == 0
    for irq in PC_ORDER:
        pic.up(irq)
        assert pic.inta() == irq
        end_service(pic, irq)
    assert not pic.intr


@some
@given(steps=any_steps)
def test_with_no_line_high_every_request_is_taken_once(steps: list[Step]) -> None:
    pic = Bench()
    for step in steps:
        do_to_pair(pic, step)
    for irq in range(16):
        pic.down(irq)
    for _ in range(8):
        pic.slave.poll()
        pic.master.poll()
        for level in range(8):
            pic.slave.command(Ocw2.SPECIFIC_EOI | level)
            pic.master.command(Ocw2.SPECIFIC_EOI | level)
    assert not pic.intr
