"""A virtual CPU that the Unicorn engine emulates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvmshim.abi import ffi, lib
from kvmshim.hypervisor.kvm.vcpu import Registers, readable
from kvmshim.hypervisor.unicorn import segments
from kvmshim.hypervisor.unicorn.delivery import FLAG_INTERRUPT, INVALID_OPCODE, deliver
from kvmshim.hypervisor.unicorn.engine import Engine, Error, Register, explain
from kvmshim.hypervisor.unicorn.faults import forget_exception

_GENERAL = {
    "rax": Register.EAX,
    "rbx": Register.EBX,
    "rcx": Register.ECX,
    "rdx": Register.EDX,
    "rsi": Register.ESI,
    "rdi": Register.EDI,
    "rsp": Register.ESP,
    "rbp": Register.EBP,
    "rip": Register.EIP,
    "rflags": Register.EFLAGS,
}
_CONTROL = {
    "cr0": Register.CR0,
    "cr2": Register.CR2,
    "cr3": Register.CR3,
    "cr4": Register.CR4,
}
#: After a reset: caches off, and the bit that is always set (Intel SDM volume 3, table 9-1).
_RESET_CR0 = 0x6000_0010
_RESET_LIMIT = 0xFFFF
_HLT = b"\xf4"
#: INT3, INT n, INTO, INT1: exceptions that a program asks for.
_INT_OPCODES = (0xCC, 0xCD, 0xCE, 0xF1)


def _nobody(access: Any) -> None:
    raise AssertionError("there are no devices in this process")


class UnicornVcpu:
    """The vCPU of a machine on the engine. It belongs to the thread that runs it."""

    fd = -1

    def __init__(self, engine: Engine, emulated: Any) -> None:
        """``emulated``: the ``struct emulated *`` that the engine's hooks have."""
        self._engine = engine
        self._emulated = emulated
        self._serve_local: Callable[[Any], None] = _nobody
        self._error: BaseException | None = None
        self._self = ffi.new_handle(self)
        emulated.context = self._self
        self.run_page = lib.emulated_run_page()
        if self.run_page == ffi.NULL:
            raise MemoryError("no memory for a vCPU")
        engine.write(Register.CR0, _RESET_CR0)
        engine.write(Register.CR4, 0)
        for register in segments.SEGMENTS.values():
            engine.write(register, 0)
        for register in (Register.GDTR, Register.IDTR):
            engine.write_table(register, 0, _RESET_LIMIT)

    def close(self) -> None:
        """Frees it; it must not run any more."""
        lib.emulated_free_run_page(self.run_page)
        self.run_page = ffi.NULL

    # -- running ------------------------------------------------------------------------------

    def run(self, handle: Any, serve_local: Callable[[Any], None]) -> int:
        """Runs the guest until it is to be left; one of ``enum vcpu_exit``."""
        self._emulated.vcpu = handle
        handle.emulated_code = ffi.addressof(self._emulated, "address")
        self._serve_local = serve_local
        lib.control_enter(handle.control, self.run_page)
        try:
            code = lib.VCPU_CONTINUE
            while code == lib.VCPU_CONTINUE:
                code = self._turn(handle)
            return int(code)
        finally:
            lib.control_leave(handle.control)

    def settle(self, handle: Any, serve_local: Callable[[Any], None]) -> int:
        """It is always left between two instructions."""
        del handle, serve_local
        return int(lib.VCPU_PAUSED)

    def complete(self, handle: Any) -> None:
        """It is always left between two instructions."""

    def explain(self, detail: int, instruction: str, in_long_mode: bool) -> str:
        """The engine's own words for an error of its."""
        return f"the Unicorn engine can't go on: {explain(detail)} ({detail}), at {instruction}"

    def _turn(self, handle: Any) -> int:
        """Once round the loop: whoever wants the vCPU, interrupts, the guest."""
        notifications = lib.control_notifications(handle.control)
        code = int(lib.vcpu_wanted(handle))
        if code != lib.VCPU_CONTINUE:
            return code
        lib.control_clear(handle.control, lib.CONTROL_PROBE)  # a halt is never overlooked here
        code = self._take_interrupt(handle)
        if code != lib.VCPU_CONTINUE:
            return code
        if not handle.halted:
            return self._slice(handle)
        if not self._engine.read(Register.EFLAGS) & FLAG_INTERRUPT:
            return int(lib.VCPU_HALTED)
        lib.control_sleep(handle.control, notifications)
        return int(lib.VCPU_CONTINUE)

    def _take_interrupt(self, handle: Any) -> int:
        """Tells the interrupt controllers of their lines; takes what they ask for, if it may be."""
        while (code := int(lib.irqchip_sync_lines(handle))) == lib.VCPU_LOCAL:
            self._serve_local(handle.access)
        if code != lib.VCPU_CONTINUE or not lib.irqchip_requests(handle):
            return code
        if not lib.emulated_takes_interrupt(self._engine.handle, self._emulated):
            return int(lib.VCPU_CONTINUE)
        code = int(lib.irqchip_acknowledge(handle))
        if code == lib.VCPU_LOCAL:
            self._serve_local(handle.access)
        elif code != lib.VCPU_CONTINUE:
            return code
        handle.halted = False
        delivered = deliver(self._engine, int(handle.vector), by_itself=False)
        return int(lib.VCPU_CONTINUE if delivered else lib.VCPU_SHUTDOWN)

    def _slice(self, handle: Any) -> int:
        """Runs the guest until anything happens."""
        state, engine = self._emulated, self._engine
        lib.emulated_prepare(state)
        error = engine.start(engine.read(Register.EIP))
        lib.emulated_undo(engine.handle, state)
        if self._error is not None:
            raised, self._error = self._error, None
            raise raised
        if state.result != lib.VCPU_CONTINUE:
            return int(state.result)
        if error == Error.INSN_INVALID:
            state.trap = INVALID_OPCODE
        elif error != Error.OK:
            handle.detail = error
            return int(lib.VCPU_INTERNAL)
        if state.trap != lib.EMULATED_NO_TRAP:
            return self._trap(int(state.trap))
        return int(lib.VCPU_CONTINUE) if state.stopped else self._stopped_by_itself(handle)

    def _trap(self, vector: int) -> int:
        """An exception, or an INT instruction; the engine's EIP is what is to be pushed."""
        by_itself = self._last_instruction()[:1] not in [bytes([c]) for c in _INT_OPCODES]
        if not deliver(self._engine, vector, by_itself=by_itself):
            return int(lib.VCPU_SHUTDOWN)
        if by_itself:
            forget_exception(self._engine)
        return int(lib.VCPU_CONTINUE)

    def _stopped_by_itself(self, handle: Any) -> int:
        """The engine stops at HLT, and when it can't even raise a double fault."""
        if self._last_instruction()[-1:] != _HLT:
            return int(lib.VCPU_SHUTDOWN)
        handle.halted = True
        return int(lib.VCPU_CONTINUE)

    def _last_instruction(self) -> bytes:
        state = self._emulated
        size = min(int(state.size), 15)
        return self._engine.read_memory(int(state.address), size)

    def serve(self) -> int:
        """Serves an access to a device in this process; 0, or -1 if that failed."""
        try:
            self._serve_local(self._emulated.vcpu.access)
        except BaseException as error:
            self._error = error
            return -1
        return 0

    # -- registers ----------------------------------------------------------------------------

    def get_regs(self) -> Any:
        """A ``struct kvm_regs *``."""
        regs = ffi.new("struct kvm_regs *")
        for name, register in _GENERAL.items():
            setattr(regs, name, self._engine.read(register))
        return regs

    def set_regs(self, regs: Any) -> None:
        """Takes one; registers of 64-bit mode are ignored."""
        for name, register in _GENERAL.items():
            self._engine.write(register, int(getattr(regs, name)) & 0xFFFF_FFFF)

    def get_sregs(self) -> Any:
        """A ``struct kvm_sregs *``, with selectors, bases, CR0 to CR4, GDT and IDT."""
        sregs = ffi.new("struct kvm_sregs *")
        for name, register in segments.SEGMENTS.items():
            segment = getattr(sregs, name)
            segment.selector = self._engine.read(register)
            segment.base = segments.base_of(self._engine, register)
        sregs.cs.db = segments.is_wide(self._engine, segments.SEGMENTS["cs"])
        for name, register in _CONTROL.items():
            setattr(sregs, name, self._engine.read(register))
        for table, register in ((sregs.gdt, Register.GDTR), (sregs.idt, Register.IDTR)):
            table.base, table.limit = self._engine.read_table(register)
        return sregs

    def set_sregs(self, sregs: Any) -> None:
        """Takes segments, the GDT and CR0 of one."""
        self._engine.write_table(Register.GDTR, int(sregs.gdt.base), int(sregs.gdt.limit))
        segments.load(self._engine, sregs)

    def save(self) -> bytes:
        """The processor's whole state, of use to the same version of the engine only."""
        context = self._engine.context()
        try:
            return context.state()
        finally:
            context.close()

    def load(self, state: bytes) -> None:
        """Takes one. Raises ValueError if it can't be one."""
        context = self._engine.context()
        try:
            context.take_state(state)
            context.restore()
        finally:
            context.close()

    def registers(self) -> Registers:
        """A readable copy of the registers. The vCPU must not be running."""
        return readable(self.get_regs(), self.get_sregs())


@ffi.def_extern(name="emulated_serve_local", error=-1)  # type: ignore[untyped-decorator]
def _serve_local(context: Any) -> int:
    vcpu: UnicornVcpu = ffi.from_handle(context)
    return vcpu.serve()
