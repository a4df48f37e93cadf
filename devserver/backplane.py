"""One machine's devices plugged together: address decoding, VM time, interrupt lines, faults.

A backplane does no I/O and knows no clock. A session (on a server) and a client platform (for
devices placed ``local``) use the same one.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from devserver.board import DeviceWiring
from devserver.models import catalog
from devserver.models.device import Context, Device, OptionError, Signal, Space, StateError
from devserver.models.registers import Region

#: Bytes from the world that a channel holds for a device that is not ready for them.
FEED_LIMIT_BYTES = 64 * 1024

_NEVER = 1 << 64


class BoardError(ValueError):
    """The machine as described can't be built: unknown model or option, or a clash."""


class DeviceFault(Exception):
    """A model raised an exception; carries the device's name and the traceback as text."""

    def __init__(self, device: str, kind: str, error: BaseException) -> None:
        self.device = device
        self.kind = kind
        last = traceback.extract_tb(error.__traceback__)[-1:]
        at = f" at {last[0].filename}:{last[0].lineno}" if last else ""
        self.details = "".join(traceback.format_exception(error))
        super().__init__(f"device '{device}' ({kind}) failed: {type(error).__name__}: {error}{at}")


class Sink(Protocol):
    """Where a backplane's outputs go."""

    def line(self, line: int, level: bool) -> None:
        """An interrupt line changed its level."""

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        """A device sends bytes to the world; ``channel`` indexes the model's ``emits``."""

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        """A device has taken ``total`` bytes so far from the feed channel ``channel``."""

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        """A device asks something of the whole machine."""


@dataclass(frozen=True)
class Mapped:
    """A region at its place in an address space."""

    slot: Slot
    region: Region
    base: int

    @property
    def end(self) -> int:
        return self.base + self.region.size


