"""Guests that do what drivers do, from their first access to their last."""

from __future__ import annotations

from dataclasses import dataclass

from kvmshim.bench.guest import MARK_PORT, periods, workload_plan
from kvmshim.bench.machines import STRICT, Place, machine_spec
from kvmshim.errors import HostError

#: For how long a strict print may go on where every access waits for a long round trip.
_STRICT_PRINT_NS = 2_000_000_000
_ROOM_TO_SPARE = 1000


@dataclass(frozen=True)
class Workload:
    """A guest, how many of its things it does, and the most exits that each of them makes."""

    name: str
    guest: str
    count: int
    exits_each: int

    def run(self, place: Place, policy: str, rtt_ns: int = 0) -> float:
        """ns from the guest's first mark to its last, under a policy of ``machines``."""
        count = self._count_at(policy, rtt_ns)
        room = count * self.exits_each + _ROOM_TO_SPARE
        trace = place.run(machine_spec(policy), workload_plan(self.guest, count), room)
        marked = periods(trace, MARK_PORT)
        if len(marked) != 1:
            raise HostError(f"the workload {self.name} made more exits than could be recorded")
        return marked[0] * (self.count / count)

    def _count_at(self, policy: str, rtt_ns: int) -> int:
        """Fewer where each takes two round trips; the time is multiplied for those left out."""
        if policy != STRICT or not rtt_ns:
            return self.count
        return max(50, min(self.count, _STRICT_PRINT_NS // (2 * rtt_ns)))


WORKLOADS = (
    Workload("print_polled", "bench_print_polled", count=10_000, exits_each=4),
    Workload("print_irq", "bench_print_irq", count=10_000, exits_each=8),
    Workload("ticks_1000", "bench_ticks", count=1_000, exits_each=8),
    # Some processors' KVM exits for every element.
    Workload("rep_insw_1m", "bench_rep_insw", count=16, exits_each=0x8000),
)
