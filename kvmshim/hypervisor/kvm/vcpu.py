"""A virtual CPU: KVM's vCPU level. Its calls belong to the thread that runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kvmshim import abi
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError

_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "rip", "rflags")
#: Those that only long mode has.
_FURTHER = tuple(f"r{number}" for number in range(8, 16))
_CPUID_FIELDS = ("function", "index", "flags", "eax", "ebx", "ecx", "edx")
_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
#: Bit 1 of the flags register is always set (Intel SDM vol. 1, 3.4.3).
FLAGS_RESERVED = 0x2
CR0_PE = 0x1
_EFER_LMA = 0x400


@dataclass(frozen=True)
class Registers:
    """What a person wants to see of a CPU: general registers, segments, control registers."""

    general: dict[str, int]
    selectors: dict[str, int]
    bases: dict[str, int]
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int = 0
    #: 16, 32 or 64: how its code is to be read.
    code_bits: int = 16

    def lines(self) -> list[str]:
        """A dump in the usual form, several registers to a line."""
        g = self.general
        mode = "real"
        if self.cr0 & CR0_PE:
            mode = "long" if self.in_long_mode else "protected"
        rows = [
            f"{mode} mode, cs:ip = {self.selectors['cs']:04x}:{g['rip']:08x} "
            f"(linear {self.bases['cs'] + g['rip']:#x}), flags {g['rflags']:08x}",
            self._values(_REGISTERS[:4]),
            self._values(_REGISTERS[4:8]),
            *(self._values(names) for names in (_FURTHER[:4], _FURTHER[4:]) if self.in_long_mode),
            " ".join(f"{name}={self.selectors[name]:04x}" for name in _SEGMENTS),
            f"cr0={self.cr0:08x} cr2={self.cr2:08x} cr3={self.cr3:08x} cr4={self.cr4:08x}",
        ]
        return rows

    @property
    def in_long_mode(self) -> bool:
        """Whether its registers have 64 bits."""
        return bool(self.efer & _EFER_LMA)

    def _values(self, names: tuple[str, ...]) -> str:
        """A row of general registers, as wide as they are."""
        if self.in_long_mode:
            return " ".join(f"{name}={self.general[name]:016x}" for name in names)
        return " ".join(f"{name[1:]}={self.general[name] & 0xFFFFFFFF:08x}" for name in names)


def readable(regs: Any, sregs: Any) -> Registers:
    """What a ``struct kvm_regs`` and a ``struct kvm_sregs`` have for a person to see."""
    return Registers(
        general={name: int(getattr(regs, name)) for name in (*_REGISTERS, *_FURTHER)},
        selectors={name: int(getattr(sregs, name).selector) for name in _SEGMENTS},
        bases={name: int(getattr(sregs, name).base) for name in _SEGMENTS},
        cr0=int(sregs.cr0),
        cr2=int(sregs.cr2),
        cr3=int(sregs.cr3),
        cr4=int(sregs.cr4),
        efer=int(sregs.efer),
        code_bits=64 if sregs.cs.l else 32 if sregs.cs.db else 16,
    )


#: What suberrors mean (linux/kvm.h, KVM_INTERNAL_ERROR_…).
_INTERNAL_ERRORS = {
    lib.KVM_INTERNAL_ERROR_SIMUL_EX: "two exceptions at once",
    lib.KVM_INTERNAL_ERROR_DELIVERY_EV: "an exit while it delivered an exception or interrupt",
    lib.KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: "an exit that it does not know",
}


class Vcpu:
    """One vCPU and its ``kvm_run`` mapping."""

    def __init__(self, fd: int, number: int, map_bytes: int) -> None:
        self.fd = fd
        self._what = f"vCPU {number}"
        self._map_bytes = map_bytes
        #: The table that the guest sees, as :meth:`set_cpuid` takes it.
        self.cpuid: tuple[tuple[int, ...], ...] = ()
        self.run_page = lib.kvm_map_run(fd, map_bytes)
        if self.run_page == ffi.NULL:
            number = ffi.errno
            lib.kvm_close(fd)
            raise HostError(f"can't map the kvm_run page of {self._what}: {os.strerror(number)}")

    def set_cpuid(self, rows: tuple[tuple[int, ...], ...]) -> None:
        """KVM_SET_CPUID2, with rows of function, index, flags, EAX, EBX, ECX, EDX."""
        table = ffi.new("struct kvm_cpuid2 *", {"entries": len(rows)})
        table.nent = len(rows)
        for entry, row in zip(table.entries[0 : len(rows)], rows, strict=True):
            for name, value in zip(_CPUID_FIELDS, row, strict=True):
                setattr(entry, name, value)
        self.cpuid = rows
        abi.call(self.fd, "KVM_SET_CPUID2", table, self._what)

    def run(self, handle: Any, serve_local: Callable[[Any], None]) -> int:
        """KVM_RUN, over and over, until the guest is to be left; one of ``enum vcpu_exit``.

        ``handle`` is the ``struct vcpu`` of this run; ``serve_local`` serves its ``access``, one
        to a device in this process.
        """
        return self._serving(lib.vcpu_run, handle, serve_local)

    def settle(self, handle: Any, serve_local: Callable[[Any], None]) -> int:
        """After VCPU_PAUSED: to an instruction boundary; VCPU_PAUSED, or what else came."""
        return self._serving(lib.vcpu_quiesce, handle, serve_local)

    def complete(self, handle: Any) -> None:
        """Has KVM finish the access that was served last, so that registers are right."""
        lib.vcpu_complete(handle)

    def explain(self, detail: int, instruction: str, in_long_mode: bool) -> str:
        """What VCPU_INTERNAL means."""
        what = f"KVM_EXIT_INTERNAL_ERROR, suberror {detail}"
        if detail == lib.KVM_INTERNAL_ERROR_EMULATION:
            said = f"this host's KVM can't emulate the instruction {instruction} ({what})"
            if in_long_mode:  # Unicorn emulates a 32-bit processor
                return said
            return f"{said}; '--hypervisor unicorn' may run it, as it needs no KVM"
        meaning = _INTERNAL_ERRORS.get(detail, "an error of its own")
        return f"KVM can't go on: {meaning} ({what})"

    def _serving(
        self, act: Callable[[Any], int], handle: Any, serve_local: Callable[[Any], None]
    ) -> int:
        while (code := act(handle)) == lib.VCPU_LOCAL:
            serve_local(handle.access)
        return code

    def get_regs(self) -> Any:
        """KVM_GET_REGS: a ``struct kvm_regs *``."""
        regs = ffi.new("struct kvm_regs *")
        abi.call(self.fd, "KVM_GET_REGS", regs, self._what)
        return regs

    def set_regs(self, regs: Any) -> None:
        """KVM_SET_REGS."""
        abi.call(self.fd, "KVM_SET_REGS", regs, self._what)

    def get_sregs(self) -> Any:
        """KVM_GET_SREGS: a ``struct kvm_sregs *``."""
        sregs = ffi.new("struct kvm_sregs *")
        abi.call(self.fd, "KVM_GET_SREGS", sregs, self._what)
        return sregs

    def set_sregs(self, sregs: Any) -> None:
        """KVM_SET_SREGS."""
        abi.call(self.fd, "KVM_SET_SREGS", sregs, self._what)

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE: whether it runs, is halted, or waits for another processor."""
        state = ffi.new("struct kvm_mp_state *")
        abi.call(self.fd, "KVM_GET_MP_STATE", state, self._what)
        return int(state.mp_state)

    def set_mp_state(self, mp_state: int) -> None:
        """KVM_SET_MP_STATE."""
        argument = ffi.new("struct kvm_mp_state *", {"mp_state": mp_state})
        abi.call(self.fd, "KVM_SET_MP_STATE", argument, self._what)

    def registers(self) -> Registers:
        """A readable copy of the registers. The vCPU must not be running."""
        return readable(self.get_regs(), self.get_sregs())

    def close(self) -> None:
        """Unmaps ``kvm_run`` and closes the vCPU."""
        if self.fd >= 0:
            lib.kvm_unmap_run(self.run_page, self._map_bytes)
            lib.kvm_close(self.fd)
            self.fd = -1
