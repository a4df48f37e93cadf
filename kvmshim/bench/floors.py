"""Floors: a KVM exit, a round trip over a socket, an interrupt, each on its own, in C."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from devserver.protocol.codec import LAYOUTS
from devserver.protocol.limits import FRAME_HEADER_BYTES
from devserver.protocol.messages import MessageType
from kvmshim.abi import CAPABILITIES, ffi, lib
from kvmshim.bench.guest import LINE, LINE_PORT, MARK_PORT, Kind, bench_plan
from kvmshim.errors import HostError
from kvmshim.hypervisor.cpu_start import apply_start
from kvmshim.hypervisor.guest_memory import GuestMemory
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.kvm.vm import Vm
from kvmshim.machinefile.spec import DEFAULT_MEMORY_BYTES
from kvmshim.vmm.cores import Cores, choose

#: What an IN of one byte sends and gets back.
_REQUEST_BYTES = FRAME_HEADER_BYTES + LAYOUTS[MessageType.REQUEST].size
_FEEDBACK_BYTES = FRAME_HEADER_BYTES + LAYOUTS[MessageType.FEEDBACK].size + 1
_UNCLAIMED_PORT = 0x300
_FOR_EVER = 0xFFFF_FFFF
_ANY_CORE = -1
_NO_VCPU = -1


def exits(count: int) -> list[int]:
    """Samples (ns) of an ``IN`` that nobody answers: exit, re-entry, the guest's loop."""
    with _vm(Kind.IN) as (_, vcpu):
        return _samples(count, lambda out, n: lib.floor_exits(vcpu.fd, vcpu.run_page, out, n))


def coalesced_exits(count: int) -> list[int]:
    """Samples (ns) of an ``OUT`` into KVM's ring; each is the mean of a ring full of them.

    Raises HostError where this KVM has no ring for ports.
    """
    page = _ring_page()
    full_rings = max(10, count // 100)
    with _vm(Kind.OUT) as (vm, vcpu):
        return _samples(
            full_rings,
            lambda out, n: lib.floor_coalesced(
                vm.fd, vcpu.fd, vcpu.run_page, page, _UNCLAIMED_PORT, out, n
            ),
        )


def irq_line(count: int) -> list[int]:
    """Samples (ns) of one KVM_IRQ_LINE."""
    with _vm(Kind.IN) as (vm, _):
        return _samples(count, lambda out, n: lib.floor_irq_line(vm.fd, LINE, out, n))


def irq_delivery(count: int) -> list[int]:
    """Samples (ns) from raising a line to the exit of the first instruction of its handler."""
    interrupt = ffi.new("struct floor_interrupt *", (LINE, LINE_PORT, MARK_PORT))
    with _vm(Kind.INTERRUPT) as (vm, vcpu):
        return _samples(
            count,
            lambda out, n: lib.floor_irq_delivery(vm.fd, vcpu.fd, vcpu.run_page, interrupt, out, n),
        )


def ping_pong(transport: str, wait: str, cores: str, count: int) -> list[int]:
    """Samples (ns) of a round trip of an IN's bytes between two threads, written in C.

    Both ends run where a virtual CPU and its server would (``cores``, :mod:`kvmshim.vmm.cores`).
    Both sleep with ``block``, and with ``adaptive`` where they have one core between them.
    """
    return _trips(transport, wait, cores, count, _NO_VCPU, ffi.NULL)


def memory_ping_pong(wait: str, cores: str, count: int) -> list[int]:
    """The same, with bytes that go through memory which both ends have."""
    return _trips("unix", wait, cores, count, _NO_VCPU, ffi.NULL, memory=True)


def exit_ping_pong(transport: str, wait: str, cores: str, count: int) -> list[int]:
    """Samples (ns) of an exit and, behind it, such a round trip, in the same C loop."""
    with _vm(Kind.IN) as (_, vcpu):
        return _trips(transport, wait, cores, count, vcpu.fd, vcpu.run_page)


def _trips(
    transport: str,
    wait: str,
    cores: str,
    count: int,
    vcpu_fd: int,
    run: Any,
    memory: bool = False,
) -> list[int]:
    where = choose(cores, wait, embedded=True)
    far_core = _ANY_CORE if where.server is None else min(where.server)
    near, far = _pair(transport)
    with near, far, _bound(where.bind_vcpu):
        near.setblocking(True)
        far.setblocking(True)
        sizes = (_REQUEST_BYTES, _FEEDBACK_BYTES)
        how = (int(_spins(wait, where)), int(memory), far_core)
        ends = (near.fileno(), far.fileno(), *sizes, *how, vcpu_fd, run)
        trip = ffi.new("struct floor_trip *", ends)
        return _samples(count, lambda out, n: lib.floor_pingpong(trip, out, n))


def _spins(wait: str, where: Cores) -> bool:
    if wait != "adaptive":
        return wait == "spin"
    here = os.sched_getaffinity(0)
    return len(here | (where.server or here)) > 1


@contextlib.contextmanager
def _bound(bind: Callable[[], None]) -> Iterator[None]:
    """What is within runs where ``bind`` puts this thread."""
    before = os.sched_getaffinity(0)
    bind()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _pair(transport: str) -> tuple[socket.socket, socket.socket]:
    if transport != "tcp":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _ring_page() -> int:
    """How many pages behind kvm_run the ring of coalesced accesses lies."""
    known = {capability.name: capability for capability in CAPABILITIES}
    with System() as system:
        page = system.check(known["KVM_CAP_COALESCED_MMIO"])
        if not page or not system.check(known["KVM_CAP_COALESCED_PIO"]):
            raise HostError("KVM on this host lacks KVM_CAP_COALESCED_PIO")
    return page


def _samples(count: int, measure: Callable[[Any, int], int]) -> list[int]:
    """Runs a C measurement; its first tenth is warm-up and does not count."""
    warm_up = count // 10
    out = ffi.new("uint64_t[]", warm_up + count)
    if measure(out, warm_up + count) < 0:
        raise HostError(f"a floor can't be measured: {os.strerror(ffi.errno)}")
    return [int(sample) for sample in out[warm_up : warm_up + count]]


@contextlib.contextmanager
def _vm(kind: Kind) -> Iterator[tuple[Vm, Any]]:
    """A VM of its own and its vCPU, whose guest does one thing for ever."""
    plan = bench_plan(kind, _UNCLAIMED_PORT, _FOR_EVER)
    with System() as system:
        system.require()
        vm = system.create_vm()
        memory: GuestMemory | None = None
        try:
            vm.prepare_real_mode()
            vm.create_irqchip()
            memory = GuestMemory(vm, system, DEFAULT_MEMORY_BYTES, plan)
            vcpu = vm.create_vcpu()
            apply_start(vcpu, plan.start)
            yield vm, vcpu
        finally:
            vm.close()
            if memory is not None:
                memory.close()
