"""Runs two tiny real-mode guests and takes their time: how fast code runs, what an exit costs."""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kvmshim.abi import ffi, lib
from kvmshim.doctor.report import Measurements
from kvmshim.errors import HostError, KvmError
from kvmshim.hypervisor.cpu_start import apply_start
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vcpu import Vcpu
from kvmshim.hypervisor.mapping import PAGE_BYTES, MemoryMapping
from kvmshim.loader.plan import RealStart

_ORIGIN = 0x100
_COUNT_ADDRESS = 0x200

# Port EDh is nobody's on a PC. Both guests are assembled for 16 bits at 100h.
#
#   again:  in al, 0EDh
#           jmp again
_EXITS = bytes.fromhex("e4 ed  eb fc")

#   outer:  mov ecx, [200h]
#   inner:  dec ecx
#           jnz inner
#           in al, 0EDh
#           jmp outer
_LOOP = bytes.fromhex("66 8b 0e 00 02  66 49  75 fc  e4 ed  eb f3")
_LOOP_INSTRUCTIONS = 2
_OTHER_INSTRUCTIONS = 3  # mov, in, jmp

_WARM_UP_EXITS = 50
_EXIT_SAMPLES = 3000
# Long enough for the clock and the odd interrupt not to matter, short for a software emulator.
_LONG_ENOUGH_NS = 4_000_000
_FIRST_COUNT, _LAST_COUNT, _GROWTH = 2_000, 16_384_000, 8
_REPEATS = 3
_ATTEMPTS = 5


@dataclass(frozen=True)
class _Guest:
    vcpu: Vcpu
    memory: MemoryMapping

    def exits(self, count: int) -> list[int]:
        """Runs the guest until its ``count``-th IN; the time to each in ns."""
        samples = ffi.new("uint64_t[]", count)
        page = self.vcpu.run_page
        if lib.floor_exits(self.vcpu.fd, page, samples, count) == 0:
            return [int(sample) for sample in samples]
        number = ffi.errno
        if number == errno.EPROTO:
            raise HostError(f"a guest's IN ended in KVM exit reason {int(page.exit_reason)}")
        raise KvmError("KVM_RUN", number, "a vCPU")


def measure(path: str) -> Measurements:
    """Runs the guests on the KVM at ``path``; raises :class:`KvmError` or :class:`HostError`."""
    for _ in range(_ATTEMPTS):
        try:
            return _measure(path)
        except KvmError as error:
            if error.errno != errno.EINTR:  # the terminal's Ctrl-Z, a debugger: begin again
                raise
    raise HostError("running a guest was interrupted again and again")


def _measure(path: str) -> Measurements:
    with System(path) as system:
        with _guest(system, _EXITS) as guest:
            guest.exits(_WARM_UP_EXITS)
            samples = sorted(guest.exits(_EXIT_SAMPLES))
        median_ns = samples[len(samples) // 2]
        with _guest(system, _LOOP) as guest:
            rate = _instructions_per_second(guest, median_ns)
    return Measurements(rate, median_ns, samples[len(samples) * 99 // 100])


def _instructions_per_second(guest: _Guest, exit_ns: int) -> float:
    """The best of several runs, each less the cost of its one exit."""
    count = _FIRST_COUNT
    while _run_loop(guest, count) < _LONG_ENOUGH_NS and count < _LAST_COUNT:
        count *= _GROWTH
    fastest_ns = min(_run_loop(guest, count) for _ in range(_REPEATS))
    instructions = count * _LOOP_INSTRUCTIONS + _OTHER_INSTRUCTIONS
    return instructions * 1e9 / max(1, fastest_ns - exit_ns)


def _run_loop(guest: _Guest, count: int) -> int:
    """Goes ``count`` times around the loop; ns with the exit at its end."""
    guest.memory.write(_COUNT_ADDRESS, struct.pack("<I", count))
    (elapsed_ns,) = guest.exits(1)
    return elapsed_ns


@contextlib.contextmanager
def _guest(system: System, code: bytes) -> Iterator[_Guest]:
    """A VM of one page, with the in-kernel interrupt controllers as a real run has them."""
    memory = MemoryMapping(PAGE_BYTES)
    with contextlib.ExitStack() as stack:
        stack.callback(memory.close)
        vm = system.create_vm()
        stack.callback(vm.close)
        vm.prepare_real_mode()
        vm.create_irqchip()
        vm.map_memory(0, memory)
        memory.write(_ORIGIN, code)
        vcpu = vm.create_vcpu()
        apply_start(vcpu, RealStart(cs_selector=0, cs_base=0, ip=_ORIGIN, sp=PAGE_BYTES))
        yield _Guest(vcpu, memory)
