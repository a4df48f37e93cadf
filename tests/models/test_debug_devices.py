"""The POST code port, the debug console, the debug exit and the test device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devserver.machine.board import PC_BOARD
from devserver.machine.bus import Bus
from devserver.models.debugcon import DebugConsole
from devserver.models.debugexit import DebugExit
from devserver.models.device import Context, Device, Policy, Signal, Space
from devserver.models.postcode import PostCode
from devserver.models.testdev import TestDevice

MODELS: list[type[Device]] = [PostCode, DebugConsole, DebugExit, TestDevice]
SIZES = st.sampled_from([1, 2, 4, 8])


class Recorder:
    """A bus, and a bus's sink, that writes down what reaches it."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []

    def set_line(self, output: str, level: bool) -> None:
        self.log.append((output, level))

    def emit(self, *what: object) -> None:
        self.log.append(what)

    def signal(self, *what: object) -> None:
        self.log.append(what)

    def line(self, line: int, level: bool) -> None:
        self.log.append((line, level))

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        raise AssertionError("these devices take no bytes from the world")


def plug(model: type[Device]) -> tuple[Device, list[tuple[object, ...]]]:
    bus = Recorder()
    return model(Context(bus=bus)), bus.log


def test_post_codes_are_latched_and_emitted_one_by_one() -> None:
    post, log = plug(PostCode)
    for code in (0x01, 0xFF, 0x00):
        post.write("io", 0, 1, code, 0)
    assert post.read("io", 0, 1, 0) == 0x00
    assert log == [("code", b"\x01"), ("code", b"\xff"), ("code", b"\x00")]


@pytest.mark.parametrize("region", ["io", "bochs"])
def test_both_console_ports_emit_text_and_read_e9h(region: str) -> None:
    console, log = plug(DebugConsole)
    for byte in b"ok\n":
        console.write(region, 0, 1, byte, 0)
    assert log == [("tx", b"o"), ("tx", b"k"), ("tx", b"\n")]
    assert console.read(region, 0, 1, 0) == 0xE9


def test_writes_that_nobody_waits_for_are_coalesced_and_the_others_are_not() -> None:
    policies = {
        (model.kind, region.name): region.write_policy(0)
        for model in MODELS
        for region in model.regions
    }
    free = {name for name, policy in policies.items() if policy is Policy.COALESCED}
    assert free == {("postcode", "io"), ("debugcon", "io"), ("debugcon", "bochs")}


@pytest.mark.parametrize(("size", "value"), [(1, 0x2A), (2, 0xBEEF), (4, 0xDEADBEEF), (1, 0)])
def test_a_write_to_the_exit_port_signals_once_with_its_value(size: int, value: int) -> None:
    port, log = plug(DebugExit)
    port.write("io", 0, size, value, 0)
    assert log == [(Signal.EXIT, value)]


def test_the_exit_port_reads_zero_and_reading_it_ends_nothing() -> None:
    port, log = plug(DebugExit)
    assert [port.read("io", 0, size, 0) for size in (1, 2, 4)] == [0, 0, 0]
    assert log == []


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 4]),
                          st.integers(0, 2**32 - 1)), max_size=20))  # fmt: skip
def test_the_latch_is_four_bytes_of_memory(writes: list[tuple[int, int, int]]) -> None:
    device, _ = plug(TestDevice)
    memory = bytearray(4)
    for offset, size, value in writes:
        size = min(size, 4 - offset)  # what lies beyond is not the latch's
        data = value.to_bytes(4, "little")[:size]
        memory[offset : offset + size] = data
        device.write("latch", offset, size, int.from_bytes(data, "little"), 0)
    reads = [(offset, size) for size in (1, 2, 4) for offset in range(5 - size)]
    for offset, size in reads:
        expected = int.from_bytes(memory[offset : offset + size], "little")
        assert device.read("latch", offset, size, 0) == expected


@pytest.mark.parametrize("line", range(24))
def test_a_byte_written_to_a_port_drives_its_line(line: int) -> None:
    device, log = plug(TestDevice)
    device.write("lines", line, 1, 0x80, 0)
    device.write("lines", line, 1, 0, 0)
    assert log == [(f"irq{line}", True), (f"irq{line}", False)]
    assert device.read("lines", line, 1, 0) == 0


def test_a_wider_write_drives_successive_lines() -> None:
    device, log = plug(TestDevice)
    device.write("lines", 4, 4, 0x01_00_FF_00, 0)
    assert log == [("irq4", False), ("irq5", True), ("irq6", False), ("irq7", True)]


def test_on_a_pc_they_sit_where_guests_look_for_them() -> None:
    sink = Recorder()
    wirings = [wiring for wiring in PC_BOARD if wiring.kind in {m.kind for m in MODELS}]
    ids = {wiring.kind: number for number, wiring in enumerate(wirings, start=1)}
    machine = Bus(wirings, sink)
    for port, size, value in ((0x80, 1, 0x11), (0xE9, 1, 0x41), (0x402, 1, 0x42),
                              (0xE0, 4, 0x12345678), (0x2007, 1, 1), (0xF4, 4, 7)):  # fmt: skip
        machine.write(Space.PORT, port, size, value, 0)
    assert machine.read(Space.PORT, 0xE2, 2, 0) == 0x1234
    assert sink.log == [
        (ids["postcode"], 0, b"\x11"),
        (ids["debugcon"], 0, b"A"),
        (ids["debugcon"], 0, b"B"),
        (7, True),
        (ids["debugexit"], Signal.EXIT, 7),
    ]


accesses = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 23), SIZES,
              st.integers(0, 2**64 - 1)), max_size=30)  # fmt: skip


def perform(device: Device, steps: list[tuple[bool, int, int, int, int]]) -> list[int]:
    """Does any accesses at all and returns what the reads gave."""
    seen = []
    for is_write, which, offset, size, value in steps:
        region = device.regions[which % len(device.regions)]
        if is_write:
            value &= (1 << 8 * size) - 1
            device.write(region.name, offset % region.size, size, value, 0)
        else:
            seen.append(device.read(region.name, offset % region.size, size, 0))
    return seen


@pytest.mark.parametrize("model", MODELS)
@given(before=accesses, after=accesses)
def test_any_accesses_are_harmless_and_a_twin_goes_on_identically(
    model: type[Device],
    before: list[tuple[bool, int, int, int, int]],
    after: list[tuple[bool, int, int, int, int]],
) -> None:
    device, log = plug(model)
    perform(device, before)
    twin, twin_log = plug(model)
    twin.load(device.save())
    log.clear()
    assert perform(twin, after) == perform(device, after)
    assert twin_log == log
    assert twin.save() == device.save()


@pytest.mark.parametrize("model", MODELS)
@given(steps=accesses)
def test_reset_gives_the_state_of_power_on(
    model: type[Device], steps: list[tuple[bool, int, int, int, int]]
) -> None:
    device, _ = plug(model)
    fresh = device.save()
    perform(device, steps)
    device.reset()
    assert device.save() == fresh
