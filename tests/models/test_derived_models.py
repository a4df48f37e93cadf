"""A class derived from a model: whatever it defines anew is what the guest meets.

Each bundled model is derived from, one method at a time, and used twice with the same accesses: the
plain way, one access after the other, and with everything that makes accesses cheaper: leases, runs
of writes, bound accesses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from devserver.machine import fastpath
from devserver.machine.board import DeviceWiring
from devserver.machine.bus import Bus
from devserver.machine.lease_book import LeaseBook
from devserver.models import Access, Device, Policy, Region, Register, catalog
from devserver.models.lease import Lease
from devserver.models.registers import Space
from devserver.protocol.messages import Direction

STEPS = 120


class Said:
    """A sink that keeps what it is told; output is put together by channel."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, bool]] = []
        self.sent: dict[tuple[int, int], bytes] = {}

    def line(self, line: int, level: bool) -> None:
        self.lines.append((line, level))

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self.sent[device_id, channel] = self.sent.get((device_id, channel), b"") + data

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        pass

    def signal(self, device_id: int, signal: Any, value: int) -> None:
        pass


class Plain:
    """A machine with one device, every access of which goes to its methods."""

    def __init__(self, model: type[Device]) -> None:
        catalog.register(model)
        bases, base = {}, 0x100
        for region in model.regions:
            bases[region.name] = base
            base += region.size
        lines = {output: number for number, output in enumerate(model.outputs)}
        wiring = DeviceWiring(name="it", kind=model.kind, bases=bases, lines=lines)
        self.said = Said()
        self.board = Bus([wiring], self.said)

    def read(self, space: Space, address: int, now_ns: int) -> int:
        return self.board.read(space, address, 1, now_ns)

    def write(self, space: Space, address: int, values: list[int], now_ns: int) -> None:
        for value in values:
            self.board.write(space, address, 1, value, now_ns)

    def outcome(self) -> tuple[Any, ...]:
        """All that was said, and what every byte reads in the end."""
        end_ns, found = 10**9, []
        for mapped in self.board.mapped():
            for address in range(mapped.base, mapped.end):
                found.append(self.board.read(mapped.region.space, address, 1, end_ns))
        return self.said.lines, self.said.sent, found


class Cheap(Plain):
    """The same, with leases that a client holds, runs, and accesses that are bound once."""

    def __init__(self, model: type[Device]) -> None:
        super().__init__(model)
        self.book = LeaseBook(self.board, lambda: None)
        self.held: dict[int, Lease] = {}
        self.answered = 0
        self._hear()

    def _bound(self, space: Space, address: int, direction: Direction) -> fastpath.Bound:
        mapped = self.board.find(space, address)
        assert mapped is not None
        return fastpath.bind(self.board, mapped, direction, address, 1, lambda: None)

    def _hear(self) -> None:
        for change in self.book.changes():
            self.held.pop(change.address, None)
            if change.lease is not None:
                self.held[change.address] = change.lease

    def read(self, space: Space, address: int, now_ns: int) -> int:
        lease = self.held.get(address)
        if lease is not None and lease.covers(now_ns) and not lease.is_changed_by_reading():
            self.answered += 1
            return lease.at(now_ns)
        value = self._bound(space, address, Direction.IN).access(0, now_ns)
        self._hear()
        return value

    def write(self, space: Space, address: int, values: list[int], now_ns: int) -> None:
        self._bound(space, address, Direction.OUT).run(values, [now_ns] * len(values))
        self._hear()


def accesses(model: type[Device], seed: int) -> Iterator[tuple[Any, ...]]:
    """What a guest does: the same for the same seed."""
    chance = random.Random(seed)
    places, base, now_ns = [], 0x100, 0
    for region in model.regions:
        places += [(region.space, base + offset) for offset in range(region.size)]
        base += region.size
    for _ in range(STEPS):
        now_ns += chance.choice((500, 20_000, 3_000_000))
        space, address = chance.choice(places)
        if chance.random() < 0.6:
            yield "read", space, address, now_ns
        else:
            values = [chance.choice((0, 1, 3, 0x80, 0xFF, chance.randrange(256)))]
            yield "write", space, address, values * chance.randrange(1, 4), now_ns


