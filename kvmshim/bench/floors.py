"""Floors: a KVM exit, a round trip over a socket, an interrupt line, each on its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from devserver.protocol.codec import LAYOUTS
from devserver.protocol.limits import FRAME_HEADER_BYTES
from devserver.protocol.messages import MessageType
from kvmshim.abi import ffi, lib
from kvmshim.bench.guest import Kind, bench_plan
from kvmshim.cpu_start import apply_start
from kvmshim.errors import HostError
from kvmshim.machinefile.spec import DEFAULT_MEMORY_BYTES
from kvmshim.physical import PhysicalMemory
from kvmshim.system import System
from kvmshim.vm import Vm

#: What an IN of one byte sends and gets back.
_REQUEST_BYTES = FRAME_HEADER_BYTES + LAYOUTS[MessageType.REQUEST].size
_FEEDBACK_BYTES = FRAME_HEADER_BYTES + LAYOUTS[MessageType.FEEDBACK].size + 1
_LINE = 5
_UNCLAIMED_PORT = 0x300


def exits(count: int) -> list[int]:
    """Samples (ns) of an ``IN`` that nobody answers: exit, re-entry, the guest's loop."""
    return _with_vm(
        lambda vm, vcpu: _samples(
            count, lambda out, n: lib.floor_exits(vcpu.fd, vcpu.run_page, out, n)
        )
    )


def irq_line(count: int) -> list[int]:
    """Samples (ns) of one KVM_IRQ_LINE."""
    return _with_vm(
        lambda vm, vcpu: _samples(count, lambda out, n: lib.floor_irq_line(vm.fd, _LINE, out, n))
    )


def disarm(count: int) -> list[int]:
    """Samples (ns) of what a wait spends on keeping the event thread away from the socket."""
    return _samples(count, lib.floor_disarm)


def ping_pong(transport: str, spin: bool, count: int) -> list[int]:
    """Samples (ns) of a round trip of an IN's bytes between two threads, written in C."""
    near, far = _pair(transport)
    with near, far:
        near.setblocking(True)
        far.setblocking(True)
        return _samples(
            count,
            lambda out, n: lib.floor_pingpong(
                near.fileno(), far.fileno(), _REQUEST_BYTES, _FEEDBACK_BYTES, int(spin), out, n
            ),
        )


def _pair(transport: str) -> tuple[socket.socket, socket.socket]:
    if transport == "unix":
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _samples(count: int, measure: Callable[[Any, int], int]) -> list[int]:
    """Runs a C measurement; its first tenth is warm-up and does not count."""
    warm_up = count // 10
    out = ffi.new("uint64_t[]", warm_up + count)
    if measure(out, warm_up + count) < 0:
        raise HostError(f"a floor can't be measured: {os.strerror(ffi.errno)}")
    return [int(sample) for sample in out[warm_up : warm_up + count]]


def _with_vm(measure: Callable[[Vm, Any], list[int]]) -> list[int]:
    """Measures on a VM of its own, whose guest reads an unclaimed port for ever."""
    plan = bench_plan(Kind.IN, _UNCLAIMED_PORT, 0xFFFF_FFFF)
    with System() as system:
        system.require()
        vm = Vm.create(system)
        memory: PhysicalMemory | None = None
        try:
            vm.prepare_real_mode()
            vm.create_irqchip()
            memory = PhysicalMemory(vm, system, DEFAULT_MEMORY_BYTES, plan)
            vcpu = vm.create_vcpu()
            apply_start(vcpu, plan.start)
            return measure(vm, vcpu)
        finally:
            vm.close()
            if memory is not None:
                memory.close()
