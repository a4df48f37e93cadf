"""A benchmark as a list of steps, each of which measures one row or a few that belong together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kvmshim.bench import floors
from kvmshim.bench.rows import NOWHERE, Conditions, Part, Row, make_row

#: How often a figure with a floor is measured; the middle one counts.
TRIES = 3

Samples = Callable[[], Sequence[float]]


@dataclass(frozen=True)
class Step:
    """Measures the rows ``names`` under the conditions ``at``, when it is run."""

    names: tuple[str, ...]
    at: Conditions
    run: Callable[[], list[Row]]
    optional: bool = False  # is left out, with a note, where the host lacks what it needs

    def title(self) -> str:
        """What is measured, for people."""
        words = (self.names[0], self.at.transport, self.at.wait, self.at.policy)
        return " ".join(word for word in words if word)


class Floors:
    """Measures floors under the conditions of the row that stands on them."""

    def __init__(self, at: Conditions, count: int) -> None:
        self._at = at
        self._count = count

    def exits(self) -> Part:
        """A bare exit."""
        return self._part("raw_exit", floors.exits(self._count))

    def coalesced_exits(self) -> Part:
        """A bare write into KVM's ring."""
        return self._part("raw_coalesced_exit", floors.coalesced_exits(self._count))

    def trip(self) -> Part:
        """A bare round trip, with both ends waiting and running as the row's do."""
        at = self._at
        samples = floors.ping_pong(at.transport, at.wait, at.cores, self._count)
        return self._part("raw_pingpong", samples)

    def irq_line(self) -> Part:
        """A bare KVM_IRQ_LINE."""
        return self._part("raw_irq_line", floors.irq_line(self._count))

    def irq_delivery(self) -> Part:
        """A bare interrupt, up to its handler."""
        return self._part("raw_irq_delivery", floors.irq_delivery(self._count))

    def rtt(self) -> Part:
        """The round trip that a lab added."""
        return Part("rtt", self._at.rtt_ns)

    @staticmethod
    def _part(name: str, samples: Sequence[int]) -> Part:
        return Part(name, statistics.median(samples))


FloorParts = Sequence[Callable[[Floors], Part]]


def plain(name: str, measure: Samples, at: Conditions = NOWHERE) -> Step:
    """A figure of its own."""
    return Step((name,), at, lambda: [make_row(name, measure(), at)])


def beside_floor(
    name: str, measure: Samples, parts: FloorParts, at: Conditions, floor_count: int
) -> Step:
    """A figure that is measured :data:`TRIES` times, each time just behind its floor.

    A host's speed drifts while it is measured. The row is the try with the middle ratio.
    """
    return beside_floors({name: parts}, measure, at, floor_count)


def beside_floors(
    parts_of: Mapping[str, FloorParts], measure: Samples, at: Conditions, floor_count: int
) -> Step:
    """The same, for rows that set the same samples beside different floors."""

    def run() -> list[Row]:
        tries: list[list[Row]] = []
        for _ in range(TRIES):
            floor = Floors(at, floor_count)
            wanted = {part: None for parts in parts_of.values() for part in parts}
            below = {part: part(floor) for part in wanted}  # each once, for all rows
            samples = measure()
            tries.append(
                [
                    make_row(name, samples, at, floor=[below[part] for part in parts])
                    for name, parts in parts_of.items()
                ]
            )
        by_name = zip(*tries, strict=True)
        return [middle(rows) for rows in by_name]

    return Step(tuple(parts_of), at, run)


def middle(tries: Sequence[Row]) -> Row:
    """The try with the middle ratio."""
    return sorted(tries, key=lambda row: row.ratio or 0.0)[len(tries) // 2]
