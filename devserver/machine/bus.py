"""One machine's devices plugged together: address decoding, VM time, interrupt lines, faults.

A bus does no I/O and knows no clock. A session (on a server) and a client platform (for
devices placed ``local``) use the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from devserver.machine.board import DeviceWiring
from devserver.machine.message_bus import MessageBus, VmPort
from devserver.machine.slot import (
    FEED_LIMIT_BYTES,
    BoardError,
    DeviceFault,
    Lines,
    Mapped,
    Sink,
    Slot,
    refuse_overlap,
)
from devserver.machine.turns import Behind, Endless, Turn
from devserver.models.declarations import checked_deadline
from devserver.models.device import Space, StateError

__all__ = ["FEED_LIMIT_BYTES", "BoardError", "Bus", "DeviceFault", "Mapped", "Sink", "Slot"]

#: Later than any VM time.
NEVER_NS = 1 << 64
#: Deadlines that are met one by one on the way to a VM time; then periods are passed over.
MAX_DEADLINES = 4096


class Bus:
    """The devices of one virtual machine, or those of them that are placed together."""

    def __init__(
        self,
        wirings: Sequence[DeviceWiring],
        sink: Sink,
        epoch_ns: int = 0,
        vm_port: VmPort | None = None,
    ) -> None:
        """``vm_port`` is where the VM meets others on the message bus; None: its own."""
        self._sink = sink
        self._epoch_ns = epoch_ns
        self.vm_port = vm_port or VmPort(MessageBus())
        self.lines = Lines(sink)
        self.slots: dict[int, Slot] = {}
        self.now_ns = 0
        self._maps: dict[Space, list[Mapped]] = {space: [] for space in Space}
        self._ports: dict[int, Mapped] = {}
        self._deadlines: dict[int, int] = {}
        self.next_ns = NEVER_NS
        #: When to leave the rest of what devices do for later (:class:`Behind`).
        self.turn: Turn = Endless()
        self._met = 0
        try:
            self._build(wirings)
            for slot in self.slots.values():
                self.reschedule(slot)
        except (BoardError, DeviceFault):
            self.vm_port.leave()
            raise
        self._last_id = len(self.slots)

    def _build(self, wirings: Sequence[DeviceWiring]) -> None:
        names: set[str] = set()
        for device_id, wiring in enumerate(wirings, start=1):
            if wiring.name in names:
                raise BoardError(f"two devices are named '{wiring.name}'")
            names.add(wiring.name)
            self.slots[device_id] = self._slot(device_id, wiring)
        for slot in self.slots.values():
            self._place_regions(slot)

    def _slot(self, device_id: int, wiring: DeviceWiring) -> Slot:
        return Slot(device_id, wiring, self._sink, self.lines, self._epoch_ns, self.vm_port)

    def mapped(self) -> Iterator[Mapped]:
        """Every region at its place."""
        for regions in self._maps.values():
            yield from regions

    def read(self, space: Space, address: int, size: int, now_ns: int) -> int:
        """Reads ``size`` bytes (1, 2, 4 or 8) at VM time ``now_ns``, little-endian.

        Bytes that no device claims read all-ones. Raises :class:`DeviceFault` if the model fails.
        """
        mapped = self.find(space, address)
        if mapped is not None and address + size <= mapped.end:
            return self.read_at(mapped, address, size, now_ns)
        self.advance(now_ns)
        return self._read_bytewise(space, address, size)

    def read_at(
        self, mapped: Mapped, address: int, size: int, now_ns: int, posted: bool = False
    ) -> int:
        """The same, for one who has looked the region up (:meth:`find`).

        ``posted``: the guest had its answer already, from a lease.
        """
        if now_ns > self.now_ns:
            self.advance(now_ns)
        slot = mapped.slot
        try:
            value = slot.device.read(mapped.name, address - mapped.base, size, self.now_ns)
            if slot.backlog or slot.timed:
                self._after(slot)
            if slot.watch is not None:
                slot.watch.read(mapped, address, size, self.now_ns, posted)
        except BaseException as error:
            raise slot.fault(error) from error
        return value

    def read_elements(
        self, space: Space, address: int, size: int, count: int, now_ns: int
    ) -> list[int]:
        """``count`` reads at the same address, as string input does them."""
        mapped = self.find(space, address)
        if mapped is None or address + size > mapped.end or mapped.slot.backlog:
            return [self.read(space, address, size, now_ns) for _ in range(count)]
        self.advance(now_ns)
        slot, offset = mapped.slot, address - mapped.base
        try:
            values = slot.device.read_elements(mapped.name, offset, size, count, self.now_ns)
            self._after(slot)
            if slot.watch is not None:
                slot.watch.moved()
        except BaseException as error:
            raise slot.fault(error) from error
        return values

    def write(self, space: Space, address: int, size: int, value: int, now_ns: int) -> None:
        """Writes ``size`` bytes (1, 2, 4 or 8); bytes that no device claims are dropped."""
        mapped = self.find(space, address)
        if mapped is not None and address + size <= mapped.end:
            self.write_at(mapped, address, size, value, now_ns)
            return
        self.advance(now_ns)
        self._write_bytewise(space, address, size, value)

    def write_at(
        self,
        mapped: Mapped,
        address: int,
        size: int,
        value: int,
        now_ns: int,
        posted: bool = False,
    ) -> None:
        """The same, for one who has looked the region up; ``posted``: the guest did not wait."""
        if now_ns > self.now_ns:
            self.advance(now_ns)
        slot = mapped.slot
        try:
            slot.device.write(mapped.name, address - mapped.base, size, value, self.now_ns)
            if slot.backlog or slot.timed:
                self._after(slot)
            if slot.watch is not None:
                slot.watch.wrote(mapped, address, size, value, posted)
        except BaseException as error:
            raise slot.fault(error) from error

    def write_run_at(
        self, mapped: Mapped, address: int, values: Sequence[int], times_ns: Sequence[int]
    ) -> None:
        """Posted writes of one byte each to one address, in order."""
        slot, offset = mapped.slot, address - mapped.base
        quiet = times_ns[-1] < self.next_ns and not slot.backlog
        run = slot.device.run_writer(mapped.name, offset) if quiet else None
        if run is None:
            self._one_by_one(mapped, address, values, times_ns)
            return
        data = bytes([value & 0xFF for value in values])
        try:
            if not run(data, times_ns):
                self._one_by_one(mapped, address, data, times_ns)
                return
            self.now_ns = max(self.now_ns, times_ns[-1])
            if slot.timed:
                self._after(slot)
            if slot.watch is not None:
                slot.watch.wrote_run(mapped, address, data)
        except BaseException as error:
            raise slot.fault(error) from error

    def _one_by_one(
        self, mapped: Mapped, address: int, values: Sequence[int], times_ns: Sequence[int]
    ) -> None:
        writes = zip(values, times_ns, strict=True)
        try:
            for value, now_ns in writes:
                self.write_at(mapped, address, 1, value, now_ns, posted=True)
        except Behind as behind:
            behind.left = 1 + len(list(writes))
            raise

    def feed(
        self, device_id: int, channel: int, data: bytes, now_ns: int, *, end: bool = False
    ) -> None:
        """Hands a device bytes from the world; raises LookupError for a channel it has not."""
        self.advance(now_ns)
        slot = self.slots[device_id]
        name = slot.device.feeds[channel]
        try:
            slot.feed(name, data, end, self.now_ns)
            self.reschedule(slot)
            if slot.watch is not None:
                slot.watch.moved()
        except OverflowError:
            raise
        except BaseException as error:
            raise slot.fault(error) from error

    def deliver_messages(self, now_ns: int) -> None:
        """Has the devices hear what was posted to them; raises :class:`DeviceFault`."""
        self.advance(now_ns)
        vm_port = self.vm_port
        while vm_port.mail:
            slot = self.slots[vm_port.mail[0].member.device_id]
            try:
                vm_port.hear(self.now_ns)
                self._after(slot)
                if slot.watch is not None:
                    slot.watch.moved()
            except BaseException as error:
                raise slot.fault(error) from error

    def advance(self, now_ns: int) -> None:
        """Moves VM time on, never back, running every deadline on the way in order of time; where
        they are too many, devices skip the rest. Raises :class:`Behind` where the turn is over
        first; it goes on from there when it is called again.
        """
        if self.next_ns <= now_ns:
            self._meet_deadlines(now_ns)
        if now_ns > self.now_ns:
            self.now_ns = now_ns

    def _meet_deadlines(self, now_ns: int) -> None:
        while self.next_ns <= now_ns:
            leaps = self._met >= MAX_DEADLINES
            device_id = min(self._deadlines, key=self._deadlines.__getitem__)
            due_ns = self._deadlines[device_id]
            self.now_ns = max(self.now_ns, now_ns if leaps else due_ns)
            slot = self.slots[device_id]
            self._met += 1
            try:
                if self._met > 2 * MAX_DEADLINES:
                    raise RuntimeError(f"skip({self.now_ns}) leaves ever new deadlines before that")
                (slot.device.skip if leaps else slot.device.advance)(self.now_ns)
                self._after(slot)
                if slot.watch is not None and slot.moves_leases:
                    slot.watch.moved()
            except BaseException as error:
                raise slot.fault(error) from error
            if self._deadlines.get(device_id, NEVER_NS) <= due_ns:
                stuck = RuntimeError(f"advance({self.now_ns}) left the deadline at {due_ns}")
                raise slot.fault(stuck)
            if self.next_ns <= now_ns and self.turn.is_over():
                raise Behind
        self._met = 0

    def next_deadline_ns(self) -> int | None:
        """The VM time of the next thing a device does on its own, if any."""
        return self.next_ns if self.next_ns != NEVER_NS else None

    def line_levels(self) -> dict[int, bool]:
        """The present level of each interrupt line that was ever driven."""
        return self.lines.levels()

    def reset(self) -> None:
        """Resets every device, as the machine's reset line does."""
        for slot in self.slots.values():
            try:
                slot.device.reset()
            except BaseException as error:
                raise slot.fault(error) from error
            self.reschedule(slot)

    def save(self) -> dict[str, Any]:
        """All device states, lines and the VM time, as a plain map."""
        return {
            "now_ns": self.now_ns,
            "lines": self.lines.save(),
            "slots": [slot.save() for slot in self.slots.values()],
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Restores what :meth:`save` gave; moves no line.

        Raises StateError if it does not fit, and then leaves everything as it was.
        """
        before = self.save()
        try:
            self._load(saved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._load(before)
            if isinstance(error, StateError):
                raise
            what = f"{type(error).__name__}: {error}"
            raise StateError(f"the snapshot of a machine is damaged ({what})") from error

    def _load(self, saved: Mapping[str, Any]) -> None:
        if len(saved["slots"]) != len(self.slots):
            raise StateError(
                f"snapshot has {len(saved['slots'])} devices; this machine has {len(self.slots)}"
            )
        if not isinstance(saved["now_ns"], int):
            raise StateError(f"a snapshot's VM time is {saved['now_ns']!r}")
        self.now_ns = saved["now_ns"]
        self.lines.load(saved["lines"])
        for slot, state in zip(self.slots.values(), saved["slots"], strict=True):
            slot.load(state)
            self.reschedule(slot)

    # -- devices that come and go -------------------------------------------------------------

    def add(self, wiring: DeviceWiring) -> Slot:
        """Plugs in a further device, fresh from reset; its identifier was never used before.

        Raises :class:`BoardError`, :class:`DeviceFault`; then nothing has changed.
        """
        if wiring.name in [slot.wiring.name for slot in self.slots.values()]:
            raise BoardError(f"two devices are named '{wiring.name}'")
        slot = self._slot(self._last_id + 1, wiring)
        try:
            self._place_regions(slot)
        except BoardError:
            self._unplace_regions(slot)
            slot.close()
            raise
        self._last_id += 1
        self.slots[slot.device_id] = slot
        try:
            self.reschedule(slot)
        except DeviceFault:
            self.remove(slot.device_id)
            raise
        return slot

    def remove(self, device_id: int) -> None:
        """Takes a device out; it drives no line any more. Raises KeyError."""
        slot = self.slots.pop(device_id)
        slot.close()
        self._unplace_regions(slot)
        for line, output in self.lines.driven_by(device_id):
            self.lines.drive(line, (device_id, output), False)
        self._deadlines.pop(device_id, None)
        self.next_ns = min(self._deadlines.values(), default=NEVER_NS)

    def rewire(self, sink: Sink) -> None:
        """Has another sink told from now on what the devices do."""
        self._sink = sink
        self.lines.rewire(sink)
        for slot in self.slots.values():
            slot.rewire(sink)

    # -- inner workings -----------------------------------------------------------------------

    def _place_regions(self, slot: Slot) -> None:
        for mapped in slot.regions():
            for other in self._maps[mapped.region.space]:
                if mapped.base < other.end and other.base < mapped.end:
                    refuse_overlap(other, mapped)
            self._maps[mapped.region.space].append(mapped)
            if mapped.region.space is Space.PORT:
                self._ports.update(dict.fromkeys(range(mapped.base, mapped.end), mapped))

    def _unplace_regions(self, slot: Slot) -> None:
        for space, regions in self._maps.items():
            self._maps[space] = [mapped for mapped in regions if mapped.slot is not slot]
        self._ports = {port: m for port, m in self._ports.items() if m.slot is not slot}

    def find(self, space: int, address: int) -> Mapped | None:
        """The region at an address; None where nobody answers or there is no such space."""
        if space == 0:  # Space.PORT, without a look at the enumeration: this is the busiest line
            return self._ports.get(address)
        for mapped in self._maps[Space(space)] if space <= Space.BUS else ():
            if mapped.base <= address < mapped.end:
                return mapped
        return None

    def _read_bytewise(self, space: Space, address: int, size: int) -> int:
        value = 0
        for i in range(size):
            mapped = self.find(space, address + i)
            byte = 0xFF if mapped is None else self.read(space, address + i, 1, self.now_ns)
            value |= byte << (8 * i)
        return value

    def _write_bytewise(self, space: Space, address: int, size: int, value: int) -> None:
        for i in range(size):
            if self.find(space, address + i) is not None:
                self.write(space, address + i, 1, value >> (8 * i) & 0xFF, self.now_ns)

    def _after(self, slot: Slot) -> None:
        if slot.backlog:
            slot.offer(self.now_ns)
        self.reschedule(slot)

    def reschedule(self, slot: Slot) -> None:
        """Notes a device's deadline, which may have changed; raises :class:`DeviceFault`."""
        try:
            due_ns = slot.device.deadline_ns()
            if due_ns.__class__ is not int and due_ns is not None:
                due_ns = checked_deadline(type(slot.device), due_ns)
        except BaseException as error:
            raise slot.fault(error) from error
        if due_ns is None:
            if slot.device_id not in self._deadlines:
                return
            del self._deadlines[slot.device_id]
        else:
            if self._deadlines.get(slot.device_id) == due_ns:
                return
            self._deadlines[slot.device_id] = due_ns
        self.next_ns = min(self._deadlines.values(), default=NEVER_NS)