def used(machine: Plain, seed: int) -> list[Any]:
    return [getattr(machine, name)(*rest) for name, *rest in accesses(type_of(machine), seed)]


def type_of(machine: Plain) -> type[Device]:
    return type(machine.board.slots[1].device)


def methods(kind: str) -> list[str]:
    """Every register's methods, and what else may be defined anew."""
    model = catalog.find(kind)
    names = [
        f"{verb}_{register.name.lower()}"
        for region in model.regions
        for register in region.registers
        for verb in ("read", "write")
        if register.access is not (Access.WO if verb == "read" else Access.RO)
    ]
    return [*dict.fromkeys(names), "read", "write", "emit", "set_line"]


def turned(verb: str, before: Any, other: Any) -> Any:
    """A method that does something else than the one ``before``, which it calls."""

    def read(self: Device, now_ns: int) -> int:
        return before(self, now_ns) ^ 0x41 if before else 0x41

    def write(self: Device, value: int, now_ns: int) -> None:
        if before:
            before(self, value ^ 0x02, now_ns)
        if other:
            other(self, value ^ 0x10, now_ns)

    return read if verb == "read" else write


def derived(kind: str, name: str, also: str = "") -> type[Device]:
    """The model with one method defined anew; a write does ``also`` that of another register."""
    base = catalog.find(kind)

    def read(self: Device, *where: Any) -> int:
        return base.read(self, *where) ^ 0x20

    def write(self: Device, region: str, offset: int, size: int, value: int, now: int) -> None:
        base.write(self, region, offset, size, value ^ 0x04, now)

    def emit(self: Device, channel: str, data: bytes) -> None:
        base.emit(self, channel, bytes([len(data)]))

    def set_line(self: Device, output: str, level: bool) -> None:
        base.set_line(self, output, not level)

    whole = {"read": read, "write": write, "emit": emit, "set_line": set_line}
    verb = name.partition("_")[0]
    before, other = getattr(base, name, None), getattr(base, also, None) if also else None
    method = whole.get(name) or turned(verb, before, other)
    return type(f"Derived{name}", (base,), {name: method, "kind": f"{kind} with {name} {also}"})


WITH_LEASES = ["uart16550", "pit8254", "mc146818", "postcode", "debugcon"]
ALL = [(kind, name) for kind in catalog.BUNDLED for name in methods(kind)]


@pytest.fixture(autouse=True)
def _forget_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))


@pytest.mark.parametrize(("kind", "name"), ALL, ids=lambda value: str(value))
def test_what_a_derived_class_defines_anew_is_what_the_guest_meets(kind: str, name: str) -> None:
    model = derived(kind, name)
    for seed in range(2):
        plain, cheap = Plain(model), Cheap(model)
        assert used(cheap, seed) == used(plain, seed)
        assert cheap.outcome() == plain.outcome()


@pytest.mark.parametrize("kind", WITH_LEASES)
def test_a_write_that_now_changes_another_register_too_is_seen_there(kind: str) -> None:
    writes = [name for name in methods(kind) if name.startswith("write_")]
    for name in writes:
        for also in writes:
            if name == also or not hasattr(catalog.find(kind), also):
                continue
            model = derived(kind, name, also)
            plain, cheap = Plain(model), Cheap(model)
            assert used(cheap, 1) == used(plain, 1), (name, also)


@pytest.mark.parametrize("kind", WITH_LEASES)
def test_what_is_not_defined_anew_stays_cheap(kind: str) -> None:
    model = type("Same", (catalog.find(kind),), {"kind": f"{kind} as it is"})
    cheap = Cheap(model)
    used(cheap, 1)
    assert cheap.answered > 5


# -- one by one -------------------------------------------------------------------------------


class Plotter(Device):
    """A stored register that may be leased and written in runs, and one with methods."""

    kind = "plotter"
    regions = (
        Region(
            name="io",
            size=2,
            registers=(
                Register(offset=0, name="PEN", storage="pen", policy=Policy.POSTED, leased=True),
                Register(offset=1, name="ARM", policy=Policy.POSTED, leased=True),
            ),
        ),
    )

    @dataclass
    class State:
        pen: int = 0
        arm: int = 0

    state: State

    def read_arm(self, now_ns: int) -> int:
        return self.state.arm

    def write_arm(self, value: int, now_ns: int) -> None:
        self.state.arm = value

    def write_arm_run(self, values: bytes, times_ns: list[int]) -> bool:
        self.state.arm = values[-1]
        return True

    def lease_arm(self, now_ns: int) -> Lease:
        return Lease(value=self.state.arm, unaffected=0b01)


