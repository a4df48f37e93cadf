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

    A host's speed drifts while it is measured, so every figure has floors of its own, taken just
    before it; the rows that are named after a floor are separate measurements.
    """
    yield make_row("raw_exit", floors.exits(count))
    yield make_row("raw_irq_line", floors.irq_line(count))
    yield make_row("raw_disarm", floors.disarm(count))
    yield make_row("model_in", model_in(max(10, count // 10)))
    local = Bench(None, "block", count)
    yield make_row("local_in", local.local_in(), floor=_Floors("", True, count).take("exit"))
    for transport in transports:
        for wait in waits:
            floor = _Floors(transport, wait != "block", count)
            raw = floors.ping_pong(transport, wait != "block", count)
            yield make_row("raw_pingpong", raw, transport=transport, wait=wait)
            with _server(transport, wait) as server:
                yield from _accesses(Bench(server, wait, count), floor, transport, wait)


def _accesses(bench: Bench, floor: _Floors, transport: str, wait: str) -> Iterator[Row]:
    for name, measure, parts in (
        ("remote_in", bench.remote_in, ("exit", "trip")),
        ("remote_out_finish", bench.remote_out_finish, ("exit", "trip")),
        ("remote_out_posted", bench.remote_out_posted, ("exit",)),
        ("rep_insb_512", bench.rep_insb_512, ("exit", "trip")),
        ("irq_latency", bench.irq_latency, ("exit", "trip", "irq")),
    ):
        below = floor.take(*parts)
        yield make_row(name, measure(), transport=transport, wait=wait, floor=below)


class _Floors:
    """Measures the floors of one row."""

    def __init__(self, transport: str, spin: bool, count: int) -> None:
        self._count = max(10, count // 3)
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
