"""Leases of a 16550's registers, by which writes leave their answers alone.

A UART has one region, so that a register's lane is its offset. LCR and MCR are the same in every
bank, and repeating what they hold does nothing; offsets 0 and 1 have another register behind each
bank, so that a byte which repeats the last one there may still be new to the register.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from devserver.models.lease import LANES, Lease

_ALL = (1 << LANES) - 1


class Offset(IntEnum):
    """What is written at each offset."""

    THR = 0  # or DLL
    IER = 1  # or DLM
    FCR = 2
    LCR = 3
    MCR = 4
    SCR = 7


_STEADY = (Offset.LCR, Offset.MCR, Offset.SCR)


def steadied(value: int, changing: Iterable[Offset], until_ns: int = 0) -> Lease:
    """A lease that writes to the offsets ``changing`` may change, unless they repeat a byte."""
    lanes = bits(changing)
    return Lease(
        value=value, until_ns=until_ns, unaffected=_ALL & ~lanes, steady=lanes & bits(_STEADY)
    )


def stored(offset: Offset, value: int) -> Lease:
    """A value that only writes to one offset change."""
    return steadied(value, (offset,))


def banked(value: int) -> Lease:
    """The register behind offset 1, which LCR selects."""
    return steadied(value, (Offset.IER, Offset.LCR))


def line_changing(*, looped: bool, paced: bool) -> set[Offset]:
    """Writes that move characters into the transmitter or, in loopback, into the receiver."""
    changing = {Offset.MCR}
    if looped or paced:
        changing.add(Offset.THR)
    if looped:
        changing.add(Offset.LCR)  # a break
    return changing


def bits(offsets: Iterable[Offset]) -> int:
    """The mask of these lanes."""
    return sum(1 << offset for offset in set(offsets))
