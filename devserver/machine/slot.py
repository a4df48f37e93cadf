"""One device in a bus: its wiring, the bus that it sees, what waits for it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from devserver.machine.board import IN_MEMORY, DeviceWiring
from devserver.machine.message_bus import VmPort
from devserver.machine.policies import Policies, PolicyError
from devserver.machine.turns import Behind
from devserver.models import catalog
from devserver.models.channels import Endpoint, Receiver
from devserver.models.context import Overdue
from devserver.models.declarations import checked_count, checked_device
from devserver.models.device import (
    Context,
    Device,
    ModelError,
    OptionError,
    Signal,
    Space,
    StateError,
)
from devserver.models.registers import Region
from devserver.wording import in_one_line

#: Bytes from the world that a channel holds for a device that is not ready for them.
FEED_LIMIT_BYTES = 64 * 1024


class BoardError(ValueError):
    """The machine as described can't be built: unknown model or option, or a clash."""


class NoModelError(BoardError):
    """A device's kind is not known in this process."""


class DeviceFault(Exception):
    """A model raised an exception; carries the device's name and the traceback as text."""

    def __init__(
        self, device: str, kind: str, error: BaseException, model: type | None = None
    ) -> None:
        self.device = device
        self.kind = kind
        self.details = "".join(traceback.format_exception(error))
        what, place = in_one_line(error), _place(error, model)
        if isinstance(error, ModelError):
            what = error.what
        elif isinstance(error, Overdue):
            what = str(error)
        at = f"{place[2]} at {place[0]}:{place[1]}" if place else ""
        super().__init__(f"device '{device}' ({kind}) failed: {what}{at}")

    @classmethod
    def said(cls, what: str) -> DeviceFault:
        """A fault of which no more is known than what is said."""
        fault = cls("", "", RuntimeError(what))
        fault.args, fault.details = (what,), ""
        return fault


def _place(error: BaseException, model: type | None) -> tuple[str, int, str] | None:
    """The file and the line of an error: the last ones of the model's own, if there are any."""
    if isinstance(error, ModelError) and error.place is not None:
        return (*error.place, "")
    frames = traceback.extract_tb(error.__traceback__)
    files = {
        getattr(sys.modules.get(cls.__module__), "__file__", None)
        for cls in (model.__mro__[:-2] if model else ())
    }
    own = [frame for frame in frames if frame.filename in files]
    for frame in (own or frames)[-1:]:
        return frame.filename, frame.lineno or 0, f", in {frame.name}"
    return None


class Sink(Protocol):
    """Where a bus's outputs go."""

    def line(self, line: int, level: bool) -> None:
        """An interrupt line changed its level."""

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        """A device sends bytes to the world; ``channel`` indexes the model's ``emits``."""

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        """A device has taken ``total`` bytes so far from the feed channel ``channel``."""

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        """A device asks something of the whole machine."""


class Watch(Protocol):
    """Somebody who wants to know of the accesses to a device."""

    def wrote(self, mapped: Mapped, address: int, size: int, value: int, posted: bool) -> None:
        """The guest wrote."""

    def wrote_run(self, mapped: Mapped, address: int, values: bytes) -> None:
        """The guest wrote bytes to one address, not waiting."""

    def read(self, mapped: Mapped, address: int, size: int, now_ns: int, posted: bool) -> None:
        """The guest read; ``posted``: it had its answer before."""

    def moved(self) -> None:
        """The device did something on its own, or was fed."""


class Mapped:
    """A region at its place in an address space: from ``base`` up to, without, ``end``."""

    __slots__ = ("base", "end", "name", "region", "slot")

    def __init__(self, slot: Slot, region: Region, base: int) -> None:
        self.slot = slot
        self.region = region
        self.name = region.name
        self.base = base
        self.end = base + region.size


def refuse_overlap(one: Mapped, two: Mapped) -> None:
    """Raises :class:`BoardError` for two regions that share an address."""
    start, end = max(one.base, two.base), min(one.end, two.end)
    what = "port" if one.region.space is Space.PORT else "memory address"
    where = f"{start:#x}" if end - start == 1 else f"{start:#x}-{end - 1:#x}"
    raise BoardError(
        f"devices '{one.slot.wiring.name}' and '{two.slot.wiring.name}' both claim "
        f"{what} {where}; move one of them"
    )


