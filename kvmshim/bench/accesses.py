"""What accesses of a real guest cost, with its devices on a server and in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator

from devserver.backplane import Backplane
from devserver.models.device import Signal, Space
from kvmshim.bench.guest import LINE_PORT, MARK_PORT, Kind, bench_plan, delays, periods
from kvmshim.errors import HostError, ServerError
from kvmshim.link import WaitPolicy
from kvmshim.machine import Machine
from kvmshim.machinefile import default_machine
from kvmshim.machinefile.spec import PLACED_LOCALLY
from kvmshim.outcome import Outcome

LATCH_PORT = 0xE0  # the test device's: every access waits for its answer
POST_PORT = 0x80  # writes are posted
_READS_EACH = 100
_LISTENING = "devserver: listening on "


class Bench:
    """Runs the benchmark's guest against one server in one waiting mode."""

    def __init__(self, server: str | None, wait: str, count: int) -> None:
        """``server`` is an address; None starts one of this VM's own over a Unix socket."""
        self._server = server
        self._wait = WaitPolicy(wait)
        self._count = count

    def remote_in(self) -> list[int]:
        """ns of an IN that a server answers."""
        return self._periods(Kind.IN, LATCH_PORT)

    def remote_out_finish(self) -> list[int]:
        """ns of an OUT that waits until the server has applied it."""
        return self._periods(Kind.OUT, LATCH_PORT)

    def remote_out_posted(self) -> list[int]:
        """ns of an OUT that is queued."""
        return self._periods(Kind.OUT, POST_PORT)

    def rep_insb_512(self) -> list[int]:
        """ns of a REP INSB of 512 bytes."""
        return self._periods(Kind.REP_INSB, LATCH_PORT)

    def irq_latency(self) -> list[int]:
        """ns from an OUT that raises a line to the first instruction of the line's handler."""
        return delays(self._run(Kind.INTERRUPT, 0), LINE_PORT, MARK_PORT)

    def local_in(self) -> list[int]:
        """ns of an IN that a model in this process answers."""
        return self._periods(Kind.IN, LATCH_PORT, local=True)

    def _periods(self, kind: Kind, port: int, *, local: bool = False) -> list[int]:
        return periods(self._run(kind, port, local=local), port)

    def _run(self, kind: Kind, port: int, *, local: bool = False) -> tuple[tuple[int, int], ...]:
        warm_up = self._count // 10
        spec = default_machine()
        if local:
            devices = tuple(
                dataclasses.replace(device, placement=PLACED_LOCALLY) for device in spec.devices
            )
            spec = dataclasses.replace(spec, devices=devices)
        plan = bench_plan(kind, port, warm_up + self._count)
        exits_each = 4 if kind is Kind.INTERRUPT else 1
        with Machine(spec, plan, server=self._server, wait=self._wait) as machine:
            result = machine.run(
                timeout_s=60, trace_exits=(warm_up + self._count + 100) * exits_each
            )
        if result.outcome is not Outcome.EXITED:
            raise HostError(f"the benchmark's guest did not end well: {result.message}")
        return result.trace[warm_up * exits_each :]


def model_in(count: int) -> list[int]:
    """ns of a read in a backplane, with no guest and no network: what the server's Python does.

    A sample is the mean of 100 reads; the clock itself costs as much as a tenth of one.
    """
    wirings = [device.wiring for device in default_machine().devices]
    backplane = Backplane(wirings, _Nowhere())
    samples = []
    for now_ns in range(0, count * 1000, 1000):
        before_ns = time.monotonic_ns()
        for _ in range(_READS_EACH):
            backplane.read(Space.PORT, LATCH_PORT, 1, now_ns)
        samples.append((time.monotonic_ns() - before_ns) // _READS_EACH)
    return samples


class _Nowhere:
    """A sink for what devices say."""

    def line(self, line: int, level: bool) -> None:
        pass

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        pass

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        pass

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        pass


@contextlib.contextmanager
def tcp_server(wait: str) -> Iterator[str]:
    """A server on a TCP port of this machine while it lasts; gives its address."""
    command = [sys.executable, "-m", "devserver", "serve", "--listen", "tcp://127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--log", "error", "--wait", wait],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith(_LISTENING):
            raise ServerError("the benchmark's server did not start; see its message above")
        yield line.removeprefix(_LISTENING).strip()
    finally:
        process.terminate()
        process.wait()
