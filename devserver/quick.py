"""Accesses bound to what they reach: looked up once, then called once for each access.

What an access does is :meth:`Backplane.read_at` and :meth:`Backplane.write_at`; a quick one does
the same, with everything that can't change taken out of the way beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from devserver.backplane import Backplane, DeviceFault, Mapped
from devserver.protocol.messages import Direction

#: A read or a write of one element: value and VM time in, value out (0 for a write).
Access = Callable[[int, int], int]
#: Several of them in a row: values and VM times.
Run = Callable[[Sequence[int], Sequence[int]], None]


def bind(
    backplane: Backplane,
    mapped: Mapped,
    direction: int,
    address: int,
    size: int,
    moved: Callable[[], None],
) -> tuple[Access, Run]:
    """The access at an address, and a run of it.

    ``moved`` is called whenever the backplane's next deadline has changed.
    """
    if direction == Direction.IN:
        access = _reader(backplane, mapped, address, size, moved)
        return access, _one_by_one(access)
    access = _writer(backplane, mapped, address, size, moved)
    return access, _one_by_one(access)


def _one_by_one(access: Access) -> Run:
    def run(values: Sequence[int], times_ns: Sequence[int]) -> None:
        for value, time_ns in zip(values, times_ns, strict=True):
            access(value, time_ns)

    return run


def _reader(
    backplane: Backplane, mapped: Mapped, address: int, size: int, moved: Callable[[], None]
) -> Access:
    slot, read_at = mapped.slot, backplane.read_at
    plain = slot.device.plain_reader(mapped.name, address - mapped.base, size)

    def careful(_: int, time_ns: int) -> int:
        next_ns = backplane.next_ns
        value = read_at(mapped, address, size, time_ns)
        if backplane.next_ns != next_ns:
            moved()
        return value

    if slot.timed or plain is None:
        return careful
    mask = (1 << (8 * size)) - 1

    def quick(value: int, time_ns: int) -> int:
        if time_ns >= backplane.next_ns or slot.backlog:
            return careful(value, time_ns)
        if time_ns > backplane.now_ns:
            backplane.now_ns = time_ns
        try:
            return plain(backplane.now_ns) & mask
        except Exception as error:
            raise DeviceFault(slot.wiring.name, slot.wiring.kind, error) from error

    return quick


def _writer(
    backplane: Backplane, mapped: Mapped, address: int, size: int, moved: Callable[[], None]
) -> Access:
    slot, write_at = mapped.slot, backplane.write_at
    plain = slot.device.plain_writer(mapped.name, address - mapped.base, size)

    def careful(value: int, time_ns: int) -> int:
        next_ns = backplane.next_ns
        write_at(mapped, address, size, value, time_ns)
        if backplane.next_ns != next_ns:
            moved()
        return 0

    if slot.timed or plain is None:
        return careful

    def quick(value: int, time_ns: int) -> int:
        if time_ns >= backplane.next_ns or slot.backlog:
            return careful(value, time_ns)
        if time_ns > backplane.now_ns:
            backplane.now_ns = time_ns
        try:
            plain(value, backplane.now_ns)
        except Exception as error:
            raise DeviceFault(slot.wiring.name, slot.wiring.kind, error) from error
        return 0

    return quick
