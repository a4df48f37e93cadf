"""Leases: the answer of a register's reads, handed to the client so that it can answer by itself.

A lease is a value, or a function of VM time; which writes of the guest's own change it, it says
too. The client's evaluation in C (``native/src/link/lease.c``) and :meth:`Lease.at` are the same
formula, which ``docs/protocol.md`` states.

The *lanes* of a device are the bytes of its wired regions laid end to end, in the order in which
the model declares them; only the first :data:`LANES` of them can be named in a lease.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Terms that a lease can have at most.
MAX_TERMS = 4
#: Lanes that a lease can name; writes to further ones change every lease of the device.
LANES = 64

#: An ``unaffected`` that names every lane.
ANY_LANE = (1 << LANES) - 1

_WORD = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a leased function of VM time; all arithmetic is modulo 2**64.

    The term's clock stands at ``now_ns * num // den``; it may not be below ``origin``. With ``n``
    the clocks since ``origin``, modulo ``period`` unless that is 0, the term is ``start + step *
    n`` while ``n < length`` and ``start2 + step2 * (n - length)`` from then on; of that, ``&
    wrap``, then ``>> shift`` (at most 63), then ``& mask``. Steps may be negative.
    """

    num: int
    den: int
    origin: int
    period: int = 0
    length: int
    start: int
    step: int = 0
    start2: int = 0
    step2: int = 0
    wrap: int = 0xFFFF
    shift: int = 0
    mask: int = 0xFF

    def covers(self, now_ns: int) -> bool:
        """Whether the term says anything about VM time ``now_ns``."""
        return now_ns * self.num // self.den >= self.origin

    def at(self, now_ns: int) -> int:
        """The term at VM time ``now_ns``, which it covers."""
        n = now_ns * self.num // self.den - self.origin
        if self.period:
            n %= self.period
        if n < self.length:
            value = self.start + self.step * n
        else:
            value = self.start2 + self.step2 * (n - self.length)
        return (value & _WORD & self.wrap) >> self.shift & self.mask


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Writes of ``v`` to ``lane`` with ``v & mask == match`` hold the lease's value.

    It is held for the next read (of a pair: for two), and such writes do nothing until then.
    """

    lane: int
    mask: int
    match: int

    def is_meant_by(self, lane: int, value: int) -> bool:
        """Whether a write of a byte to a lane holds the value."""
        return lane == self.lane and value & self.mask == self.match


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What reads of one byte give, from now on and until the lease is replaced.

    ``value`` is ORed with all ``terms``. From VM time ``until_ns`` on the lease is void (0: no
    end). Bit ``n`` of ``unaffected``: writes to lane ``n`` of the device do not change it; of
    ``steady``: repeating the byte that was last written to lane ``n`` changes nothing. A ``pair``
    has 16 bits, and its reads give the low and the high byte in turn, the high one first if
    ``high_next``.
    """

    value: int = 0
    terms: tuple[Term, ...] = ()
    until_ns: int = 0
    unaffected: int = 0
    steady: int = 0
    pair: bool = False
    high_next: bool = False
    hold: Hold | None = None

    def covers(self, now_ns: int) -> bool:
        """Whether the lease says anything about VM time ``now_ns``."""
        in_time = not self.until_ns or now_ns < self.until_ns
        return in_time and all(term.covers(now_ns) for term in self.terms)

    def at(self, now_ns: int) -> int:
        """The value at VM time ``now_ns``, which the lease covers: 8 bits, or 16 of a pair."""
        value = self.value
        for term in self.terms:
            value |= term.at(now_ns)
        return value & (0xFFFF if self.pair else 0xFF)

    def problem(self) -> str:
        """Why a client can't be told of the lease; empty if it can."""
        words = [self.value, self.until_ns, self.unaffected, self.steady]
        if not all(isinstance(word, int) and 0 <= word <= _WORD for word in words):
            return "its numbers are not from 0 to 2**64 - 1"
        if self.value >> (16 if self.pair else 8):
            return f"its value has more than {16 if self.pair else 8} bits"
        if len(self.terms) > MAX_TERMS:
            return f"it has more than {MAX_TERMS} terms"
        if any(term.num < 0 or term.den < 1 or not 0 <= term.shift < 64 for term in self.terms):
            return "a term has a den below 1, a num below 0, or a shift that is not from 0 to 63"
        if self.hold is not None and not 0 <= self.hold.lane < LANES:
            return f"it is held by writes to lane {self.hold.lane}; lanes are 0 to {LANES - 1}"
        return ""

    def is_changed_by_reading(self) -> bool:
        """Whether the reads that the client answers have to be told to the model."""
        return self.pair or self.hold is not None

    def is_unaffected_by(self, lane: int) -> bool:
        """Whether writes to a lane never change the value."""
        return lane < LANES and bool(self.unaffected >> lane & 1)
