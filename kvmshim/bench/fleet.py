"""Many VMs in one client process: what they do per second, and what they cost while they sleep.

``python -m kvmshim.bench.fleet ADDRESS SERVER_PID WAIT VMS ACCESSES`` prints one JSON object; the
benchmark starts it as a process of its own for each number of VMs, so that memory counts from zero.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kvmshim.bench.accesses import LATCH_PORT
from kvmshim.bench.guest import Kind, bench_plan
from kvmshim.bench.machines import Place, allow_descriptors, machine_spec
from kvmshim.errors import HostError
from kvmshim.loader import BootPlan
from kvmshim.machinefile import MachineSpec
from kvmshim.remote.link import Link, WaitPolicy
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import RunResult

#: Descriptors that one VM takes, generously.
_DESCRIPTORS_EACH = 24
#: How often a guest does what it does: as good as for ever.
_WITHOUT_END = 0xFFFFFFFF
_DEVICE = "testdev"
#: What is counted begins when each has made so many accesses, and takes at least so long.
_WARM_UP = 64
_SHORTEST_NS = 500_000_000
_LOOK_S = 0.1
#: They are calm when they take less than this share of a core for a look, which is a second long
#: unless fewer accesses than these are asked for; then they are looked at for some looks more.
_CALM = 0.1
_ENOUGH = 10_000
_IDLE_LOOKS = 5
_PATIENCE_S = 60.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Fleet:
    """What one number of VMs was like. ``*_ns`` is the time per access of them all together.

    ``settle_s`` is how long it took from their start until they were calm. Memory is resident, in
    bytes; processor time while all are idle is a share of one core.
    """

    wait: str
    vms: int
    posted_ns: float
    sync_ns: float
    start_s: float
    settle_s: float
    client_bytes: int
    server_bytes: int
    client_idle: float
    server_idle: float


def measure_fleet(address: str, server_pid: int, wait: str, vms: int, accesses: int) -> Fleet:
    """Runs three fleets after one another: idle, posting, reading."""
    allow_descriptors(vms * _DESCRIPTORS_EACH)
    place = Place(address, wait, "any")
    began_s = time.monotonic()
    with _fleet(place, machine_spec(), bench_plan(Kind.IDLE, 0, 0), vms) as idle:
        idle.start()
        start_s = time.monotonic() - began_s
        look_s = max(0.2, min(1.0, accesses / _ENOUGH))
        settle_s = _settle(look_s)
        shares = _shares((os.getpid(), server_pid), _IDLE_LOOKS * look_s)
        memory = [_resident_bytes(pid) for pid in (os.getpid(), server_pid)]
        idle.stop()
    posting = machine_spec(overrides={_DEVICE: {"LATCH": "posted"}})
    posted_ns = _time(place, posting, Kind.OUT, vms, accesses)
    sync_ns = _time(place, machine_spec(), Kind.IN, vms, accesses)
    return Fleet(
        wait=wait,
        vms=vms,
        posted_ns=posted_ns,
        sync_ns=sync_ns,
        start_s=round(start_s, 3),
        settle_s=round(settle_s, 3),
        client_bytes=memory[0],
        server_bytes=memory[1],
        client_idle=round(shares[0], 4),
        server_idle=round(shares[1], 4),
    )


def _time(place: Place, spec: MachineSpec, kind: Kind, vms: int, accesses: int) -> float:
    """ns per access of all VMs together, while all of them are at it."""
    with _fleet(place, spec, bench_plan(kind, LATCH_PORT, _WITHOUT_END), vms) as fleet:
        fleet.start()
        while min(fleet.made()) < _WARM_UP:
            fleet.look()
        began_ns, before = time.monotonic_ns(), sum(fleet.made())
        while True:
            fleet.look()
            made, took_ns = sum(fleet.made()) - before, time.monotonic_ns() - began_ns
            if made >= accesses and took_ns >= _SHORTEST_NS:
                break
        fleet.stop()
    return took_ns / made


class _Running:
    """Machines that are ready, each of which gets a thread to run in."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._machines = machines
        owners = [machine.view().find(_DEVICE)[0] for machine in machines]
        self._links = [owner for owner in owners if isinstance(owner, Link)]
        self._results: list[RunResult] = []
        self._gate = threading.Barrier(len(machines) + 1)
        self._threads = [
            threading.Thread(target=self._run, args=(machine,), daemon=True) for machine in machines
        ]

    def start(self) -> None:
        """Starts all of them at one moment."""
        for thread in self._threads:
            thread.start()
        self._gate.wait()

    def stop(self) -> None:
        """Stops all, and waits until they have."""
        for machine in self._machines:
            machine.stop()
        self._join()

    def made(self) -> list[int]:
        """How many accesses each has made by now."""
        stats = [link.handle.stats for link in self._links]
        return [int(each.requests + each.posted) for each in stats]

    def look(self) -> None:
        """Lets some time pass; raises HostError if one has ended, as none does by itself."""
        time.sleep(_LOOK_S)
        if self._results:
            raise HostError(f"a VM of the fleet has ended: {self._results[0].message}")

    def _run(self, machine: Machine) -> None:
        self._gate.wait()
        self._results.append(machine.run(timeout_s=_TIMEOUT_S))

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def _fleet(place: Place, spec: MachineSpec, plan: BootPlan, vms: int) -> Iterator[_Running]:
    wait = WaitPolicy(place.wait, cores=place.cores, share=place.share)
    with contextlib.ExitStack() as stack:
        machines = [
            stack.enter_context(Machine(spec, plan, server=place.server, wait=wait))
            for _ in range(vms)
        ]
        yield _Running(machines)


def _settle(look_s: float) -> float:
    """Waits until the VMs of this process have come to rest; how long that took (s)."""
    began_s = time.monotonic()
    while _shares((os.getpid(),), look_s)[0] > _CALM:
        if time.monotonic() - began_s > _PATIENCE_S:
            break
    return time.monotonic() - began_s


def _shares(pids: Sequence[int], duration_s: float) -> list[float]:
    """What share of a core each process uses for so long."""
    began_s = time.monotonic()
    before = [_cpu_s(pid) for pid in pids]
    time.sleep(duration_s)
    after = [_cpu_s(pid) for pid in pids]
    took_s = time.monotonic() - began_s
    return [(late - early) / took_s for early, late in zip(before, after, strict=True)]


def _cpu_s(pid: int) -> float:
    """Processor time that a process has used (proc(5), the fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes(pid: int) -> int:
    """Memory of a process (proc(5), statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _address, _pid, _wait, _vms, _accesses = sys.argv[1:]
    found = measure_fleet(_address, int(_pid), _wait, int(_vms), int(_accesses))
    print(json.dumps(asdict(found)))
