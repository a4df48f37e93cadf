"""Leases of a 16550's registers, by which writes leave their answers alone.

A UART has one region, so that a register's lane is its offset. LCR and MCR are the same in every
bank, and repeating what they hold does nothing; offsets 0 and 1 have another register behind each
bank, so that a byte which repeats the last one there may still be new to the register.
"""

from __future__ import annotations

from functools import lru_cache

from devserver.models.lease import ANY_LANE, Lease

#: Lanes by what is written there, one bit each; DLL and DLM lie behind the first two.
THR, IER, FCR, LCR, MCR, SCR = (1 << offset for offset in (0, 1, 2, 3, 4, 7))

_STEADY = LCR | MCR | SCR


@lru_cache(maxsize=4096)  # a guest that prints has its LSR and its IIR asked for at each character
def steadied(value: int, changing: int, until_ns: int = 0) -> Lease:
    """A lease that writes to the lanes ``changing`` may change, unless they repeat a byte."""
    return Lease(
        value=value,
        until_ns=until_ns,
        unaffected=ANY_LANE & ~changing,
        steady=changing & _STEADY,
    )


def banked(value: int) -> Lease:
    """The register behind offset 1, which LCR selects."""
    return steadied(value, IER | LCR)


def line_changing(*, looped: bool, paced: bool) -> int:
    """Writes that move characters into the transmitter or, in loopback, into the receiver."""
    if looped:
        return MCR | THR | LCR  # LCR: a break
    return MCR | THR if paced else MCR
