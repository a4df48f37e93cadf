"""A benchmark's figures: one row each, with the ratio to its floor."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Conditions:
    """What a row was measured under; empty or 0 where that has no meaning for it.

    ``transport`` is ``unix``, ``unix-socket`` (nothing goes through shared memory) or ``tcp``;
    ``wait`` is ``spin``, ``block`` or ``adaptive``; ``cores`` where the virtual CPU and its server
    ran (:mod:`kvmshim.vmm.cores`), and the two ends of the row's floor as well; ``policy`` is
    ``strict``, ``declared`` or ``local``; ``rtt_ns`` the round trip that a lab added; ``vms`` how
    many VMs or clients there were.
    """

    transport: str = ""
    wait: str = ""
    cores: str = ""
    policy: str = ""
    rtt_ns: int = 0
    vms: int = 1


@dataclass(frozen=True)
class Row:
    """One figure under its conditions (see :class:`Conditions`).

    Times in ns; ``floor_ns`` and ``ratio`` are None where there is no floor. ``floor`` says what
    the floor is made of, ``count`` the repetitions that are counted, ``iqr_ns`` their spread: from
    the first quartile to the third. ``per_s`` is given for what is counted per second.
    """

    name: str
    transport: str
    wait: str
    cores: str
    policy: str
    rtt_ns: int
    vms: int
    median_ns: float
    p99_ns: float
    iqr_ns: float
    floor: str
    floor_ns: float | None
    ratio: float | None
    per_s: float | None
    count: int


@dataclass(frozen=True)
class Part:
    """A summand of a floor."""

    name: str
    ns: float


NOWHERE = Conditions()


def make_row(
    name: str,
    samples_ns: Sequence[float],
    at: Conditions = NOWHERE,
    *,
    floor: Sequence[Part] = (),
    repeats: float = 1,
) -> Row:
    """A row from its samples; each sample covers ``repeats`` accesses."""
    ordered = sorted(sample / repeats for sample in samples_ns)
    floor_ns = sum(part.ns for part in floor) if floor else None
    median = statistics.median(ordered)
    last = len(ordered) - 1
    return Row(
        name=name,
        **asdict(at),
        median_ns=round(median, 1),
        p99_ns=round(ordered[min(last, len(ordered) * 99 // 100)], 1),
        iqr_ns=round(ordered[last - last // 4] - ordered[last // 4], 1),
        floor=" + ".join(part.name for part in floor),
        floor_ns=None if floor_ns is None else round(floor_ns, 1),
        ratio=None if floor_ns is None else round(median / floor_ns, 3),
        per_s=round(1e9 / median, 1) if name.endswith("_per_s") else None,
        count=len(ordered),
    )


_HEAD = ("name", "transport", "wait", "cores", "policy", "rtt", "vms", "median", "iqr", "p99")
_FLOOR_HEAD = ("floor", "ratio", "per second", "floor is")
_RIGHT = {"rtt", "vms", "median", "iqr", "p99", "floor", "ratio", "per second"}


def as_table(rows: Sequence[Row]) -> list[str]:
    """The rows for people, in aligned columns; columns that say nothing are left out."""
    head = (*_HEAD, *_FLOOR_HEAD)
    cells = [_cells(row) for row in rows]
    told = [at for at in range(len(head)) if any(line[at] != "-" for line in cells)]
    lines = [[line[at] for at in told] for line in (head, *cells)]
    return align(lines, [head[at] in _RIGHT for at in told])


def align(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Lines of cells in columns, each as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.transport or "-",
        row.wait or "-",
        row.cores or "-",
        row.policy or "-",
        in_words(row.rtt_ns) if row.rtt_ns else "-",
        str(row.vms) if row.vms != 1 else "-",
        in_words(row.median_ns),
        in_words(row.iqr_ns),
        in_words(row.p99_ns),
        "-" if row.floor_ns is None else in_words(row.floor_ns),
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        "-" if row.per_s is None else f"{row.per_s:,.0f}",
        row.floor or "-",
    )


def in_words(ns: float) -> str:
    """A time with the unit that suits it."""
    return f"{ns / 1e6:.2f} ms" if ns >= 1e6 else f"{ns / 1000:.2f} us"


def as_object(host: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as ``--json`` prints them."""
    return {"host": host, "rows": [asdict(row) for row in rows]}
