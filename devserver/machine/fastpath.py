"""Accesses bound to what they reach: looked up once, then called once for each access.

What an access does is :meth:`Bus.read_at` and :meth:`Bus.write_at`; a quick one does
the same, with everything that can't change taken out of the way beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from devserver.machine.bus import Bus, Mapped
from devserver.machine.turns import Behind
from devserver.protocol.messages import Direction

#: A read or a write of one element: value and VM time in, value out (0 for a write).
Access = Callable[[int, int], int]
#: Several of them in a row: values and VM times.
Run = Callable[[Sequence[int], Sequence[int]], None]


class Bound(NamedTuple):
    """An access at an address: one that is waited for, one that is not, and a run of the latter."""

    access: Access
    posted: Access
    run: Run


def bind(
    bus: Bus,
    mapped: Mapped,
    direction: int,
    address: int,
    size: int,
    moved: Callable[[], None],
) -> Bound:
    """The access at an address.

    ``moved`` is called whenever the bus's next deadline has changed.
    """
    make = _reader if direction == Direction.IN else _writer
    access = posted = make(bus, mapped, address, size, moved)
    if mapped.slot.watch is not None:
        posted = make(bus, mapped, address, size, moved, posted=True)
    offset = address - mapped.base
    run = _one_by_one(posted)
    if make is _writer and size == 1 and mapped.slot.device.has_run_writer(mapped.name, offset):
        run = _at_once(bus, mapped, address, moved)
    return Bound(access, posted, run)


def _one_by_one(access: Access) -> Run:
    def run(values: Sequence[int], times_ns: Sequence[int]) -> None:
        accesses = zip(values, times_ns, strict=True)
        try:
            for value, time_ns in accesses:
                access(value, time_ns)
        except Behind as behind:
            behind.left = 1 + len(list(accesses))
            raise

    return run


def _at_once(bus: Bus, mapped: Mapped, address: int, moved: Callable[[], None]) -> Run:
    write_run_at = bus.write_run_at

    def run(values: Sequence[int], times_ns: Sequence[int]) -> None:
        next_ns = bus.next_ns
        write_run_at(mapped, address, values, times_ns)
        if bus.next_ns != next_ns:
            moved()

    return run


def _reader(
    bus: Bus,
    mapped: Mapped,
    address: int,
    size: int,
    moved: Callable[[], None],
    posted: bool = False,
) -> Access:
    slot, read_at = mapped.slot, bus.read_at
    plain = slot.device.plain_reader(mapped.name, address - mapped.base, size)

    def careful(_: int, time_ns: int) -> int:
        next_ns = bus.next_ns
        value = read_at(mapped, address, size, time_ns, posted)
        if bus.next_ns != next_ns:
            moved()
        return value

    if slot.timed or plain is None or slot.watch is not None:
        return careful
    mask = (1 << (8 * size)) - 1

    def quick(value: int, time_ns: int) -> int:
        if time_ns >= bus.next_ns or slot.backlog:
            return careful(value, time_ns)
        if time_ns > bus.now_ns:
            bus.now_ns = time_ns
        try:
            answer = plain(bus.now_ns)
            if answer.__class__ is not int:
                answer = slot.device.checked(mapped.name, address - mapped.base, answer)
        except BaseException as error:
            raise slot.fault(error) from error
        return answer & mask

    return quick


def _writer(
    bus: Bus,
    mapped: Mapped,
    address: int,
    size: int,
    moved: Callable[[], None],
    posted: bool = False,
) -> Access:
    slot, write_at = mapped.slot, bus.write_at
    plain = slot.device.plain_writer(mapped.name, address - mapped.base, size)

    def careful(value: int, time_ns: int) -> int:
        next_ns = bus.next_ns
        write_at(mapped, address, size, value, time_ns, posted)
        if bus.next_ns != next_ns:
            moved()
        return 0

    if slot.timed or plain is None or slot.watch is not None:
        return careful

    def quick(value: int, time_ns: int) -> int:
        if time_ns >= bus.next_ns or slot.backlog:
            return careful(value, time_ns)
        if time_ns > bus.now_ns:
            bus.now_ns = time_ns
        try:
            plain(value, bus.now_ns)
        except BaseException as error:
            raise slot.fault(error) from error
        return 0

    return quick
