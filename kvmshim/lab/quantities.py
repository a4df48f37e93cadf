"""Durations and shares as people write them: ``1ms``, ``100us``, ``0.5s``; ``0.1%``."""

from __future__ import annotations

import re
from fractions import Fraction

from kvmshim.errors import InputError

_UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,12})?)"
_DURATION = re.compile(_NUMBER + r"\s*(ns|us|µs|ms|s)")
_SHARE = re.compile(_NUMBER + r"\s*%")

MAX_DURATION_NS = 10_000_000_000
#: Above this a TCP connection is hardly one any more.
MAX_SHARE = 0.5


def parse_duration_ns(text: str) -> int:
    """The nanoseconds of a duration from 0 to 10 s; a unit may only lack where it says nothing.

    Raises :class:`InputError`.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None and not _is_zero(text):
        raise InputError(f"{text!r:.60} is not a duration; write one such as 100us, 1ms or 0.5s")
    duration_ns = int(Fraction(found[1]) * _UNITS_NS[found[2]]) if found else 0
    if duration_ns > MAX_DURATION_NS:
        raise InputError(f"duration {text} is above {format_duration(MAX_DURATION_NS)}")
    return duration_ns


def parse_share(text: str) -> float:
    """The share of 1 that a percentage from 0% to 50% is; raises :class:`InputError`."""
    found = _SHARE.fullmatch(text.strip())
    if found is None and not _is_zero(text):
        raise InputError(f"{text!r:.60} is not a percentage; write one such as 0.1%")
    share = float(Fraction(found[1]) / 100) if found else 0.0
    if share > MAX_SHARE:
        raise InputError(f"percentage {text} is above {format_share(MAX_SHARE)}")
    return share


def format_duration(duration_ns: int) -> str:
    """A duration in the largest unit of which it has at least one."""
    for unit in ("s", "ms", "us"):
        if duration_ns >= _UNITS_NS[unit]:
            return f"{duration_ns / _UNITS_NS[unit]:.12g} {unit}"
    return f"{duration_ns} ns" if duration_ns else "0"


def format_share(share: float) -> str:
    """A share as a percentage."""
    return f"{share * 100:.12g}%"


def _is_zero(text: str) -> bool:
    number = re.fullmatch(_NUMBER, text.strip())
    return number is not None and not Fraction(number[1])
