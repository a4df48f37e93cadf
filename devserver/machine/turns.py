"""How much is done for one client before the others are looked after.

A client's *turn* ends by time, whatever it sends: what it has said and was not dealt with yet waits
for its next turn, and so do the devices that have more to do than fits into one. Nothing of one
client is done out of order for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

#: A turn's length, unless nobody else waits.
TURN_NS = 100_000


class Behind(Exception):
    """Devices have not reached a VM time within their owner's turn; to be taken up in the next.

    ``left``: of a run of accesses, how many were not made.
    """

    left = 0


class Turn(Protocol):
    """Tells when the present turn is over."""

    def is_over(self) -> bool:
        """Whether it is the others' turn."""


class Endless:
    """A turn that lasts for as long as there is something to do."""

    def is_over(self) -> bool:
        return False


class Kept:
    """A turn whose end somebody else keeps, as a number of ``numbers`` (CLOCK_MONOTONIC, ns)."""

    def __init__(self, numbers: Sequence[int], index: int) -> None:
        self._numbers = numbers
        self._index = index

    def is_over(self) -> bool:
        return time.monotonic_ns() >= self._numbers[self._index]


class Timed:
    """A turn of a certain length, from :meth:`begin` on."""

    def __init__(
        self, length_ns: int = TURN_NS, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._length_ns = length_ns
        self._monotonic_ns = monotonic_ns
        self._until_ns = 0

    def begin(self) -> None:
        self._until_ns = self._monotonic_ns() + self._length_ns

    def is_over(self) -> bool:
        return self._monotonic_ns() >= self._until_ns
