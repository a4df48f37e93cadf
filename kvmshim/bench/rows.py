"""A benchmark's figures: one row each, with the ratio to its floor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure. Times in ns; ``floor_ns`` and ``ratio`` are None where there is no floor.

    ``transport`` is ``unix``, ``tcp`` or empty, ``wait`` is ``spin``, ``block``, ``adaptive`` or
    empty, ``rtt_ns`` the round trip added by a lab network, ``floor`` says what the floor is made
    of, ``count`` the repetitions that are counted.
    """

    name: str
    transport: str
    wait: str
    rtt_ns: int
    median_ns: float
    p99_ns: float
    floor: str
    floor_ns: float | None
    ratio: float | None
    count: int


def make_row(
    name: str,
    samples_ns: Sequence[int],
    *,
    transport: str = "",
    wait: str = "",
    floor: Sequence[Row] = (),
    repeats: int = 1,
) -> Row:
    """A row from its samples; each sample covers ``repeats`` accesses."""
    ordered = sorted(sample / repeats for sample in samples_ns)
    floor_ns = sum(part.median_ns for part in floor) if floor else None
    median = statistics.median(ordered)
    return Row(
        name=name,
        transport=transport,
        wait=wait,
        rtt_ns=0,
        median_ns=round(median, 1),
        p99_ns=round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 1),
        floor=" + ".join(part.name for part in floor),
        floor_ns=None if floor_ns is None else round(floor_ns, 1),
        ratio=None if floor_ns is None else round(median / floor_ns, 3),
        count=len(ordered),
    )


def as_table(rows: Sequence[Row]) -> list[str]:
    """The rows for people, in aligned columns."""
    head = ("name", "transport", "wait", "median", "p99", "floor", "ratio", "floor is")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    right = {3, 4, 5, 6}
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.transport or "-",
        row.wait or "-",
        _microseconds(row.median_ns),
        _microseconds(row.p99_ns),
        "-" if row.floor_ns is None else _microseconds(row.floor_ns),
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        row.floor or "-",
    )


def _microseconds(ns: float) -> str:
    return f"{ns / 1000:.2f} us"


def as_object(host: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as ``--json`` prints them."""
    return {"host": host, "rows": [asdict(row) for row in rows]}
