"""What single accesses of a real guest cost, with its devices on a server and in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from devserver.machine.bus import Bus
from devserver.models.device import Signal, Space
from kvmshim.bench.guest import LINE_PORT, MARK_PORT, Kind, bench_plan, delays, means, periods
from kvmshim.bench.machines import BEHIND_RELAY, DECLARED, LOCAL, Place, machine_spec
from kvmshim.machinefile import default_machine

LATCH_PORT = 0xE0  # of the test device
LSR_PORT = 0x3FD
#: Writes between two marks: several rings full, so that the mark's own exit is a small part of
#: them, and so few that others seldom take the core away meanwhile.
BLOCK = 512
#: A sample of queued writes is long enough to have the sending of some in it: a batch goes out with
#: so many writes (LINK_BATCH_WRITES in native/src/link/link.h), or after WaitPolicy.flush_ns with
#: fewer.
BATCH = 64
_READS_EACH = 100
_ROOM_TO_SPARE = 1000


class Bench:
    """Runs the benchmark's guest at one place; every method gives samples in ns."""

    def __init__(self, place: Place, count: int) -> None:
        """``count`` is how many accesses are to be counted; a tenth more comes before them."""
        self._place = place
        self._count = count

    def remote_in(self) -> list[float]:
        """An IN that a server answers."""
        return self._periods(Kind.IN, LATCH_PORT)

    def relayed_in(self) -> list[float]:
        """An IN that an I/O server answers, by way of its owner."""
        total = self._with_warm_up(self._count)
        spec = machine_spec(places={"testdev": BEHIND_RELAY})
        trace = self._place.run(
            spec, bench_plan(Kind.IN, LATCH_PORT, total), total + _ROOM_TO_SPARE
        )
        return self._counted(periods(trace, LATCH_PORT), self._count)

    def remote_out_finish(self) -> list[float]:
        """An OUT that waits until the server has applied it."""
        return self._periods(Kind.OUT, LATCH_PORT, testdev="finish")

    def remote_out_posted(self) -> list[float]:
        """An OUT that is queued; each sample is the mean of 64, with their sending."""
        batches = max(10, self._count // 5)
        total = self._with_warm_up(batches) * BATCH
        spec = machine_spec(overrides={"testdev": {"LATCH": "posted"}})
        trace = self._place.run(spec, bench_plan(Kind.OUT, LATCH_PORT, total), total + BATCH)
        return self._counted(means(periods(trace, LATCH_PORT), BATCH), batches)

    def remote_out_coalesced(self) -> list[float]:
        """An OUT that makes no exit; each sample is the mean of a block."""
        blocks = max(10, self._count // 20)
        total = self._with_warm_up(blocks)
        spec = machine_spec(overrides={"testdev": {"LATCH": "coalesced"}})
        plan = bench_plan(Kind.BLOCKS, LATCH_PORT, total, BLOCK)
        trace = self._place.run(spec, plan, total * (BLOCK + 1) + _ROOM_TO_SPARE)
        return [sample / BLOCK for sample in self._counted(periods(trace, MARK_PORT), blocks)]

    def leased_in(self) -> list[float]:
        """An IN of the serial port's line status."""
        return self._periods(Kind.IN, LSR_PORT)

    def rep_insb_512(self) -> list[float]:
        """A REP INSB of 512 bytes."""
        return self._periods(Kind.REP_INSB, LATCH_PORT)

    def irq_latency(self) -> list[float]:
        """From an OUT that raises a line to the first instruction of the line's handler."""
        total = self._with_warm_up(self._count)
        plan = bench_plan(Kind.INTERRUPT, 0, total)
        trace = self._place.run(machine_spec(), plan, total * 4 + _ROOM_TO_SPARE)
        return self._counted(delays(trace, LINE_PORT, MARK_PORT), self._count)

    def local_in(self) -> list[float]:
        """An IN that a model in this process answers."""
        return self._periods(Kind.IN, LATCH_PORT, policy=LOCAL)

    def _periods(
        self, kind: Kind, port: int, *, policy: str = DECLARED, testdev: str = ""
    ) -> list[float]:
        total = self._with_warm_up(self._count)
        overrides = {"testdev": {"LATCH": testdev}} if testdev else {}
        spec = machine_spec(policy, overrides)
        trace = self._place.run(spec, bench_plan(kind, port, total), total + _ROOM_TO_SPARE)
        return self._counted(periods(trace, port), self._count)

    @staticmethod
    def _with_warm_up(count: int) -> int:
        return count + count // 10

    @staticmethod
    def _counted(samples: Sequence[float], count: int) -> list[float]:
        """The last ones: those before them warmed up caches and both ends' waiting."""
        return list(map(float, samples[-count:]))


def model_in(count: int) -> list[float]:
    """ns of a read in a bus, with no guest and no network: what the server's Python does.

    A sample is the mean of 100 reads; the clock itself costs as much as a tenth of one.
    """
    wirings = [device.wiring for device in default_machine().devices]
    bus = Bus(wirings, _Nowhere())
    samples = []
    for now_ns in range(0, count * 1000, 1000):
        before_ns = time.monotonic_ns()
        for _ in range(_READS_EACH):
            bus.read(Space.PORT, LATCH_PORT, 1, now_ns)
        samples.append((time.monotonic_ns() - before_ns) / _READS_EACH)
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
