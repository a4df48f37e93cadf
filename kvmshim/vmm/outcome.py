"""How a run ended, and the exit status that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Self

from kvmshim.errors import GuestError
from kvmshim.vmm.unclaimed import Unclaimed

if TYPE_CHECKING:
    from kvmshim.hypervisor.kvm.vcpu import Registers
    from kvmshim.loader import Guess

#: Guest statuses up to this are the command's exit status, unchanged.
MAX_GUEST_STATUS = 111

EXIT_GUEST_STATUS_TOO_LARGE = 112
EXIT_BAD_INPUT = 113
EXIT_HOST = 114
EXIT_SERVER_UNREACHABLE = 115
EXIT_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
EXIT_OUTPUT_GONE = 141  # 128 + SIGPIPE
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


#: Ends that are not the guest's own wish, after which one asks why.
_UNWANTED = frozenset(
    (Outcome.CRASHED, Outcome.HALTED, Outcome.RESET, Outcome.TIMED_OUT, Outcome.STOPPED)
)
#: Those of them that an image has if it is run as what it is not.
_MISTAKEN = frozenset((Outcome.CRASHED, Outcome.HALTED, Outcome.TIMED_OUT))


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    ``status`` is what the guest wrote to its exit port, if it did; ``message`` one line for people,
    empty after an ordinary exit; ``details`` further lines (registers, a model's traceback);
    ``stats`` counters: exits of the vCPU, and of each link; ``trace`` the time (CLOCK_MONOTONIC,
    ns) and port of each exit, if they were asked for.

    ``unclaimed`` is what the guest accessed and nobody claims, with the last POST codes; ``guess``
    what its image was taken for, if that was not given; ``screen`` the lines of text that it left
    in the text screen's memory (B8000h), which nobody shows.
    """

    outcome: Outcome
    status: int | None = None
    message: str = ""
    details: tuple[str, ...] = ()
    registers: Registers | None = None
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    trace: tuple[tuple[int, int], ...] = ()
    unclaimed: Unclaimed = field(default_factory=Unclaimed)
    guess: Guess | None = None
    screen: tuple[str, ...] = ()

    def reasons(self) -> list[str]:
        """Lines for people on why the guest may not have run; none if it ended by itself."""
        if self.outcome not in _UNWANTED:
            return []
        lines = self.unclaimed.lines()
        if self.screen:
            lines.append("the guest's text screen (B8000h), which nobody shows, ends with:")
            lines += [f"  {line}" for line in self.screen]
        if self.guess is not None and self.outcome in _MISTAKEN:
            lines += self.guess.lines()
        return lines

    def check(self, status: int = 0) -> Self:
        """This result, if the guest ended by itself with ``status``.

        Raises :class:`GuestError` if not; its text says how it ended, and why that may be.
        """
        if self.outcome is Outcome.EXITED and self.status == status:
            return self
        if self.outcome is Outcome.EXITED:
            raise GuestError(f"the guest ended with status {self.status}, not {status}")
        raise GuestError("\n".join([self.message, *self.details, *self.reasons()]))

    @property
    def exit_status(self) -> int:
        """The exit status of a process that ran this guest."""
        if self.outcome is not Outcome.EXITED or self.status is None:
            return self.outcome.value
        fits = self.status <= MAX_GUEST_STATUS
        return self.status if fits else EXIT_GUEST_STATUS_TOO_LARGE
