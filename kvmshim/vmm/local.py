"""Devices placed ``local``: the same models as on a server, in this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import BoardError, Bus, DeviceFault
from devserver.machine.callers import hosting
from devserver.machine.device_state import load_device, save_device
from devserver.machine.inventory import describe, describe_slot
from devserver.machine.slot import NoModelError
from devserver.models.context import Overdue
from devserver.models.device import Device, Signal, Space, StateError
from devserver.protocol.messages import AttachedDevice, WantedDevice
from devserver.waiting import MODEL_TIMEOUT_S
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError, InputError
from kvmshim.remote.feeder import Feeder, load_inputs, save_inputs
from kvmshim.vmm.local_outbox import Emission, Outbox
from kvmshim.vmm.local_watch import LocalWatch
from kvmshim.vmstate.state import PendingInput

_SPACES = tuple(Space)
#: For so long input waits for a model that is being called, before it is left to its caller.
_MOMENT_S = 0.05


class LocalDevices:
    """A bus in this process, with a thread for what its devices do on their own."""

    def __init__(
        self,
        wirings: Sequence[DeviceWiring],
        epoch_ns: int,
        control: Any,
        set_line: Callable[[int, bool], None],
        states: Mapping[str, bytes] = MappingProxyType({}),
        model_timeout_s: float = MODEL_TIMEOUT_S,
    ) -> None:
        """``states``: what devices begin with, by name (:meth:`save`); the others with a reset.
        ``model_timeout_s``: how long a call of a model may take."""
        self._control = control
        self._set_line = set_line
        #: Held while a model is called; ends calls that do not return.
        self._calls = LocalWatch(model_timeout_s, self._give_up)
        self._lock = self._calls.lock
        #: Input that is still to be given to its device: device, channel, bytes, time, end.
        self._given: deque[tuple[int, int, bytes, int, bool]] = deque()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._outbox = Outbox()
        self._feeders: dict[tuple[int, int], Feeder] = {}
        self.signals: list[tuple[Signal, int]] = []
        self.fault: DeviceFault | None = None
        hosting.begin()
        try:
            self._bus = Bus(wirings, self, epoch_ns)
            for device_id, slot in self._bus.slots.items():
                if slot.wiring.name in states:
                    load_device(self._bus, device_id, states[slot.wiring.name])
        except (BoardError, DeviceFault, StateError) as error:
            self._outbox.close()
            hosting.end()
            raise _refusal(error) from error
        self._hosting = True
        self._message_bus = self._bus.vm_port.message_bus
        self._bus.vm_port.on_message = self._take_mail

    # -- what the machine calls ---------------------------------------------------------------

    @property
    def inbox_fd(self) -> int:
        """Readable while there may be something to :meth:`take`."""
        return self._outbox.fd

    def devices(self) -> list[AttachedDevice]:
        """The devices, described as a server would."""
        return describe(self._bus)

    def start(self) -> None:
        """Starts the thread that keeps the devices' deadlines."""
        self._closing = False
        self._outbox.let_all_in(False)
        self._thread = threading.Thread(target=self._keep_time, name="local devices", daemon=True)
        self._thread.start()
        self._calls.start()

    def stop(self) -> None:
        """Ends the thread: the devices do nothing on their own until :meth:`start`."""
        if self.is_stuck():
            return
        self._outbox.let_all_in(True)
        self._calls.close()
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._calls:
            self._give()

    def hurry(self) -> None:
        """The run is to end: a model that is being called is soon interrupted."""
        self._outbox.let_all_in(True)
        self._calls.hurry()

    def is_stuck(self) -> bool:
        """Whether a call of a model can't be ended: the thread that is in it is lost."""
        return self._calls.stuck

    def close(self) -> None:
        """Ends the thread, for good."""
        self.stop()
        if not self._hosting:
            return
        self._hosting = False
        hosting.end()
        if not self.is_stuck():
            self._outbox.close()

    def serve(self, access: Any) -> None:
        """Serves a ``struct vcpu_access``: fills or takes its data."""
        self._outbox.wait_for_room()
        try:
            with self._calls:
                self._serve(access)
        except Overdue as late:  # the call ended by itself just as it was interrupted
            self._be_late(late)

    def _serve(self, access: Any) -> None:
        size, elements, address, now_ns = (
            access.size,
            access.elements,
            access.address,
            access.time_ns,
        )
        data = ffi.buffer(access.data, size * elements)
        space = _SPACES[access.space]
        due_ns = self._bus.next_deadline_ns()
        try:
            if access.direction:
                for at in range(0, len(data), size):
                    value = int.from_bytes(data[at : at + size], "little")
                    self._bus.write(space, address, size, value, now_ns)
            elif elements == 1:
                value = self._bus.read(space, address, size, now_ns)
                data[0:size] = value.to_bytes(size, "little")
            else:
                values = self._bus.read_elements(space, address, size, elements, now_ns)
                data[:] = b"".join([value.to_bytes(size, "little") for value in values])
        except DeviceFault as fault:
            self._stop_for(fault)
        if self._message_bus.rung:
            self._message_bus.deliver()
        if self._given or self._bus.next_deadline_ns() != due_ns:
            self._lock.notify()

    def feed(
        self, device_id: int, channel: int, data: bytes, time_ns: int, *, end: bool = False
    ) -> None:
        """Gives a device bytes from the world, as fast as it takes them."""
        self._given.append((device_id, channel, data, time_ns, end))
        if self._thread is None:
            with self._calls:
                self._give()
        elif self._lock.acquire(timeout=_MOMENT_S):
            self._lock.notify()
            self._lock.release()

    def backlog(self, device_id: int, channel: int) -> int:
        """Bytes fed that the device has not taken yet."""
        feeder = self._feeders.get((device_id, channel))
        waiting = sum(len(g[2]) for g in list(self._given) if g[:2] == (device_id, channel))
        return waiting + (feeder.waiting if feeder else 0)

    def pending_inputs(self) -> list[PendingInput]:
        """The input that waits here for devices; of a machine that is paused."""
        with self._lock:
            return save_inputs(self._feeders, self.devices())

    def put_back_inputs(self, inputs: Iterable[PendingInput], time_ns: int) -> None:
        """Restores what :meth:`pending_inputs` gave, as far as it is for devices here."""
        with self._calls:
            self._feeders |= load_inputs(inputs, self.devices(), self._feed, time_ns)

    def model(self, device_id: int) -> Device:
        """A device's running model."""
        return self._bus.slots[device_id].device

    def save(self) -> dict[str, bytes]:
        """Each device's state by its name; of a machine that is paused. Raises HostError."""
        with self._calls:
            try:
                return {
                    slot.wiring.name: save_device(self._bus, slot.device_id)
                    for slot in self._bus.slots.values()
                }
            except (DeviceFault, StateError) as error:
                raise HostError(f"a local device can't be saved: {error}") from error

    def save_one(self, device_id: int, time_ns: int, *, remove: bool = False) -> bytes:
        """One device's state at a VM time; ``remove``: it is here no longer. Raises HostError."""
        with self._calls:
            try:
                self._bus.advance(time_ns)
                state = save_device(self._bus, device_id)
            except (DeviceFault, StateError) as error:
                raise HostError(f"a local device can't be saved: {error}") from error
            if remove:
                self._bus.remove(device_id)
                self._feeders = {k: f for k, f in self._feeders.items() if k[0] != device_id}
            return state

    def add(self, wanted: WantedDevice, time_ns: int) -> AttachedDevice:
        """A further device, with the state that it is given. Raises :class:`InputError`."""
        wiring = DeviceWiring(
            name=wanted.name,
            kind=wanted.kind,
            bases=wanted.bases,
            lines=wanted.lines,
            options=wanted.options,
            policies=wanted.policies,
        )
        with self._calls:
            try:
                self._bus.advance(time_ns)
                slot = self._bus.add(wiring)
                if wanted.state:
                    load_device(self._bus, slot.device_id, wanted.state)
            except (BoardError, DeviceFault, StateError) as error:
                raise _refusal(error) from error
            return describe_slot(self._bus, slot)

    def take(self) -> list[Emission]:
        """What the devices have said to the world since the last call."""
        return self._outbox.take()  # without the lock: whoever has it may be in a model for long

    # -- what the bus calls, with the lock held -----------------------------------------

    def line(self, line: int, level: bool) -> None:
        self._set_line(line, level)

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self._outbox.put((device_id, channel, data))

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        now_ns = lib.control_time_ns(self._control)
        self._feeders[device_id, channel].consumed(total, now_ns)

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        self.signals.append((signal, value))
        lib.control_raise(self._control, lib.CONTROL_EVENT)

    # -- inner workings -----------------------------------------------------------------------

    def _give(self) -> None:
        """Gives devices what waits for them here; the lock is held."""
        while self._given:
            device_id, channel, data, time_ns, end = self._given.popleft()
            key = (device_id, channel)
            if key not in self._feeders:
                self._feeders[key] = Feeder(partial(self._feed, *key))
            self._feeders[key].give(data, time_ns, end=end)

    def _feed(self, device_id: int, channel: int, data: bytes, time_ns: int, end: bool) -> None:
        try:
            self._bus.feed(device_id, channel, data, time_ns, end=end)
        except DeviceFault as fault:
            self._stop_for(fault)
        if self._message_bus.rung:
            self._message_bus.deliver()

    def _take_mail(self) -> None:
        """Has the devices hear what they have posted to each other; the lock is held."""
        try:
            self._bus.deliver_messages(lib.control_time_ns(self._control))
        except DeviceFault as fault:
            self._stop_for(fault)

    def _keep_time(self) -> None:
        while not self._closing and self.fault is None:
            self._outbox.wait_for_room()
            try:
                with self._calls:
                    self._act()
            except Overdue as late:
                self._be_late(late)
            with self._lock:
                due_ns = self._bus.next_deadline_ns()
                now_ns = lib.control_time_ns(self._control)
                if not (self._closing or self._given or self.fault):
                    self._lock.wait(None if due_ns is None else max(0, due_ns - now_ns) / 1e9)

    def _act(self) -> None:
        """What is due by now, and input."""
        try:
            self._bus.advance(lib.control_time_ns(self._control))
        except DeviceFault as fault:
            self._stop_for(fault)
            return
        self._give()
        if self._message_bus.rung:
            self._message_bus.deliver()

    def _stop_for(self, fault: DeviceFault) -> None:
        if not self.is_stuck():  # else the run has ended, and so has the control
            self.fault = fault
            lib.control_raise(self._control, lib.CONTROL_EVENT)

    def _be_late(self, error: Overdue) -> None:
        self._stop_for(DeviceFault.said(f"a local device failed: {error}"))

    def _give_up(self, why: str) -> None:
        """A call can't be ended: the run ends without it."""
        self.fault = DeviceFault.said(why)
        lib.control_raise(self._control, lib.CONTROL_EVENT)
        self._outbox.wake()


def _refusal(error: Exception) -> InputError:
    """Says who lacks the model, if that is it: a server may well have it."""
    here = "; it is placed here, in the client" if isinstance(error, NoModelError) else ""
    return InputError(f"{error}{here}")