def test_an_override_of_a_read_or_of_its_lease_alone_is_without_a_lease() -> None:
    class Read(Plotter):
        def read_arm(self, now_ns: int) -> int:
            return 1

    class Leased(Plotter):
        def lease_arm(self, now_ns: int) -> Lease:
            return Lease(value=1)

    class Both(Read):
        def read_arm(self, now_ns: int) -> int:
            return 2

        def lease_arm(self, now_ns: int) -> Lease:
            return Lease(value=2)

    class Stored(Plotter):
        def read_pen(self, now_ns: int) -> int:
            return 3

    assert Plotter().lease("io", 1, 0) == Lease(value=0, unaffected=0b01)
    assert Read().lease("io", 1, 0) is None
    assert Leased().lease("io", 1, 0) is None
    assert Both().lease("io", 1, 0) == Lease(value=2)
    assert Plotter().lease("io", 0, 0) == Lease(value=0)
    assert Stored().lease("io", 0, 0) is None


def test_a_class_between_may_be_the_one_that_defines_it_anew() -> None:
    class Loud:
        def read_arm(self, now_ns: int) -> int:
            return 7

    class Mixed(Loud, Plotter):
        pass

    assert Mixed().lease("io", 1, 0) is None
    assert Mixed().read("io", 1, 1, 0) == 7


def test_an_inherited_lease_holds_again_for_a_class_that_names_it() -> None:
    class Again(Plotter):
        def read_arm(self, now_ns: int) -> int:
            return super().read_arm(now_ns)

        lease_arm = Plotter.lease_arm

    assert Again().lease("io", 1, 0) == Lease(value=0, unaffected=0b01)


def test_an_override_of_a_write_is_waited_for_unless_the_regions_are_named_again() -> None:
    class Written(Plotter):
        def write_arm(self, value: int, now_ns: int) -> None:
            self.state.pen = value

    class Said(Written):
        regions = Plotter.regions

    pen, arm = Plotter.regions[0].registers
    assert [Plotter().write_policy(each) for each in (pen, arm)] == [Policy.POSTED] * 2
    assert [Written().write_policy(each) for each in (pen, arm)] == [Policy.POSTED, Policy.FINISH]
    assert Said().write_policy(arm) is Policy.POSTED
    assert Written().run_writer("io", 1) is None
    assert Plotter().run_writer("io", 1) is not None


def test_a_lease_says_nothing_of_a_write_that_is_defined_anew() -> None:
    class Written(Plotter):
        def write_pen(self, value: int, now_ns: int) -> None:
            self.state.arm = value

    assert Written().lease("io", 1, 0) == Lease(value=0)


def test_a_lease_ends_at_a_deadline_that_it_knows_nothing_of() -> None:
    class Timed(Plotter):
        def deadline_ns(self) -> int | None:
            return 5_000

        def advance(self, now_ns: int) -> None:
            self.state.arm += 1

    assert Timed().lease("io", 1, 0) == Lease(value=0, unaffected=0b01, until_ns=5_000)
    assert Timed().lease("io", 0, 0) == Lease(value=0, until_ns=5_000)
    assert Timed().run_writer("io", 0) is None
    assert Timed().moves_leases()


def test_a_helper_that_is_defined_anew_takes_leases_and_runs_with_it() -> None:
    class Helped(Plotter):
        def _where(self) -> int:
            return self.state.arm

        lease_arm = Plotter.lease_arm
        read_arm = Plotter.read_arm

    class Elsewhere(Helped):
        def _where(self) -> int:
            return 9

    assert Helped().lease("io", 1, 0) is not None
    assert Elsewhere().lease("io", 1, 0) is None


def test_a_state_with_code_behind_a_field_is_never_answered_without_it() -> None:
    class Counted(Plotter):
        class State(Plotter.State):
            def __setattr__(self, name: str, value: int) -> None:
                super().__setattr__(name, value & 0x0F)

    device = Counted()
    assert device.lease("io", 0, 0) is None
    assert device.run_writer("io", 0) is None