class Lines:
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

    def rewire(self, sink: Sink) -> None:
        """Has another sink told from now on."""
        self._sink = sink

    def driven_by(self, device_id: int) -> list[tuple[int, str]]:
        """The lines that a device holds high, each with the output that does it."""
        return [
            (line, output)
            for line, high in self._drivers.items()
            for driver, output in sorted(high)
            if driver == device_id
        ]

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
    what = f"kind '{model.kind}': region"
    regions = sorted(model.regions, key=lambda region: region.space is not Space.PORT)
    bases = _named(what, wiring.bases, [region.name for region in regions])
    if IN_MEMORY in bases:
        first = [region.name for region in regions if region.space is Space.MEMORY]
        base = {"": bases[IN_MEMORY]}
        others = {name: at for name, at in bases.items() if name != IN_MEMORY}
        bases = _named(f"{what} in memory", {**others, **base}, first)
    return replace(
        wiring,
        bases=bases,
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
    """One device in the bus: its identity, its wiring and its bus."""

    def __init__(
        self,
        device_id: int,
        wiring: DeviceWiring,
        sink: Sink,
        lines: Lines,
        epoch_ns: int,
        vm_port: VmPort,
    ) -> None:
        self.device_id = device_id
        self._vm_port = vm_port
        self.wiring = wiring
        self._sink = sink
        self._lines = lines
        #: Bytes from the world that the device has not taken yet, by channel.
        self.backlog: dict[str, bytearray] = {}
        self._taken: dict[str, int] = {}
        self._ended: set[str] = set()
        #: Told of every access, if there is one.
        self.watch: Watch | None = None
        model: type[Device] | None = None
        try:
            model = catalog.find(wiring.kind)
            self.wiring = _with_names(wiring, model)
            self.device: Device = model(Context(self, epoch_ns, wiring.options, self))
            checked_device(self.device)
            self.policies = Policies(self.device, wiring.policies)
            self._check_wiring()
        except catalog.UnknownModel as error:
            self.close()
            raise NoModelError(f"device '{wiring.name}': {error}") from None
        except (OptionError, PolicyError, _WiringError) as error:
            self.close()
            raise BoardError(f"device '{wiring.name}': {error}") from None
        except BoardError:
            self.close()
            raise
        except BaseException as error:
            self.close()
            raise DeviceFault(wiring.name, wiring.kind, error, model) from error
        #: Whether leases are to be looked at again after the device did something on its own.
        self.moves_leases = self.device.moves_leases()
        #: Whether the device may have a deadline at all.
        self.timed = type(self.device).deadline_ns is not Device.deadline_ns

    # the bus that the device sees

    def set_line(self, output: str, level: bool) -> None:
        line = self.wiring.lines.get(output)
        if line is not None:
            self._lines.drive(line, (self.device_id, output), bool(level))

    def emit(self, channel: str, data: bytes) -> None:
        self._sink.emit(self.device_id, self.device.emits.index(channel), data)

    def signal(self, signal: Signal, value: int) -> None:
        self._sink.signal(self.device_id, signal, value)

    # the boxes that it can join

    def join(self, box: str, number: int, listener: Receiver) -> Endpoint:
        return self._vm_port.join(self.device_id, box, number, listener)

    # what the bus uses

    def fault(self, error: BaseException) -> Exception:
        """What the device's failure is to be called; a fault, or the turn's end, is what it is."""
        if isinstance(error, DeviceFault | Behind):
            return error
        return DeviceFault(self.wiring.name, self.wiring.kind, error, type(self.device))

    def close(self) -> None:
        """The device is gone: it leaves its boxes."""
        self._vm_port.leave(self.device_id)

    def rewire(self, sink: Sink) -> None:
        """Has another sink told from now on; whoever feeds it begins to count anew."""
        self._sink = sink
        self.watch = None
        self.recount()

    def recount(self) -> None:
        """Counts what is taken from the next byte fed; what waits is not in that count."""
        self._taken = {channel: -len(held) for channel, held in self.backlog.items()}

    def regions(self) -> Iterator[Mapped]:
        for region in self.device.regions:
            base = self.wiring.bases.get(region.name)
            if base is not None:
                yield Mapped(self, region, base)

    def feed(self, channel: str, data: bytes, end: bool, now_ns: int) -> None:
        held = self.backlog.setdefault(channel, bytearray())
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
        for channel, held in list(self.backlog.items()):
            took = self.device.feed(channel, bytes(held), now_ns) if held else 0
            if took.__class__ is not int or not 0 <= took <= len(held):
                took = checked_count(type(self.device), channel, took, len(held))
            if took:
                del held[:took]
                self._taken[channel] = self._taken.get(channel, 0) + took
                consumed.append(self.device.feeds.index(channel))
            if not held:
                del self.backlog[channel]
                if channel in self._ended:
                    self._ended.discard(channel)
                    self.device.feed_end(channel, now_ns)
        for index in consumed:  # last, for it may bring more
            total = self._taken[self.device.feeds[index]]
            if total > 0:  # else it was fed by somebody before
                self._sink.consumed(self.device_id, index, total)

    def save(self) -> dict[str, Any]:
        return {
            "name": self.wiring.name,
            "device": self.device.save(),
            "backlog": {channel: bytes(held) for channel, held in self.backlog.items()},
            "taken": dict(self._taken),
            "ended": sorted(self._ended),
            "mail": self._vm_port.save(self.device_id),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        if saved["name"] != self.wiring.name:
            raise StateError(f"snapshot is of '{saved['name']}', not '{self.wiring.name}'")
        self.device.load(saved["device"])
        self.backlog = {channel: bytearray(held) for channel, held in saved["backlog"].items()}
        self._taken = dict(saved["taken"])
        self._ended = set(saved["ended"])
        self._vm_port.load(self.device_id, saved["mail"])

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
        if device.regions and not any(self.regions()):
            region = device.regions[0]
            key = "port" if region.space is Space.PORT else "mem"
            raise BoardError(
                f"device '{wiring.name}' ({wiring.kind}) is nowhere: say where its region "
                f"'{region.name}' lies, as in {key}=N"
            )
        for mapped in self.regions():
            limit = 0x10000 if mapped.region.space is Space.PORT else 1 << 64
            if not 0 <= mapped.base <= limit - mapped.region.size:
                raise BoardError(
                    f"device '{wiring.name}': region '{mapped.region.name}' at {mapped.base:#x} "
                    f"lies outside the address space"
                )
