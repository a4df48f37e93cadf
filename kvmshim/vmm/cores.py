"""Which processor cores a virtual CPU and its embedded server run on.

Waking a thread on a core that sleeps costs several times what waking one on the same core does
(``kvmshim bench`` shows both), so two ends that wait for each other asleep belong on one core, and
two that wait awake on two.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

MODES = ("auto", "any", "same", "apart")


@dataclass(frozen=True)
class Cores:
    """The cores that each may run on; None leaves it to the kernel."""

    mode: str = "any"
    vcpu: frozenset[int] | None = None
    server: frozenset[int] | None = None

    def bind_vcpu(self) -> None:
        """Binds the calling thread."""
        _bind(0, self.vcpu)

    def bind_server(self, pid: int) -> None:
        """Binds the embedded server, a process with one thread."""
        _bind(pid, self.server)


def choose(mode: str, wait_mode: str, *, embedded: bool) -> Cores:
    """The cores for a mode of :data:`MODES`.

    ``auto`` is ``same`` for an embedded server where both ends always sleep, else ``any``.
    ``apart`` takes two of the cores that this process may run on, and is ``any`` where there is but
    one.
    """
    if mode == "auto":
        mode = "same" if embedded and wait_mode == "block" else "any"
    usable = sorted(os.sched_getaffinity(0))
    if mode == "same":
        return Cores(mode, frozenset(usable[-1:]), frozenset(usable[-1:]))
    if mode == "apart" and len(usable) > 1:
        return Cores(mode, frozenset(usable[-1:]), frozenset(usable[-2:-1]))
    return Cores()


def _bind(pid: int, cores: frozenset[int] | None) -> None:
    if cores is not None:
        os.sched_setaffinity(pid, cores)
