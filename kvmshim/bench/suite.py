"""The rows of the benchmark, in order, each beside its floor."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from kvmshim.bench import floors
from kvmshim.bench.accesses import Bench, tcp_server
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
    """Measures and yields row after row; the floors come first."""
    raw_exit = make_row("raw_exit", floors.exits(count))
    yield raw_exit
    raw_irq = make_row("raw_irq_line", floors.irq_line(count))
    yield raw_irq
    yield make_row("local_in", Bench(None, "block", count).local_in(), floor=[raw_exit])
    for transport in transports:
        for wait in waits:
            spins = wait != "block"
            raw_trip = make_row(
                "raw_pingpong",
                floors.ping_pong(transport, spins, count),
                transport=transport,
                wait=wait,
            )
            yield raw_trip
            with _server(transport, wait) as server:
                bench = Bench(server, wait, count)
                for name, samples, floor in (
                    ("remote_in", bench.remote_in, (raw_exit, raw_trip)),
                    ("remote_out_finish", bench.remote_out_finish, (raw_exit, raw_trip)),
                    ("remote_out_posted", bench.remote_out_posted, (raw_exit,)),
                    ("rep_insb_512", bench.rep_insb_512, (raw_exit, raw_trip)),
                    ("irq_latency", bench.irq_latency, (raw_exit, raw_trip, raw_irq)),
                ):
                    yield make_row(name, samples(), transport=transport, wait=wait, floor=floor)


@contextlib.contextmanager
def _server(transport: str, wait: str) -> Iterator[str | None]:
    if transport == "unix":
        yield None
    else:
        with tcp_server(wait) as address:
            yield address
