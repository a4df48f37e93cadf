"""From what was seen at the end of a run to what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devserver.models.device import Signal
from devserver.protocol.messages import Event, EventKind, Message
from kvmshim.abi import lib
from kvmshim.errors import KvmError
from kvmshim.hypervisor.kvm.vcpu import Registers
from kvmshim.remote.link import Link
from kvmshim.vmm.code import Code
from kvmshim.vmm.outcome import Outcome, RunResult
from kvmshim.vmm.unclaimed import Unclaimed

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices


@dataclass
class Ending:
    """What is known when the vCPU has stopped."""

    code: int  # of vcpu_run
    detail: int
    explain: Callable[[int, str, bool], str]  # the vCPU's, of a detail of VCPU_INTERNAL
    links: Sequence[Link]
    local: LocalDevices | None
    messages: dict[int, list[Message]]  # what each link said that is not output, by its position
    registers: Registers | None
    at: Code | None = None  # where the registers say that the guest is
    timed_out_after_s: float | None = None
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    unclaimed: Unclaimed = field(default_factory=Unclaimed)
    trace: tuple[tuple[int, int], ...] = ()

    def result(self) -> RunResult:
        """The meaning of it all. Raises :class:`KvmError` if KVM_RUN itself failed."""
        meaning: dict[int, Callable[[], RunResult]] = {
            lib.VCPU_EVENT: self._event,
            lib.VCPU_REFUSED: self._event,
            lib.VCPU_LINK_LOST: self._lost,
            lib.VCPU_STOPPED: self._stopped,
            lib.VCPU_PAUSED: self._paused,
            lib.VCPU_HALTED: self._halted,
            lib.VCPU_FAILED: self._failed,
        }
        return meaning.get(self.code, self._crashed)()

    def _make(self, outcome: Outcome, message: str = "", **more: object) -> RunResult:
        fields: dict[str, object] = {
            "registers": self.registers,
            "stats": self.stats,
            "trace": self.trace,
            "unclaimed": self.unclaimed,
            **more,
        }
        return RunResult(outcome, message=message, **fields)  # type: ignore[arg-type]

    def _event(self) -> RunResult:
        if self.local is not None:
            if self.local.fault is not None:
                fault = self.local.fault
                if self.timed_out_after_s is not None:  # it was interrupted for that
                    return self._timed_out(f"; {fault}")
                return self._device_failed(str(fault), fault.details)
            for signal, value in self.local.signals:
                return self._signalled(signal == Signal.EXIT, value)
        for messages in self.messages.values():
            for message in messages:
                if isinstance(message, Event):
                    if message.kind == EventKind.FAULT:
                        first, _, rest = message.text.partition("\n")
                        return self._device_failed(first, rest)
                    return self._signalled(message.kind == EventKind.EXIT, message.value)
        return self._lost()

    def _signalled(self, is_exit: bool, value: int) -> RunResult:
        if is_exit:
            return self._make(Outcome.EXITED, status=value)
        return self._make(Outcome.RESET, "the guest reset the machine")

    def _device_failed(self, message: str, details: str) -> RunResult:
        lines = tuple(details.splitlines())
        return self._make(Outcome.DEVICE_FAILED, message, details=lines)

    def _lost(self) -> RunResult:
        for position, link in enumerate(self.links):
            if not link.is_open():
                why = link.why_lost(self.messages.get(position, ()))
                return self._make(Outcome.SERVER_LOST, why)
        return self._make(Outcome.SERVER_LOST, "a device server refused an access")

    def _stopped(self) -> RunResult:
        if self.timed_out_after_s is not None:
            return self._timed_out()
        return self._make(Outcome.STOPPED, "stopped")

    def _timed_out(self, more: str = "") -> RunResult:
        why = f"the guest did not end within {self.timed_out_after_s:g} s{more}"
        return self._with_registers(Outcome.TIMED_OUT, why)

    def _paused(self) -> RunResult:
        return self._make(Outcome.PAUSED, "paused")

    def _halted(self) -> RunResult:
        return self._with_registers(
            Outcome.HALTED, "the guest halted with interrupts off; nothing can wake it"
        )

    def _crashed(self) -> RunResult:
        causes: dict[int, str] = {
            lib.VCPU_SHUTDOWN: "triple fault",
            lib.VCPU_ENTRY_FAILED: f"the processor refused its state (reason {self.detail:#x})",
            lib.VCPU_INTERNAL: self._internal(),
            lib.VCPU_UNKNOWN_EXIT: f"an exit that is not supported (reason {self.detail})",
        }
        cause = causes.get(self.code, f"unexpected end (code {self.code})")
        return self._with_registers(Outcome.CRASHED, f"the guest crashed: {cause}")

    def _internal(self) -> str:
        if self.at is not None and not self.at.data:
            return f"it went to {self.at.address:#x}, where there is no memory"
        instruction = self.at.instruction if self.at else "that came next"
        in_long_mode = self.registers is not None and self.registers.in_long_mode
        return self.explain(self.detail, instruction, in_long_mode)

    def _with_registers(self, outcome: Outcome, message: str) -> RunResult:
        lines = self.registers.lines() if self.registers else []
        if self.at is not None and outcome is not Outcome.HALTED:  # it stands behind a HLT then
            lines.append(self.at.line())
        return self._make(outcome, message, details=tuple(lines))

    def _failed(self) -> RunResult:
        raise KvmError("KVM_RUN", self.detail, "vCPU 0")
