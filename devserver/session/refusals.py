"""What this host has refused its clients, by reason: for people who look after it."""

from __future__ import annotations

from collections import Counter

from devserver.protocol.errors import ErrorCode


class Refusals:
    """Counts refused messages by the code of the ERROR that answered them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, code: ErrorCode) -> None:
        """One more was refused."""
        self._counts[str(code)] += 1

    def counts(self) -> dict[str, int]:
        """How many there were of each code; those that never happened are left out."""
        return dict(self._counts)
