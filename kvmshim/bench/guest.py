"""The guest that does one access over and over (guests/bench.asm), and where its time goes."""

from __future__ import annotations

import dataclasses
import struct
from enum import IntEnum
from itertools import pairwise

from kvmshim.bundled import guests_folder
from kvmshim.loader import BootPlan, Segment, load_image
from kvmshim.machinefile.spec import DEFAULT_MEMORY_BYTES

#: Where the guest finds what to do, and the port that its interrupt handler touches first.
_PARAMETERS = 0x600
MARK_PORT = 0
LINE_PORT = 0x2005


class Kind(IntEnum):
    """What the guest does."""

    IN = 0
    OUT = 1
    REP_INSB = 2
    INTERRUPT = 3


def bench_plan(kind: Kind, port: int, count: int) -> BootPlan:
    """How to boot the guest so that it does ``count`` accesses of a kind."""
    plan = load_image(
        guests_folder() / "built" / "bench.bin", memory_bytes=DEFAULT_MEMORY_BYTES, kind="flat"
    )
    parameters = Segment(_PARAMETERS, struct.pack("<HHI", kind, port, count))
    return dataclasses.replace(plan, segments=(*plan.segments, parameters))


def periods(trace: tuple[tuple[int, int], ...], port: int) -> list[int]:
    """The ns from each exit for ``port`` to the next."""
    times = [time_ns for time_ns, exit_port in trace if exit_port == port]
    return [later - earlier for earlier, later in pairwise(times)]


def delays(trace: tuple[tuple[int, int], ...], cause: int, effect: int) -> list[int]:
    """The ns from each exit for port ``cause`` to the next one for ``effect``, if that is next."""
    return [
        later - earlier
        for (earlier, first), (later, second) in pairwise(trace)
        if first == cause and second == effect
    ]