class _Lines:
    """The interrupt lines of a machine. Outputs wired to one line are ORed, as on the ISA bus."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._drivers: dict[int, set[tuple[int, str]]] = {}

    def drive(self, line: int, driver: tuple[int, str], level: bool) -> None:
        high = self._drivers.setdefault(line, set())
        before = bool(high)
        if level:
            high.add(driver)
        else:
            high.discard(driver)
        if bool(high) != before:
            self._sink.line(line, level)

    def levels(self) -> dict[int, bool]:
        return {line: bool(high) for line, high in self._drivers.items()}

    def save(self) -> list[list[Any]]:
        return [[line, *driver] for line, high in self._drivers.items() for driver in sorted(high)]

    def load(self, saved: Sequence[Sequence[Any]]) -> None:
        self._drivers = {}
        for line, device_id, output in saved:
            self._drivers.setdefault(line, set()).add((device_id, output))


class _WiringError(ValueError):
    """A wiring that does not fit the model."""


def _with_names(wiring: DeviceWiring, model: type[Device]) -> DeviceWiring:
    """``wiring`` with its unnamed base given to the first region, its unnamed line to the output.

    A machine file may leave these names out, as its reader need not know the model.
    """
    if "" in wiring.lines and len(model.outputs) > 1:
        raise _WiringError(
            f"kind '{model.kind}' has several interrupt outputs; "
            f"name one of: {', '.join(model.outputs)}"
        )
    regions = [region.name for region in model.regions]
    return replace(
        wiring,
        bases=_named(f"kind '{model.kind}': region", wiring.bases, regions),
        lines=_named(f"kind '{model.kind}': interrupt output", wiring.lines, model.outputs),
    )


def _named(what: str, wired: Mapping[str, int], names: Sequence[str]) -> Mapping[str, int]:
    if "" not in wired:
        return wired
    if not names:
        raise _WiringError(f"{what} wired, but the model has none")
    if names[0] in wired:
        raise _WiringError(f"{what} '{names[0]}' is wired twice")
    return {name or names[0]: value for name, value in wired.items()}


class Slot:
    """One device in the backplane: its identity, its wiring and its bus."""

    def __init__(
        self, device_id: int, wiring: DeviceWiring, sink: Sink, lines: _Lines, epoch_ns: int
    ) -> None:
        self.device_id = device_id
        self.wiring = wiring
        self._sink = sink
        self._lines = lines
        self._backlog: dict[str, bytearray] = {}
        self._taken: dict[str, int] = {}
        self._ended: set[str] = set()
        try:
            model = catalog.find(wiring.kind)
            self.wiring = _with_names(wiring, model)
            self.device: Device = model(Context(self, epoch_ns, wiring.options))
        except (catalog.UnknownModel, OptionError, _WiringError) as error:
            raise BoardError(f"device '{wiring.name}': {error}") from None
        except Exception as error:
            raise DeviceFault(wiring.name, wiring.kind, error) from error
        self._check_wiring()

    # the bus that the device sees

    def set_line(self, output: str, level: bool) -> None:
        line = self.wiring.lines.get(output)
        if line is not None:
            self._lines.drive(line, (self.device_id, output), level)

    def emit(self, channel: str, data: bytes) -> None:
        self._sink.emit(self.device_id, self.device.emits.index(channel), data)

    def signal(self, signal: Signal, value: int) -> None:
        self._sink.signal(self.device_id, signal, value)

    # what the backplane uses

    def regions(self) -> Iterator[Mapped]:
        for region in self.device.regions:
            base = self.wiring.bases.get(region.name)
            if base is not None:
                yield Mapped(self, region, base)

    def feed(self, channel: str, data: bytes, end: bool, now_ns: int) -> None:
        held = self._backlog.setdefault(channel, bytearray())
        if len(held) + len(data) > FEED_LIMIT_BYTES:
            raise OverflowError(
                f"device '{self.wiring.name}': more than {FEED_LIMIT_BYTES} bytes are waiting "
                f"on '{channel}'"
            )
        held += data
        if end:
            self._ended.add(channel)
        self.offer(now_ns)

    def offer(self, now_ns: int) -> None:
        """Offers the device what waits for it."""
        consumed: list[int] = []
        for channel, held in list(self._backlog.items()):
            took = self.device.feed(channel, bytes(held), now_ns) if held else 0
            if took:
                del held[:took]
                self._taken[channel] = self._taken.get(channel, 0) + took
                consumed.append(self.device.feeds.index(channel))
            if not held:
                del self._backlog[channel]
                if channel in self._ended:
                    self._ended.discard(channel)
                    self.device.feed_end(channel, now_ns)
        for index in consumed:  # last, for it may bring more
            self._sink.consumed(self.device_id, index, self._taken[self.device.feeds[index]])

    @property
    def hungry(self) -> bool:
        """Whether bytes wait for this device."""
        return bool(self._backlog)

    def save(self) -> dict[str, Any]:
        return {
            "name": self.wiring.name,
            "device": self.device.save(),
            "backlog": {channel: bytes(held) for channel, held in self._backlog.items()},
            "taken": dict(self._taken),
            "ended": sorted(self._ended),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        if saved["name"] != self.wiring.name:
            raise StateError(f"snapshot is of '{saved['name']}', not '{self.wiring.name}'")
        self.device.load(saved["device"])
        self._backlog = {channel: bytearray(held) for channel, held in saved["backlog"].items()}
        self._taken = dict(saved["taken"])
        self._ended = set(saved["ended"])

    def _check_wiring(self) -> None:
        wiring, device = self.wiring, self.device
        for what, wired, known in (
            ("region", wiring.bases, [region.name for region in device.regions]),
            ("interrupt output", wiring.lines, list(device.outputs)),
        ):
            for name in wired:
                if name not in known:
                    raise BoardError(
                        f"device '{wiring.name}': kind '{wiring.kind}' has no {what} '{name}' "
                        f"(it has: {', '.join(known) or 'none'})"
                    )
        for mapped in self.regions():
            limit = 0x10000 if mapped.region.space is Space.PORT else 1 << 64
            if not 0 <= mapped.base <= limit - mapped.region.size:
                raise BoardError(
                    f"device '{wiring.name}': region '{mapped.region.name}' at {mapped.base:#x} "
                    f"lies outside the address space"
                )


class Backplane:
    """The devices of one virtual machine, or those of them that are placed together."""

    def __init__(self, wirings: Sequence[DeviceWiring], sink: Sink, epoch_ns: int = 0) -> None:
        self._lines = _Lines(sink)
        self.slots: dict[int, Slot] = {}
        self.now_ns = 0
        names: set[str] = set()
        for device_id, wiring in enumerate(wirings, start=1):
            if wiring.name in names:
                raise BoardError(f"two devices are named '{wiring.name}'")
            names.add(wiring.name)
            self.slots[device_id] = Slot(device_id, wiring, sink, self._lines, epoch_ns)
        self._maps: dict[Space, list[Mapped]] = {Space.PORT: [], Space.MEMORY: []}
        self._ports: dict[int, Mapped] = {}
        self._place_regions()
        self._deadlines: dict[int, int] = {}
        self._next_ns = _NEVER
        for slot in self.slots.values():
            self._reschedule(slot)

    def mapped(self) -> Iterator[Mapped]:
        """Every region at its place."""
        for regions in self._maps.values():
            yield from regions

    def read(self, space: Space, address: int, size: int, now_ns: int) -> int:
        """Reads ``size`` bytes (1, 2, 4 or 8) at VM time ``now_ns``, little-endian.

        Bytes that no device claims read all-ones. Raises :class:`DeviceFault` if the model fails.
        """
        self.advance(now_ns)
        mapped = self.find(space, address)
        if mapped is None or address + size > mapped.end:
            return self._read_bytewise(space, address, size)
        slot = mapped.slot
        try:
            value = slot.device.read(mapped.region.name, address - mapped.base, size, self.now_ns)
            self._after(slot)
        except Exception as error:
            raise self._fault(slot, error) from error
        return value

    def read_elements(
        self, space: Space, address: int, size: int, count: int, now_ns: int
    ) -> list[int]:
        """``count`` reads at the same address, as string input does them."""
        mapped = self.find(space, address)
        if mapped is None or address + size > mapped.end or mapped.slot.hungry:
            return [self.read(space, address, size, now_ns) for _ in range(count)]
        self.advance(now_ns)
        slot, offset = mapped.slot, address - mapped.base
        try:
            values = slot.device.read_elements(mapped.region.name, offset, size, count, self.now_ns)
            self._after(slot)
        except Exception as error:
            raise self._fault(slot, error) from error
        return values

    def write(self, space: Space, address: int, size: int, value: int, now_ns: int) -> None:
        """Writes ``size`` bytes (1, 2, 4 or 8); bytes that no device claims are dropped."""
        self.advance(now_ns)
        mapped = self.find(space, address)
        if mapped is None or address + size > mapped.end:
            self._write_bytewise(space, address, size, value)
            return
        slot = mapped.slot
        try:
            slot.device.write(mapped.region.name, address - mapped.base, size, value, self.now_ns)
            self._after(slot)
        except Exception as error:
            raise self._fault(slot, error) from error

    def feed(
        self, device_id: int, channel: int, data: bytes, now_ns: int, *, end: bool = False
    ) -> None:
        """Hands a device bytes from the world; raises LookupError for a channel it has not."""
        self.advance(now_ns)
        slot = self.slots[device_id]
        name = slot.device.feeds[channel]
        try:
            slot.feed(name, data, end, self.now_ns)
            self._reschedule(slot)
        except OverflowError:
            raise
        except Exception as error:
            raise self._fault(slot, error) from error

    def advance(self, now_ns: int) -> None:
        """Moves VM time on, never back, running every deadline on the way in order of time."""
        while self._next_ns <= now_ns:
            device_id = min(self._deadlines, key=self._deadlines.__getitem__)
            due_ns = self._deadlines[device_id]
            self.now_ns = max(self.now_ns, due_ns)
            slot = self.slots[device_id]
            try:
                slot.device.advance(self.now_ns)
                self._after(slot)
            except Exception as error:
                raise self._fault(slot, error) from error
            if self._deadlines.get(device_id, _NEVER) <= due_ns:
                stuck = RuntimeError(f"advance({self.now_ns}) left the deadline at {due_ns}")
                raise self._fault(slot, stuck)
        if now_ns > self.now_ns:
            self.now_ns = now_ns

    def next_deadline_ns(self) -> int | None:
        """The VM time of the next thing a device does on its own, if any."""
        return self._next_ns if self._next_ns != _NEVER else None

    def line_levels(self) -> dict[int, bool]:
        """The present level of each interrupt line that was ever driven."""
        return self._lines.levels()

    def reset(self) -> None:
        """Resets every device, as the machine's reset line does."""
        for slot in self.slots.values():
            try:
                slot.device.reset()
            except Exception as error:
                raise self._fault(slot, error) from error
            self._reschedule(slot)

    def save(self) -> dict[str, Any]:
        """All device states, lines and the VM time, as a plain map."""
        return {
            "now_ns": self.now_ns,
            "lines": self._lines.save(),
            "slots": [slot.save() for slot in self.slots.values()],
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Restores what :meth:`save` gave; moves no line. Raises StateError if it does not fit."""
        if len(saved["slots"]) != len(self.slots):
            raise StateError(
                f"snapshot has {len(saved['slots'])} devices; this machine has {len(self.slots)}"
            )
        self.now_ns = saved["now_ns"]
        self._lines.load(saved["lines"])
        for slot, state in zip(self.slots.values(), saved["slots"], strict=True):
            slot.load(state)
            self._reschedule(slot)

    # -- inner workings -----------------------------------------------------------------------

    def _place_regions(self) -> None:
        for slot in self.slots.values():
            for mapped in slot.regions():
                for other in self._maps[mapped.region.space]:
                    if mapped.base < other.end and other.base < mapped.end:
                        self._refuse_overlap(other, mapped)
                self._maps[mapped.region.space].append(mapped)
                if mapped.region.space is Space.PORT:
                    self._ports.update(dict.fromkeys(range(mapped.base, mapped.end), mapped))

    @staticmethod
    def _refuse_overlap(one: Mapped, two: Mapped) -> None:
        start, end = max(one.base, two.base), min(one.end, two.end)
        what = "port" if one.region.space is Space.PORT else "memory address"
        where = f"{start:#x}" if end - start == 1 else f"{start:#x}-{end - 1:#x}"
        raise BoardError(
            f"devices '{one.slot.wiring.name}' and '{two.slot.wiring.name}' both claim "
            f"{what} {where}; move one of them"
        )

    def find(self, space: int, address: int) -> Mapped | None:
        """The region at an address; None where nobody answers or there is no such space."""
        if space == 0:  # Space.PORT, without a look at the enumeration: this is the busiest line
            return self._ports.get(address)
        for mapped in self._maps[Space.MEMORY] if space == Space.MEMORY else ():
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
        if slot.hungry:
            slot.offer(self.now_ns)
        self._reschedule(slot)

    def _reschedule(self, slot: Slot) -> None:
        due_ns = slot.device.deadline_ns()
        if due_ns is None:
            if slot.device_id not in self._deadlines:
                return
            del self._deadlines[slot.device_id]
        else:
            if self._deadlines.get(slot.device_id) == due_ns:
                return
            self._deadlines[slot.device_id] = due_ns
        self._next_ns = min(self._deadlines.values(), default=_NEVER)

    @staticmethod
    def _fault(slot: Slot, error: Exception) -> DeviceFault:
        if isinstance(error, DeviceFault):
            return error
        return DeviceFault(slot.wiring.name, slot.wiring.kind, error)
