"""What a device model is: a class that declares its registers and reacts to reads and writes.

A model is synchronous, has one owner, never blocks and never asks for the time: it is handed the
**VM time**, in nanoseconds since its virtual machine started. The same class runs in a server, in
the client platform, or in a unit test with no guest at all::

    ROLL = Register(offset=0, name="ROLL", access=Access.RO)

    class Dice(Device):
        '''Rolls a die on each read.'''

        kind = "dice"
        regions = (Region(name="io", size=1, registers=(ROLL,)),)

        @dataclass
        class State:
            seed: int = 1

        def read_roll(self, now_ns: int) -> int:
            self.state.seed = self.state.seed * 1103515245 + 12345 & 0x7FFFFFFF
            return self.state.seed % 6 + 1
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from devserver.models import declarations
from devserver.models.binding import Bindings
from devserver.models.context import Context, DeviceBus, ModelError, NullBus, OptionError, Signal
from devserver.models.dispatch import Lessor, Reader, RunWriter, Writer, plain_entry
from devserver.models.lease import ANY_LANE, Hold, Lease, Term
from devserver.models.lineage import lineage
from devserver.models.registers import Access, Policy, Region, Register, Space
from devserver.models.state import StateError, from_plain, to_plain

__all__ = [
    "ANY_LANE",
    "Access",
    "Context",
    "Device",
    "DeviceBus",
    "Hold",
    "Lease",
    "ModelError",
    "NullBus",
    "OptionError",
    "Policy",
    "Region",
    "Register",
    "Signal",
    "Space",
    "StateError",
    "Term",
]


class Device:
    """Base of every device model.

    Subclasses declare ``kind``, ``version``, ``regions``, ``outputs`` (names of interrupt lines),
    ``feeds`` and ``emits`` (names of byte channels from and to the world), one ``State``
    dataclass, and an ``Options`` dataclass if they take options. For a register ``FOO`` they
    define ``read_foo(now_ns) -> int`` and ``write_foo(value, now_ns)``, unless the register
    names a ``storage`` field of the state. Values are unsigned and fit the register's width.

    Where many bytes may be written to one register in a row, ``write_foo_run(values, times_ns) ->
    bool`` takes them all at once, or leaves everything as it is and returns False. A register that
    only stores needs none.

    For a leased register they define ``lease_foo(now_ns) -> Lease | None``, None where the client
    is to ask: because a read would change something now, or because the answer can't be said in
    advance. Leases that mean the same must be equal whenever they are asked for.
    """

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1
    regions: ClassVar[tuple[Region, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    feeds: ClassVar[tuple[str, ...]] = ()
    emits: ClassVar[tuple[str, ...]] = ()
    #: False: what changes a lease as time passes is all said in it, as a function of time or as its
    #: end; so leases need not be looked at again after :meth:`advance`.
    leases_move_with_time: ClassVar[bool] = True

    @dataclass
    class State:
        """A model with no state of its own."""

    @dataclass(frozen=True)
    class Options:
        """A model with no options."""

    state: Any
    options: Any

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if cls.kind:
            declarations.check(cls)

    def __init__(self, context: Context | None = None) -> None:
        declarations.check_methods(type(self))
        self.context = context or Context()
        self.options = self._parse_options(self.context.options)
        self.state = self.State()
        self._bindings = bindings = Bindings(self)
        self._readers, self._writers = bindings.readers, bindings.writers
        self._quick_readers = bindings.quick_readers
        self._quick_writers = bindings.quick_writers
        self.started()

    # -- what a model may override ----------------------------------------------------------

    def started(self) -> None:
        """Called when the device has a fresh state: at power-on and after a reset."""

    def bank(self) -> str:
        """The register bank that is selected now; only models with banks need this."""
        return ""

    def deadline_ns(self) -> int | None:
        """The VM time at which :meth:`advance` is next to be called, or None for never."""
        return None

    def advance(self, now_ns: int) -> None:
        """Brings the device to VM time ``now_ns``; called when its deadline has come.

        It must leave :meth:`deadline_ns` later than it was. An access may come later than the
        deadline that precedes it was due, never before ``advance`` has handled that deadline.
        """

    def skip(self, now_ns: int) -> None:
        """Brings the device to VM time ``now_ns`` past deadlines without end.

        VM time has leapt, and what a timer would have done in between is too much to be lived
        through. A model whose :meth:`advance` does one period at a time works out here where it
        stands by then; any other need not override it.
        """
        self.advance(now_ns)

    def feed(self, channel: str, data: bytes, now_ns: int) -> int:
        """Takes bytes from the world; returns how many. The rest is offered again later."""
        return len(data)

    def feed_end(self, channel: str, now_ns: int) -> None:
        """The world will send no more bytes on ``channel`` (end of input)."""

    # -- what a model uses --------------------------------------------------------------------

    def set_line(self, output: str, level: bool) -> None:
        """Drives an interrupt output; setting the level it already has costs nothing."""
        if output not in self.outputs:
            raise declarations.not_declared(self.kind, "set_line", output, "outputs", self.outputs)
        self.context.bus.set_line(output, level)

    def emit(self, channel: str, data: bytes) -> None:
        """Sends bytes to the world."""
        if channel not in self.emits:
            raise declarations.not_declared(self.kind, "emit", channel, "emits", self.emits)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            what = f"emit('{channel}') takes bytes, not {data!r:.40}"
            raise ModelError(f"model '{self.kind}': {what}")
        self.context.bus.emit(channel, data)

    def signal(self, signal: Signal, value: int = 0) -> None:
        """Asks something of the whole machine: its end or its reset."""
        if not isinstance(signal, Signal) or not isinstance(value, int) or not 0 <= value < 1 << 64:
            raise ModelError(
                f"model '{self.kind}': signal({signal!r:.40}, {value!r:.40}) is not a Signal and a "
                "number of 64 bits"
            )
        self.context.bus.signal(signal, value)

    # -- what the owner calls -----------------------------------------------------------------

    def read(self, region: str, offset: int, size: int, now_ns: int) -> int:
        """Reads ``size`` bytes (1, 2, 4, 8) at ``offset``, little-endian.

        A read wider than the register is made of successive narrower ones, as an ISA bus does;
        a read inside a wider register takes its byte lanes. Where no register answers, all-ones.
        """
        if size == 1 and (quick := self._quick_readers.get((region, offset))) is not None:
            answer = quick(now_ns)
            if answer.__class__ is not int:
                answer = self.checked(region, offset, answer)
            return answer & 0xFF
        table = self._readers[region]
        done = 0
        value = 0
        while done < size:
            row = table.get(self.bank()) or table[""]
            at = offset + done
            entry = row[at] if at < len(row) else None
            if entry is None:
                value |= 0xFF << (8 * done)
                done += 1
                continue
            register, reader = entry
            lane = at - register.offset
            answer = reader(now_ns)
            if answer.__class__ is not int:
                answer = declarations.checked_answer(type(self), register, answer)
            part = (answer & ((1 << (8 * register.width)) - 1)) >> (8 * lane)
            value |= part << (8 * done)
            done += register.width - lane
        return value & ((1 << (8 * size)) - 1)

    def read_elements(
        self, region: str, offset: int, size: int, count: int, now_ns: int
    ) -> list[int]:
        """``count`` reads of ``size`` bytes at the same ``offset``, as string input does them."""
        if type(self).read is not Device.read:
            return [self.read(region, offset, size, now_ns) for _ in range(count)]
        table = self._readers[region]
        row = table[""]
        entry = row[offset] if len(table) == 1 and offset < len(row) else None
        lies_within = entry is not None and offset + size <= entry[0].offset + entry[0].width
        if entry is not None and lies_within and self._bindings.only_stores(entry[0]):
            return [self.read(region, offset, size, now_ns)] * count
        if entry is not None and entry[0].width == size and entry[0].offset == offset:
            reader, mask = entry[1], (1 << (8 * size)) - 1
            answers = [reader(now_ns) for _ in range(count)]
            check, model = declarations.checked_answer, type(self)
            return [check(model, entry[0], answer) & mask for answer in answers]
        return [self.read(region, offset, size, now_ns) for _ in range(count)]

    def lease(self, region: str, offset: int, now_ns: int) -> Lease | None:
        """The lease on reads of the byte at ``offset`` at the present VM time, if there can be one.

        It is that of the register which is selected now, where banks share the offset.
        """
        lessor = self.lessor(region, offset, self.bank())
        return None if lessor is None else lessor(now_ns)

    def lessor(self, region: str, offset: int, bank: str) -> Lessor | None:
        """What says the lease on reads of the byte at ``offset`` while ``bank`` is selected."""
        return self._bindings.lessors.get((region, self._own_bank(region, bank), offset))

    def can_lease(self, register: Register) -> bool:
        """Whether a register's reads can be leased at all: a matter of the model's code."""
        return self._bindings.lessor(self._region_of(register), register) is not None

    def write_policy(self, register: Register) -> Policy:
        """How writes of a register travel, if the wiring does not say otherwise.

        As it is declared, unless a derived class takes the writes and has not declared it anew.
        """
        holds = lineage(type(self)).holds_policy(self._region_of(register), register)
        return register.policy if holds else Policy.FINISH

    def moves_leases(self) -> bool:
        """Whether leases are to be looked at again after :meth:`advance`."""
        return self.leases_move_with_time or not lineage(type(self)).is_said_in_leases()

    def write(self, region: str, offset: int, size: int, value: int, now_ns: int) -> None:
        """Writes ``size`` bytes (1, 2, 4, 8) at ``offset``, little-endian.

        Split like a read. A write to some byte lanes of a wider register keeps its other lanes
        if the register has storage, and writes zeros to them if it has not.
        """
        if size == 1 and (quick := self._quick_writers.get((region, offset))) is not None:
            quick(value & 0xFF, now_ns)
            return
        done = 0
        table = self._writers[region]
        while done < size:
            row = table.get(self.bank()) or table[""]
            at = offset + done
            entry = row[at] if at < len(row) else None
            if entry is None:
                done += 1
                continue
            register, writer = entry
            lane = at - register.offset
            take = min(register.width - lane, size - done)
            part = value >> (8 * done) & ((1 << (8 * take)) - 1)
            if take != register.width:
                kept = getattr(self.state, register.storage) if register.storage else 0
                part = kept & ~(((1 << (8 * take)) - 1) << (8 * lane)) | part << (8 * lane)
            writer(part, now_ns)
            done += take

    def plain_reader(self, region: str, offset: int, size: int) -> Reader | None:
        """What a read there comes down to, if that is the same call whatever the state.

        It is so where one register as wide as the read answers, in every bank. The value is not
        masked.
        """
        if type(self).read is not Device.read:
            return None
        return plain_entry(self._readers[region], offset, size)

    def plain_writer(self, region: str, offset: int, size: int) -> Writer | None:
        """What a write there comes down to; see :meth:`plain_reader`. The value must fit."""
        if type(self).write is not Device.write:
            return None
        return plain_entry(self._writers[region], offset, size)

    def run_writer(self, region: str, offset: int) -> RunWriter | None:
        """What takes many bytes written to ``offset`` at once, in the bank that is selected now."""
        return self._bindings.runs.get((region, self._own_bank(region, self.bank()), offset))

    def has_run_writer(self, region: str, offset: int) -> bool:
        """Whether there is such a thing in any bank."""
        return any(
            run is not None
            for (name, _, at), run in self._bindings.runs.items()
            if name == region and at == offset
        )

    def reset(self) -> None:
        """Power-on reset: a fresh state, lines low."""
        self.state = self.State()
        for output in self.outputs:
            self.set_line(output, False)
        self.started()

    def save(self) -> dict[str, Any]:
        """The state as a plain map with kind and version; fit for msgpack."""
        return {"kind": self.kind, "version": self.version, "state": to_plain(self.state)}

    def load(self, snapshot: Mapping[str, Any]) -> None:
        """Restores what :meth:`save` gave. Moves no line and emits nothing.

        Raises :class:`StateError` if the snapshot is of another kind, a newer version or damaged.
        """
        if snapshot.get("kind") != self.kind:
            raise StateError(f"snapshot is of kind {snapshot.get('kind')!r}, not {self.kind!r}")
        if snapshot.get("version") != self.version:
            raise StateError(
                f"snapshot of {self.kind} has version {snapshot.get('version')!r}; "
                f"this model reads version {self.version}"
            )
        self.state = from_plain(self.State, snapshot.get("state"), self.kind)

    # -- inner workings -----------------------------------------------------------------------

    def _own_bank(self, region: str, bank: str) -> str:
        """The bank, if the region has it."""
        return bank if bank in self._readers[region] else ""

    def _parse_options(self, given: Mapping[str, object]) -> Any:
        known = {f.name: f for f in dataclasses.fields(self.Options)}
        for key in given:
            if key not in known:
                raise OptionError(
                    f"device kind '{self.kind}' has no option '{key}' "
                    f"(it has: {', '.join(known) or 'none'})"
                )
        try:
            defaults = to_plain(self.Options())
            return from_plain(self.Options, {**defaults, **given}, self.kind)
        except StateError as error:
            raise OptionError(str(error)) from None

    def checked(self, region: str, offset: int, answer: object) -> int:
        """What a read of the register at an offset gave; raises :class:`ModelError` if it is none.

        For what is no plain ``int``.
        """
        return declarations.checked_answer(type(self), self.register_at(region, offset), answer)

    def register_at(self, region: str, offset: int) -> Register:
        """The register whose reads are served at an offset, in the bank that is selected now."""
        rows = self._readers[region]
        entry = (rows.get(self.bank()) or rows[""])[offset]
        if entry is None:
            raise LookupError(f"no register of region '{region}' can be read at {offset:#x}")
        return entry[0]

    def _region_of(self, register: Register) -> Region:
        return next(region for region in self.regions if register in region.registers)
