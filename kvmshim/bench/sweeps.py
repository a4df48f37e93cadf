"""Sweeps: how figures change with a network's round trip, the number of VMs, and of clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from kvmshim.bench.fleet import Fleet
from kvmshim.bench.machines import serving
from kvmshim.bench.rows import Conditions, Row, align, make_row
from kvmshim.bench.throughput import RATES, server_rate
from kvmshim.errors import HostError

RTTS_NS = (0, 100_000, 1_000_000, 10_000_000)
RTT_NAMES = ("remote_in", "remote_out_posted", "remote_out_coalesced", "leased_in", "print_polled")
VMS = (1, 8, 64, 200, 500)
CLIENTS = (1, 8, 64, 256, 1000)
CLIENT_NAMES = ("server_posted_per_s", "server_sync_per_s")
FLEET_NAMES = ("vms_posted_per_s", "vms_sync_per_s")
ROUNDS = 3
#: Accesses of all VMs together for each repetition that is asked for.
_ACCESSES_EACH = 10


def check_lab() -> None:
    """Raises what ``kvmshim lab`` would: it needs root, and a package."""
    if find_spec("pyroute2") is None:
        raise HostError("--sweep rtt needs pyroute2; install it with: pip install 'kvmshim[lab]'")
    if os.geteuid() != 0:
        raise HostError("--sweep rtt builds network namespaces and needs root; run it with sudo")


def sweep_rtt(rtt_ns: int, count: int, waits: Sequence[str]) -> list[Row]:
    """The rows of :data:`RTT_NAMES` with a server that is ``rtt_ns`` away, in a lab."""
    from kvmshim.lab.run import Lab

    with Lab(rtt_ns, 0.0, 1) as lab:
        address = lab.conditions.servers[0]
        options = ["--server", address, "--count", str(count), "--json", "--only", *RTT_NAMES]
        options += [f"--wait={wait}" for wait in waits]
        command = [sys.executable, "-m", "kvmshim", "bench", *options]
        process = lab.start(command, stdout=subprocess.PIPE)
        said, _ = process.communicate()
    if process.returncode:
        raise HostError(f"the benchmark in the lab ended with status {process.returncode}")
    return [Row(**row) for row in json.loads(said)["rows"]]


def rtt_of_this_lab() -> int:
    """The round trip (ns) of the lab that this process runs in; 0 outside of one."""
    about = os.environ.get("KVMSHIM_LAB")
    return int(json.loads(about)["rtt_ns"]) if about else 0


def sweep_clients(clients: int, count: int) -> list[Row]:
    """The rows of :data:`CLIENT_NAMES` with so many clients."""
    at = Conditions("unix", "adaptive", "apart", vms=clients)
    return [
        make_row(name, server_rate(replace(RATES[name], clients=clients), count), at)
        for name in CLIENT_NAMES
    ]


@dataclass(frozen=True)
class FleetRun:
    """What a number of VMs did: rows, and what they took while they were idle."""

    rows: list[Row]
    idle: list[Fleet]


def sweep_vms(vms: int, count: int, waits: Sequence[str]) -> FleetRun:
    """So many VMs in one client process, with one server, waiting in each of these ways."""
    rounds = [[_fleet(wait, vms, count) for wait in waits] for _ in range(ROUNDS)]
    found = FleetRun([], [])
    for wait, fleets in zip(waits, zip(*rounds, strict=True), strict=True):
        at = Conditions("unix", wait, "any", vms=vms)
        samples = ([fleet.posted_ns for fleet in fleets], [fleet.sync_ns for fleet in fleets])
        found.rows.extend(
            make_row(name, each, at) for name, each in zip(FLEET_NAMES, samples, strict=True)
        )
        found.idle.append(sorted(fleets, key=lambda fleet: fleet.client_idle)[ROUNDS // 2])
    return found


def _fleet(wait: str, vms: int, count: int) -> Fleet:
    with tempfile.TemporaryDirectory() as folder:
        listen = f"unix:{folder}/server"
        with serving(listen, wait, "any", "--max-clients", "1024") as (address, pid):
            arguments = [address, str(pid), wait, str(vms), str(count * _ACCESSES_EACH)]
            done = subprocess.run(
                [sys.executable, "-m", "kvmshim.bench.fleet", *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
    if done.returncode:
        why = why_ended(done.returncode, done.stderr)
        raise HostError(f"{vms} VMs in one process can't be measured: {why}")
    return Fleet(**json.loads(done.stdout))


def why_ended(status: int, said: str) -> str:
    """Why a process failed: its last words, or the signal that it died of."""
    if status < 0:
        hint = "; is there memory enough?" if -status == signal.SIGKILL else ""
        return f"it was killed by {signal.Signals(-status).name}{hint}"
    return (said.strip().splitlines() or [f"it ended with status {status} and no word"])[-1]


def idle_table(fleets: Sequence[Fleet]) -> list[str]:
    """What idle VMs take, for people."""
    lines = [
        (
            "idle VMs",
            "wait",
            "client",
            "server",
            "client CPU",
            "server CPU",
            "started in",
            "calm after",
        )
    ]
    lines += [
        (
            str(fleet.vms),
            fleet.wait,
            f"{fleet.client_bytes / 1e6:.0f} MB",
            f"{fleet.server_bytes / 1e6:.0f} MB",
            f"{fleet.client_idle:.2%}",
            f"{fleet.server_idle:.2%}",
            f"{fleet.start_s:.2f} s",
            f"{fleet.settle_s:.0f} s",
        )
        for fleet in fleets
    ]
    return align(lines, [True] * len(lines[0]))
