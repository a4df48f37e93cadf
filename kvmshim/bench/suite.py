"""The rows of the benchmark, in order, each beside its floor."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from kvmshim.bench import floors
from kvmshim.bench.accesses import Bench, model_in, tcp_server
from kvmshim.bench.rows import Row, make_row

TRANSPORTS = ("unix", "tcp")
WAITS = ("spin", "block", "adaptive")
DEFAULT_COUNT = 3000
TRIES = 3


def describe_host() -> dict[str, Any]:
    """What the figures were measured on."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "kernel": platform.release(),
        "cpu": cpu,
        "cpus": sorted(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def rows(transports: Sequence[str], waits: Sequence[str], count: int) -> Iterator[Row]:
    """Measures and yields row after row.

    A host's speed drifts while it is measured. So every figure with a floor is measured
    :data:`TRIES` times, each time just behind its floor; the row is the try with the middle ratio.
    The rows that are named after a floor are separate measurements.
    """
    yield make_row("raw_exit", floors.exits(count))
    yield make_row("raw_irq_line", floors.irq_line(count))
    yield make_row("raw_disarm", floors.disarm(count))
    yield make_row("model_in", model_in(max(10, count // 10)))
    each = max(10, count // TRIES)
    local = Bench(None, "block", each)
    yield _beside_floor("local_in", local.local_in, _Floors("", True, each), ("exit",))
    for transport in transports:
        for wait in waits:
            floor = _Floors(transport, wait != "block", each)
            raw = floors.ping_pong(transport, wait != "block", count)
            yield make_row("raw_pingpong", raw, transport=transport, wait=wait)
            with _server(transport, wait) as server:
                yield from _accesses(Bench(server, wait, each), floor, transport, wait)


def _accesses(bench: Bench, floor: _Floors, transport: str, wait: str) -> Iterator[Row]:
    for name, measure, parts in (
        ("remote_in", bench.remote_in, ("exit", "trip")),
        ("remote_out_finish", bench.remote_out_finish, ("exit", "trip")),
        ("remote_out_posted", bench.remote_out_posted, ("exit",)),
        ("rep_insb_512", bench.rep_insb_512, ("exit", "trip")),
        ("irq_latency", bench.irq_latency, ("exit", "trip", "irq")),
    ):
        yield _beside_floor(name, measure, floor, parts, transport, wait)


def _beside_floor(
    name: str,
    measure: Callable[[], list[int]],
    floor: _Floors,
    parts: tuple[str, ...],
    transport: str = "",
    wait: str = "",
) -> Row:
    tries = []
    for _ in range(TRIES):
        below = floor.take(*parts)
        tries.append(make_row(name, measure(), transport=transport, wait=wait, floor=below))
    return sorted(tries, key=lambda row: row.ratio or 0.0)[TRIES // 2]


class _Floors:
    """Measures the floors of one row."""

    def __init__(self, transport: str, spin: bool, count: int) -> None:
        self._count = count
        self._measures: dict[str, tuple[str, Callable[[int], list[int]]]] = {
            "exit": ("raw_exit", floors.exits),
            "trip": ("raw_pingpong", partial(floors.ping_pong, transport, spin)),
            "irq": ("raw_irq_line", floors.irq_line),
        }

    def take(self, *parts: str) -> list[Row]:
        """Fresh floors; their medians add up to the row's floor."""
        return [
            make_row(name, measure(self._count))
            for name, measure in (self._measures[part] for part in parts)
        ]


@contextlib.contextmanager
def _server(transport: str, wait: str) -> Iterator[str | None]:
    if transport == "unix":
        yield None
    else:
        with tcp_server(wait) as address:
            yield address
