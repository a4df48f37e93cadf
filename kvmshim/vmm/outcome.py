"""How a run ended, and the exit status that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmshim.hypervisor.kvm.vcpu import Registers

#: Guest statuses up to this are the command's exit status, unchanged.
MAX_GUEST_STATUS = 111

EXIT_GUEST_STATUS_TOO_LARGE = 112
EXIT_BAD_INPUT = 113
EXIT_HOST = 114
EXIT_SERVER_UNREACHABLE = 115
EXIT_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
EXIT_TERMINATED = 143  # 128 + SIGTERM


class Outcome(Enum):
    """Why a run ended; the value is the exit status of ``kvmshim run``."""

    EXITED = 0  # the guest ended itself; the exit status is the guest's own
    SERVER_LOST = 116
    CRASHED = 117
    HALTED = 118
    DEVICE_FAILED = 119
    RESET = 120
    PAUSED = 121  # to be gone on with
    TIMED_OUT = 124
    STOPPED = 130


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    ``status`` is what the guest wrote to its exit port, if it did; ``message`` one line for people,
    empty after an ordinary exit; ``details`` further lines (registers, a model's traceback);
    ``stats`` counters: exits of the vCPU, and of each link; ``trace`` the time (CLOCK_MONOTONIC,
    ns) and port of each exit, if they were asked for.
    """

    outcome: Outcome
    status: int | None = None
    message: str = ""
    details: tuple[str, ...] = ()
    registers: Registers | None = None
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    trace: tuple[tuple[int, int], ...] = ()

    @property
    def exit_status(self) -> int:
        """The exit status of a process that ran this guest."""
        if self.outcome is not Outcome.EXITED or self.status is None:
            return self.outcome.value
        fits = self.status <= MAX_GUEST_STATUS
        return self.status if fits else EXIT_GUEST_STATUS_TOO_LARGE
