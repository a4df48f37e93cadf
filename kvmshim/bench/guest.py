"""The guests of the benchmark: the one that does one access over and over, and the workloads."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise

from kvmshim.bundled import guests_folder
from kvmshim.loader import BootPlan, Segment, load_image
from kvmshim.machinefile.spec import DEFAULT_MEMORY_BYTES

#: Where a guest finds what to do, and the port that nobody claims and that marks a moment.
_PARAMETERS = 0x600
MARK_PORT = 0
LINE = 5
LINE_PORT = 0x2000 + LINE

#: When an exit was (ns), and for which port.
Trace = tuple[tuple[int, int], ...]


class Kind(IntEnum):
    """What the guest ``bench`` does."""

    IN = 0
    OUT = 1
    REP_INSB = 2
    INTERRUPT = 3
    BLOCKS = 4
    IDLE = 5


def bench_plan(kind: Kind, port: int, count: int, block: int = 0) -> BootPlan:
    """How to boot the guest so that it does ``count`` accesses of a kind.

    Of the kind BLOCKS it does ``count`` blocks of ``block`` writes.
    """
    return _plan("bench", struct.pack("<HHII", kind, port, count, block))


def workload_plan(guest: str, count: int) -> BootPlan:
    """How to boot a workload of ``guests/bench_*.asm`` so that it does ``count`` of its things."""
    return _plan(guest, struct.pack("<HHII", 0, 0, count, 0))


def _plan(guest: str, parameters: bytes) -> BootPlan:
    path = guests_folder() / "built" / f"{guest}.bin"
    plan = load_image(path, memory_bytes=DEFAULT_MEMORY_BYTES, kind="flat")
    return dataclasses.replace(plan, segments=(*plan.segments, Segment(_PARAMETERS, parameters)))


def periods(trace: Trace, port: int) -> list[int]:
    """The ns from each exit for ``port`` to the next."""
    times = [time_ns for time_ns, exit_port in trace if exit_port == port]
    return [later - earlier for earlier, later in pairwise(times)]


def means(samples: Sequence[int], size: int) -> list[float]:
    """The means of groups of ``size`` samples, one after another; what is left over is dropped."""
    groups = range(0, len(samples) - size + 1, size)
    return [sum(samples[at : at + size]) / size for at in groups]


def delays(trace: Trace, cause: int, effect: int) -> list[int]:
    """The ns from each exit for port ``cause`` to the next one for ``effect``, if that is next."""
    return [
        later - earlier
        for (earlier, first), (later, second) in pairwise(trace)
        if first == cause and second == effect
    ]
