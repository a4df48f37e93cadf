"""The rows of the benchmark, in order, each beside its floor."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from devserver.protocol.address import TcpAddress, parse_address
from kvmshim.bench import floors
from kvmshim.bench.accesses import Bench, model_in
from kvmshim.bench.fairness import FLOODS, fairness
from kvmshim.bench.machines import DECLARED, LOCAL, STRICT, Place, place_for, relayed_place_for
from kvmshim.bench.peers import find_qemu, qemu_accesses
from kvmshim.bench.rows import Conditions, Part, Row, make_row
from kvmshim.bench.steps import (
    TRIES,
    FloorParts,
    Floors,
    Step,
    beside_floor,
    beside_floors,
    plain,
)
from kvmshim.bench.throughput import RATES, server_rate
from kvmshim.bench.workloads import WORKLOADS, Workload

#: Each says that rows are left out, and why.
Note = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What to measure. ``only`` names rows; none means all. ``server`` stands for all servers."""

    transports: Sequence[str] = ("unix",)
    waits: Sequence[str] = ("spin", "block")
    cores: str = "auto"
    count: int = 3000
    only: Collection[str] = ()
    server: str | None = None
    rtt_ns: int = 0
    policies: Sequence[str] = (STRICT, DECLARED, LOCAL)

    def cores_for(self, wait: str) -> str:
        """Two ends that sleep belong on one core, two that look belong on two."""
        if self.cores != "auto":
            return self.cores
        return "same" if wait == "block" and self.server is None else "any"

    @property
    def each(self) -> int:
        """Repetitions in one of the tries of a row."""
        return max(10, self.count // TRIES)


ROOTS = (
    "raw_exit",
    "raw_coalesced_exit",
    "raw_irq_line",
    "raw_irq_delivery",
    "model_in",
    "local_in",
)
REMOTE = (
    "raw_pingpong",
    "raw_memory_pingpong",
    "raw_exit_pingpong",
    "remote_in",
    "remote_out_finish",
    "remote_out_posted",
    "remote_out_coalesced",
    "leased_in",
    "rep_insb_512",
    "relayed_in",
    "irq_latency",
    "irq_latency_delivery",
)
PEERS = ("peer_qemu_in", "peer_qemu_out")
FAIR = ("fairness", "fairness_served")
NAMES = (*ROOTS, *REMOTE, *PEERS, *RATES, *FAIR, *(workload.name for workload in WORKLOADS))


def describe_host() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return {
        "kernel": platform.release(),
        "cpu": cpu,
        "cpus": sorted(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


@dataclass
class Suite:
    """The steps of a choice."""

    choice: Choice
    note: Note

    def __post_init__(self) -> None:
        if self.choice.server is not None:
            tcp = isinstance(parse_address(self.choice.server), TcpAddress)
            self.choice = replace(self.choice, transports=("tcp" if tcp else "unix",))

    def _place(self, at: Conditions) -> contextlib.AbstractContextManager[Place]:
        return place_for(self.choice.server, at.transport, at.wait, at.cores)

    def steps(self) -> list[Step]:
        """What there is to do, without what was not asked for."""
        only = set(self.choice.only)
        return [step for step in self._all() if not only or only & set(step.names)]

    def _all(self) -> Iterator[Step]:
        choice = self.choice
        yield from self._roots()
        for transport in choice.transports:
            for wait in choice.waits:
                at = Conditions(transport, wait, choice.cores_for(wait), "", rtt_ns=choice.rtt_ns)
                yield from self._remote(at)
        yield from self._peers()
        if choice.server is None:
            yield from (self._rate(name) for name in RATES)
            yield from (self._fairness(flood) for flood in FLOODS)
        yield from self._workloads()

    def _roots(self) -> Iterator[Step]:
        count = self.choice.count
        yield plain("raw_exit", lambda: floors.exits(count))
        ring = plain("raw_coalesced_exit", lambda: floors.coalesced_exits(count))
        yield replace(ring, optional=True)
        yield plain("raw_irq_line", lambda: floors.irq_line(count))
        yield plain("raw_irq_delivery", lambda: floors.irq_delivery(count))
        yield plain("model_in", lambda: model_in(max(10, count // 10)))
        local = Bench(Place(None, "block"), self.choice.each)
        at = Conditions(policy=LOCAL)
        yield beside_floor("local_in", local.local_in, (Floors.exits,), at, self.choice.each)

    def _remote(self, at: Conditions) -> Iterator[Step]:
        each = self.choice.each
        yield from self._trips(replace(at, rtt_ns=0))
        both = partial(floors.exit_ping_pong, at.transport, at.wait, at.cores, each)
        parts_of_both = (Floors.exits, Floors.trip)
        here = replace(at, rtt_ns=0)
        yield beside_floor("raw_exit_pingpong", both, parts_of_both, here, each)
        trip: FloorParts = (Floors.exits, Floors.trip, *([Floors.rtt] if at.rtt_ns else []))
        for name, parts in (
            ("remote_in", trip),
            ("remote_out_finish", trip),
            ("remote_out_posted", (Floors.exits,)),
            ("remote_out_coalesced", (Floors.coalesced_exits,)),
            ("leased_in", (Floors.exits,)),
            ("rep_insb_512", trip),
        ):
            step = beside_floor(name, self._access(name, at), parts, at, each)
            yield replace(step, optional=name == "remote_out_coalesced")
        if self.choice.server is None and not at.rtt_ns:
            relayed = (Floors.exits, Floors.trip, Floors.trip)
            yield beside_floor("relayed_in", self._access("relayed_in", at), relayed, at, each)
        latency = {
            "irq_latency": (*trip, Floors.irq_line),
            "irq_latency_delivery": (*trip[1:], Floors.irq_delivery),
        }
        yield beside_floors(latency, self._access("irq_latency", at), at, each)

    def _trips(self, at: Conditions) -> Iterator[Step]:
        """Where both ends sleep, the cores that they sleep on matter most: all are shown."""
        for cores in ("any", "same", "apart") if at.wait == "block" else (at.cores,):
            here = replace(at, cores=cores)
            measure = partial(floors.ping_pong, at.transport, at.wait, cores, self.choice.count)
            yield plain("raw_pingpong", measure, here)
        if at.transport == "unix":
            measure = partial(floors.memory_ping_pong, at.wait, at.cores, self.choice.count)
            yield plain("raw_memory_pingpong", measure, at)

    def _access(self, name: str, at: Conditions) -> Callable[[], list[float]]:
        def measure() -> list[float]:
            where = (at.transport, at.wait, at.cores)
            relayed = name == "relayed_in"
            with relayed_place_for(*where) if relayed else self._place(at) as place:
                samples: list[float] = getattr(Bench(place, self._each(name, at)), name)()
            return samples

        return measure

    def _each(self, name: str, at: Conditions) -> int:
        """Fewer where every access waits for a long round trip."""
        each = self.choice.each
        if at.rtt_ns and name not in ("leased_in", "remote_out_posted", "remote_out_coalesced"):
            return max(10, min(each, 1_000_000_000 // at.rtt_ns))
        return each

    def _peers(self) -> Iterator[Step]:
        qemu = find_qemu()
        if qemu is None:
            if not self.choice.only or set(PEERS) & set(self.choice.only):
                self.note("qemu-system-x86_64 is not installed: its rows are left out")
            return

        def run() -> list[Row]:
            # The emulator's BIOS takes seconds: one run, with the floor before and behind it.
            floor = Floors(Conditions(), self.choice.each)
            before_ns = floor.exits().ns
            both = qemu_accesses(str(qemu), self.choice.each)
            below = [Part("raw_exit", (before_ns + floor.exits().ns) / 2)]
            return [
                make_row(name, samples, floor=below)
                for name, samples in zip(PEERS, both, strict=True)
            ]

        yield Step(PEERS, Conditions(), run, optional=True)

    def _rate(self, name: str) -> Step:
        rate = RATES[name]
        at = Conditions("unix", "adaptive", "apart", vms=rate.clients)
        return plain(name, lambda: server_rate(rate, self.choice.count), at)

    def _fairness(self, flood: str) -> Step:
        """Beside the same without a flood."""
        at = Conditions("unix", "adaptive", "apart", flood, vms=2)

        def run() -> list[Row]:
            alone, *both = fairness(flood, self.choice.each)
            below = [Part("alone", make_row("alone", alone).median_ns)]
            return [
                make_row(name, samples, at, floor=below)
                for name, samples in zip(FAIR, both, strict=True)
            ]

        return Step(FAIR, at, run)

    def _workloads(self) -> Iterator[Step]:
        choice = self.choice
        transport = choice.transports[0]
        # Unless one way to wait was asked for: what a user gets who says nothing.
        wait = choice.waits[0] if len(choice.waits) == 1 else "adaptive"
        at = Conditions(transport, wait, choice.cores_for(wait), "", rtt_ns=choice.rtt_ns)
        for workload in WORKLOADS:
            yield self._workload(workload, at)

    def _workload(self, workload: Workload, at: Conditions) -> Step:
        """Strict and declared beside local, all of one round before the next."""

        def run() -> list[Row]:
            took: dict[str, list[float]] = {policy: [] for policy in (LOCAL, STRICT, DECLARED)}
            for _ in range(TRIES):
                for policy, times in took.items():
                    if policy in self.choice.policies:
                        with self._place(at) as place:
                            times.append(workload.run(place, policy, at.rtt_ns))
            return list(_beside_local(workload.name, took, at))

        return Step((workload.name,), at, run)


def _beside_local(name: str, took: dict[str, list[float]], at: Conditions) -> Iterator[Row]:
    local = make_row(name, took[LOCAL]).median_ns if took[LOCAL] else None
    for policy, times in took.items():
        if not times:
            continue
        if policy == LOCAL:
            yield make_row(name, times, Conditions(policy=LOCAL, rtt_ns=at.rtt_ns))
        else:
            below = [] if local is None else [Part(f"{name} local", local)]
            yield make_row(name, times, replace(at, policy=policy), floor=below)
