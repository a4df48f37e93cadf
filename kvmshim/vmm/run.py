"""One run of a machine: the vCPU's thread, and the loop that moves bytes between guest and world.

Three kinds of threads: the vCPU's is nearly always in C; each link has an event thread, in C; this
loop runs in the caller's thread and sleeps in ``poll`` until there is something for Python.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devserver.protocol.messages import AttachedDevice, Emit, Message
from kvmshim.abi import ffi, lib
from kvmshim.hypervisor.cpu_start import apply_start
from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.kvm.ring import Ring
from kvmshim.hypervisor.kvm.vcpu import Registers
from kvmshim.hypervisor.kvm.vm import CoalescedRing
from kvmshim.loader import CpuStart
from kvmshim.remote.link import Link
from kvmshim.vmm import placement
from kvmshim.vmm.code import Code, ReadPhysical, read_code
from kvmshim.vmm.cores import Cores
from kvmshim.vmm.ending import Ending
from kvmshim.vmm.outcome import RunResult
from kvmshim.vmm.routes import Routes
from kvmshim.vmm.unclaimed_table import new_table, read_unclaimed

if TYPE_CHECKING:
    from kvmshim.vmm.local import LocalDevices

#: Called with a device's name, its channel's name and the bytes that it sent to the world.
OutputHandler = Callable[[str, str, bytes], None]
#: Sees the input before the guest does; may change it, or return None to stop the guest.
InputFilter = Callable[[bytes], bytes | None]

#: The kind of device whose output are POST codes.
_POST_CODES = "postcode"
_FIRST_PROBE_S = 0.1
_LAST_PROBE_S = 5.0
_READ_BYTES = 4096
#: No more is read from the input while so much of it waits for the guest.
_INPUT_HIGH_BYTES = 64 * 1024
_INPUT_RETRY_S = 0.02
#: How often the end of a thread that may be lost in a local model is looked for.
_LOOK_S = 0.25
_VCPU_COUNTERS = (
    "exits",
    "port_exits",
    "memory_exits",
    "unclaimed",
    "leased",
    "coalesced_writes",
    "waited_writes",
)


@dataclass
class Progress:
    """What a run leaves to the one that goes on with it after a pause."""

    #: The vCPU has had the state that it starts with.
    started: bool = False
    #: The last run was paused, and its devices stand still.
    paused: bool = False
    input_ended: bool = False
    #: The guest has executed HLT, and KVM does not know: the interrupt controllers are a device.
    halted: bool = False


@dataclass
class Parts:
    """What a machine hands over to a run."""

    control: Any
    vcpu: Vcpu
    routes: Routes
    start: CpuStart
    links: Sequence[Link]
    local: LocalDevices | None
    #: Where KVM's ring of coalesced writes lies in the vCPU's mapping; None if there is none.
    ring: CoalescedRing | None
    cores: Cores
    progress: Progress
    #: What the guest sees at a physical address.
    read_physical: ReadPhysical


class Run:
    """Runs a guest until it ends or is paused.

    See :meth:`kvmshim.vmm.machine.Machine.run` for the arguments.
    """

    def __init__(
        self,
        parts: Parts,
        devices: Sequence[tuple[Link | LocalDevices, AttachedDevice]],
        timeout_s: float | None,
        input_fd: int | None,
        output: OutputHandler | None,
        on_input: InputFilter | None,
    ) -> None:
        self._parts = parts
        self._names = {(id(owner), d.device_id): d for owner, d in devices}
        self._console = placement.console_of([d for _, d in devices])
        self._console_owner = next((o for o, d in devices if d is self._console), None)
        self._timeout_s = timeout_s
        listens = self._console is not None and not parts.progress.input_ended
        self._input_fd = input_fd if listens else None
        self._output = output
        self._on_input = on_input
        self._messages: dict[int, list[Message]] = {}
        self._timed_out = False
        self._done_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._vcpu = ffi.new("struct vcpu *")
        self._vcpu.fd = parts.vcpu.fd
        self._vcpu.run = parts.vcpu.run_page
        self._vcpu.control = parts.control
        self._vcpu.routes = parts.routes.handle
        self._vcpu.halted = parts.progress.halted
        self._ring = Ring(self._vcpu, parts.vcpu, parts.ring)
        self._unclaimed = new_table()
        self._vcpu.unclaimed_places = self._unclaimed
        self._post_codes: deque[int] = deque(maxlen=int(lib.UNCLAIMED_POST_CODES))
        self._marks = ffi.new("struct vcpu_mark[]", 1)
        self._code = lib.VCPU_STOPPED
        self._registers: Registers | None = None
        self._at: Code | None = None
        self._error: BaseException | None = None

    def trace_exits(self, count: int) -> None:
        """Records when the first ``count`` port exits are; to be called before :meth:`run`."""
        if count:
            self._marks = ffi.new("struct vcpu_mark[]", count)
            self._vcpu.marks, self._vcpu.mark_room = self._marks, count

    def run(self) -> RunResult:
        """Starts everything, moves bytes until the guest ends or is paused, says how it ended."""
        parts = self._parts
        parts.progress.paused = False
        thread = threading.Thread(target=self._run_vcpu, name="vcpu 0", daemon=True)
        lib.control_clock_start(parts.control)
        now_ns = lib.control_time_ns(parts.control)
        for link in parts.links:
            link.clock(now_ns, True)
            link.start()
        if parts.local is not None:
            parts.local.start()
        thread.start()
        clock = threading.Timer(self._timeout_s or 0, self._time_is_over)
        clock.daemon = True
        if self._timeout_s is not None:
            clock.start()
        try:
            self._pump()
        except BaseException:
            self._stop()
            raise
        finally:
            self._join(thread)
            clock.cancel()
            if clock.ident is not None:
                clock.join()
            self._ring.close()
            lib.control_clock_stop(parts.control)
        if self._code == lib.VCPU_PAUSED and self._error is None:
            self._code = self._stand_still()
        self._drain()
        if self._error is not None:
            raise self._error
        result = self._ending().result()  # before the servers close their connections
        if self._code != lib.VCPU_PAUSED:
            end_ns = lib.control_time_ns(parts.control)
            for link in parts.links:
                link.detach(end_ns)
        return result

    def _time_is_over(self) -> None:
        """In a thread of its own, as the caller's may be held up by whoever takes the output."""
        self._timed_out = True
        self._stop()

    def _stop(self) -> None:
        """Has the guest end; a local model that is being called is soon interrupted."""
        lib.control_raise(self._parts.control, lib.CONTROL_STOP)
        if self._parts.local is not None:
            self._parts.local.hurry()

    def _join(self, thread: threading.Thread) -> None:
        """Waits for the vCPU's thread, unless that is lost in a local model."""
        local = self._parts.local
        while thread.is_alive():
            thread.join(None if local is None else _LOOK_S)
            if local is not None and local.is_stuck():
                self._code = lib.VCPU_EVENT
                return
        os.close(self._done_fd)

    def _is_stuck(self) -> bool:
        return self._parts.local is not None and self._parts.local.is_stuck()

    def _stand_still(self) -> int:
        """Has all devices stand still, with nothing under way.

        Gives VCPU_PAUSED, or what came in between and ends the run instead.
        """
        parts = self._parts
        if parts.local is not None:
            parts.local.stop()
        now_ns = lib.control_time_ns(parts.control)
        for link in parts.links:
            link.clock(now_ns, False)
        code = self._settle_lines()
        if code != lib.VCPU_PAUSED:
            return code
        parts.progress.halted = bool(self._vcpu.halted)
        pending = lib.control_pending(parts.control)
        lib.control_clear(parts.control, lib.CONTROL_PAUSE | lib.CONTROL_PROBE)
        for reason, code in (
            (lib.CONTROL_EVENT, lib.VCPU_EVENT),
            (lib.CONTROL_STOP, lib.VCPU_STOPPED),
            (lib.CONTROL_LINK, lib.VCPU_LINK_LOST),
        ):
            if pending & reason:
                return int(code)
        parts.progress.paused = True
        return int(lib.VCPU_PAUSED)

    def _settle_lines(self) -> int:
        """Waits for all that devices have to say, and takes their lines to the controllers."""
        while True:
            for link in self._parts.links:
                link.settle()
            told = False
            while (code := lib.irqchip_sync_lines(self._vcpu)) == lib.VCPU_LOCAL:
                self._serve_local(self._vcpu.access)
                told = True
            if code != lib.VCPU_CONTINUE:
                return int(code)
            if not told and not lib.control_lines_pending(self._parts.control):
                return int(lib.VCPU_PAUSED)

    # -- the vCPU's thread --------------------------------------------------------------------

    def _run_vcpu(self) -> None:
        try:
            # Not before: until there is a vCPU it would look and look, and where hundreds of VMs
            # start at once, leave these threads no time to come up.
            self._ring.start()
            self._parts.cores.bind_vcpu()
            if not self._parts.progress.started:
                apply_start(self._parts.vcpu, self._parts.start)
                self._parts.progress.started = True
            vcpu = self._parts.vcpu
            self._code = vcpu.run(self._vcpu, self._serve_local)
            if self._code == lib.VCPU_PAUSED:
                self._code = vcpu.settle(self._vcpu, self._serve_local)
            self._settle()
        except BaseException as error:
            self._error = error
        finally:
            os.eventfd_write(self._done_fd, 1)

    def _serve_local(self, access: Any) -> None:
        assert self._parts.local is not None
        self._parts.local.serve(access)

    def _settle(self) -> None:
        """Brings what the guest did last to its devices, and reads its registers."""
        if self._code in (lib.VCPU_LINK_LOST, lib.VCPU_FAILED):
            return
        if self._code == lib.VCPU_EVENT:  # its devices have ended the run: nothing more is served
            self._registers = self._parts.vcpu.registers()
            return
        if self._code != lib.VCPU_STOPPED:
            lib.vcpu_drain(self._vcpu)
            for link in self._parts.links:
                lib.link_fence(link.handle)
        if self._code != lib.VCPU_PAUSED:
            self._parts.vcpu.complete(self._vcpu)
        self._registers = self._parts.vcpu.registers()
        self._at = read_code(self._registers, self._parts.read_physical)

    # -- the caller's thread ------------------------------------------------------------------

    def _pump(self) -> None:
        poll = select.poll()
        poll.register(self._done_fd, select.POLLIN)
        for link in self._parts.links:
            poll.register(link.inbox_fd, select.POLLIN)
        if self._parts.local is not None:
            poll.register(self._parts.local.inbox_fd, select.POLLIN)
        input_fd = self._input_fd
        listening = False
        probe = None if self._ring.is_there else _Probe(self._vcpu)
        while True:
            if input_fd is not None and not listening and self._input_has_room():
                poll.register(input_fd, select.POLLIN)
                listening = True
            waits_s = [] if probe is None else [probe.wait_s()]
            if input_fd is not None and not listening:
                waits_s.append(_INPUT_RETRY_S)
            ready = {fd for fd, _ in poll.poll(min(waits_s) * 1000 if waits_s else None)}
            self._drain()
            if self._done_fd in ready or self._is_stuck():
                return
            if input_fd is not None and input_fd in ready:
                if not self._read_input(input_fd):
                    self._parts.progress.input_ended = True
                    poll.unregister(input_fd)
                    input_fd = None
                elif not self._input_has_room():
                    poll.unregister(input_fd)
                    listening = False
            if probe is not None:
                probe.turn(self._parts.control)

    def _drain(self) -> None:
        """Takes what links and local devices have for the world, and hands it on."""
        now_ns = lib.control_time_ns(self._parts.control)
        for position, link in enumerate(self._parts.links):
            for message in link.take(now_ns):
                if isinstance(message, Emit):
                    self._emit(link, message.device_id, message.channel, message.data)
                else:
                    self._messages.setdefault(position, []).append(message)
        local = self._parts.local
        if local is not None:
            for device_id, channel, data in local.take():
                self._emit(local, device_id, channel, data)

    def _emit(self, owner: Link | LocalDevices, device_id: int, channel: int, data: bytes) -> None:
        device = self._names.get((id(owner), device_id))
        if device is not None and device.kind == _POST_CODES:
            self._post_codes.extend(data)
        if self._output is not None and device is not None and channel < len(device.emits):
            self._output(device.name, device.emits[channel], data)

    def _input_has_room(self) -> bool:
        if self._console is None or self._console_owner is None:
            return False
        return self._console_owner.backlog(self._console.device_id, 0) < _INPUT_HIGH_BYTES

    def _read_input(self, fd: int) -> bool:
        """Moves what is there to the console; False when the input has ended."""
        try:
            data: bytes | None = os.read(fd, _READ_BYTES)
        except OSError:
            data = b""  # a terminal that hung up
        end = not data
        if data and self._on_input is not None:
            data = self._on_input(data)
            if data is None:
                self._stop()
                return False
        if self._console is not None and self._console_owner is not None and (data or end):
            now_ns = lib.control_time_ns(self._parts.control)
            self._console_owner.feed(self._console.device_id, 0, data or b"", now_ns, end=end)
        return not end

    def _ending(self) -> Ending:
        stats = {"vcpu": {name: int(getattr(self._vcpu, name)) for name in _VCPU_COUNTERS}}
        for link in self._parts.links:
            stats[f"link {link.server}"] = link.stats()
        return Ending(
            code=self._code,
            detail=int(self._vcpu.detail),
            explain=self._parts.vcpu.explain,
            links=self._parts.links,
            local=self._parts.local,
            messages=self._messages,
            registers=self._registers,
            at=self._at,
            timed_out_after_s=self._timeout_s if self._timed_out else None,
            stats=stats,
            unclaimed=read_unclaimed(self._unclaimed, self._post_codes),
            trace=tuple(
                (int(mark.time_ns), int(mark.port))
                for mark in self._marks[0 : self._vcpu.mark_count]
            ),
        )


class _Probe:
    """Looks, less and less often, whether a vCPU that makes no exits is halted for good.

    For a vCPU without a ring: see :attr:`kvmshim.hypervisor.kvm.ring.Ring.is_there`.
    """

    def __init__(self, vcpu: Any) -> None:
        self._vcpu = vcpu
        self._exits = -1
        self._period_s = _FIRST_PROBE_S
        self._next_s = time.monotonic() + self._period_s

    def wait_s(self) -> float:
        """For how long the loop may sleep."""
        return max(0.0, self._next_s - time.monotonic())

    def turn(self, control: Any) -> None:
        """Probes if it is time to."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        exits = int(self._vcpu.exits)
        if exits == self._exits:
            lib.control_raise(control, lib.CONTROL_PROBE)
            self._period_s = min(self._period_s * 2, _LAST_PROBE_S)
        else:
            self._period_s = _FIRST_PROBE_S
        self._exits = exits
        self._next_s = now_s + self._period_s
