"""What changed since an earlier run: its ratios to the floors beside those of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvmshim.bench.rows import Conditions, Row, align, in_words
from kvmshim.errors import InputError

#: What tells two rows of one file apart; files of older versions lack some.
_KEY = {"name": "", **asdict(Conditions())}
_CORES = list(_KEY).index("cores")
_TITLE = ("name", "transport", "wait", "cores", "policy")
Key = tuple[object, ...]


@dataclass(frozen=True)
class Earlier:
    """What an earlier run says about a row: its median, and its ratio if it has a floor."""

    median_ns: float
    ratio: float | None


@dataclass(frozen=True)
class Change:
    """A row of both runs. ``change`` is new over old: of ratios to floors, else of medians (ns)."""

    title: str
    by: str  # "ratio" or "median"
    old: float
    new: float
    change: float


@dataclass(frozen=True)
class Comparison:
    """All changes, and the titles of the rows that only one run has."""

    changes: tuple[Change, ...]
    missing: tuple[str, ...]
    new: tuple[str, ...]


def read_rows(path: str) -> dict[Key, Earlier]:
    """The rows of a file that ``--json`` wrote; raises :class:`InputError`."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON; write one with 'kvmshim bench --json'") from None
    try:
        return {_key(row): _earlier(row) for row in document["rows"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path} holds no rows of a benchmark; write one with 'kvmshim bench --json'"
        ) from None


def _key(row: Mapping[str, Any]) -> Key:
    key = tuple(row.get(name, default) for name, default in _KEY.items())
    if not key[0] or not isinstance(key[0], str):
        raise ValueError
    hash(key)
    return key


def _earlier(row: Mapping[str, Any]) -> Earlier:
    ratio = row.get("ratio")
    earlier = Earlier(float(row["median_ns"]), None if ratio is None else float(ratio))
    if not earlier.median_ns > 0 or (earlier.ratio is not None and not earlier.ratio > 0):
        raise ValueError
    return earlier


def compare(before: Mapping[Key, Earlier], rows: Sequence[Row]) -> Comparison:
    """Sets this run's rows beside those of an earlier one."""
    now = {_same_as(before, _key(asdict(row))): row for row in rows}
    return Comparison(
        changes=tuple(_change(key, before[key], row) for key, row in now.items() if key in before),
        missing=tuple(_title(key) for key in before if key not in now),
        new=tuple(_title(key) for key in now if key not in before),
    )


def _same_as(before: Mapping[Key, Earlier], key: Key) -> Key:
    """The key of the row in an earlier run; files of older versions don't say which cores."""
    unsaid = (*key[:_CORES], "", *key[_CORES + 1 :])
    return unsaid if key not in before and unsaid in before else key


def _change(key: Key, old: Earlier, row: Row) -> Change:
    if old.ratio is not None and row.ratio is not None:
        by, earlier, later = "ratio", old.ratio, row.ratio
    else:
        by, earlier, later = "median", old.median_ns, row.median_ns
    return Change(_title(key), by, earlier, later, round(later / earlier, 3))


def _title(key: Key) -> str:
    words = dict(zip(_KEY, key, strict=True))
    shown = [str(words[name]) for name in _TITLE if words[name]]
    if words["rtt_ns"]:
        shown.append(f"rtt {in_words(float(str(words['rtt_ns'])))}")
    if words["vms"] != 1:
        shown.append(f"{words['vms']} vms")
    return " ".join(shown)


def as_lines(before: Mapping[Key, Earlier], rows: Sequence[Row]) -> list[str]:
    """The comparison for people. Below 1.00 is cheaper than it was."""
    found = compare(before, rows)
    lines = [("row", "by", "old", "new", "change")]
    for change in found.changes:
        old, new = (_figure(change.by, figure) for figure in (change.old, change.new))
        lines.append((change.title, change.by, old, new, f"x {change.change:.2f}"))
    return [
        *align(lines, (False, False, True, True, True)),
        *(f"not measured this time: {title}" for title in found.missing),
        *(f"not measured before: {title}" for title in found.new),
    ]


def _figure(by: str, figure: float) -> str:
    return f"{figure:.2f}" if by == "ratio" else in_words(figure)
