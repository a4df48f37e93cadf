"""Ports of a PC's board that boot code reaches for: reset, A20, the vertical retrace."""

from __future__ import annotations

from itertools import pairwise

import pytest
from rig import Rig, Variant

from devserver.models.device import Signal
from devserver.models.lease import Term
from devserver.models.vgastatus import BEAM

DATA, COMMAND = "data", "command"
OBF, SYS, A2, TIMEOUT = 0x01, 0x04, 0x08, 0x40
A20 = 0x02
SECOND_NS = 1_000_000_000


class Chip:
    """A device of one-byte ports, and what it asked of the machine."""

    def __init__(self, kind: str) -> None:
        self._rig = Rig(Variant(kind))

    @property
    def resets(self) -> int:
        return sum(Signal.RESET in said for said in self._rig.said)

    @property
    def irq(self) -> bool:
        return self._rig.levels.get("irq", False)

    def read(self, region: str = "io") -> int:
        return self._rig.device.read(region, 0, 1, 0)

    def write(self, value: int, region: str = "io") -> None:
        self._rig.device.write(region, 0, 1, value, 0)

    def command(self, *values: int) -> None:
        """A command to 64h, and its byte to 60h."""
        for region, value in zip((COMMAND, DATA), values, strict=False):
            self.write(value, region)

    def answer(self, *values: int) -> int:
        """The byte that a command is answered with."""
        self.command(*values)
        assert self.read(COMMAND) & OBF
        byte = self.read(DATA)
        assert not self.read(COMMAND) & OBF
        return byte


@pytest.fixture
def kbc() -> Chip:
    return Chip("i8042")


# -- the keyboard controller ------------------------------------------------------------------


def test_the_self_test_passes_and_sets_the_system_flag(kbc: Chip) -> None:
    assert not kbc.read(COMMAND) & SYS
    assert kbc.answer(0xAA) == 0x55
    assert kbc.read(COMMAND) & SYS


def test_the_interface_works_with_nothing_plugged_in(kbc: Chip) -> None:
    assert kbc.answer(0xAB) == 0
    assert kbc.answer(0xA9) == 0


def test_the_command_byte_reads_back_and_has_switches(kbc: Chip) -> None:
    kbc.command(0x60, 0x45)
    assert kbc.answer(0x20) == 0x45
    kbc.command(0xAD)
    kbc.command(0xA7)
    assert kbc.answer(0x20) == 0x75
    kbc.command(0xAE)
    kbc.command(0xA8)
    assert kbc.answer(0x20) == 0x45


@pytest.mark.parametrize(("off", "on"), [((0xDD,), (0xDF,)), ((0xD1, 0xDD), (0xD1, 0xDF))])
def test_a20_is_switched_and_reads_back(
    kbc: Chip, off: tuple[int, ...], on: tuple[int, ...]
) -> None:
    assert kbc.answer(0xD0) & A20
    kbc.command(*off)
    assert not kbc.answer(0xD0) & A20
    kbc.command(*on)
    assert kbc.answer(0xD0) & A20
    assert not kbc.resets


@pytest.mark.parametrize("how", [(0xFE,), (0xF0,), (0xD1, 0xDE)])
def test_a_low_bit_0_of_the_output_port_resets(kbc: Chip, how: tuple[int, ...]) -> None:
    kbc.command(*how)
    assert kbc.resets == 1


@pytest.mark.parametrize("how", [(0xFF,), (0xF1,), (0xD1, 0xDF), (0x60, 0xFE)])
def test_nothing_else_does(kbc: Chip, how: tuple[int, ...]) -> None:
    kbc.command(*how)
    assert kbc.resets == 0


def test_a_byte_for_the_keyboard_times_out(kbc: Chip) -> None:
    kbc.write(0xED, DATA)
    assert kbc.read(COMMAND) & (OBF | TIMEOUT | A2) == OBF | TIMEOUT
    assert kbc.read(DATA) == 0xFE
    assert not kbc.read(COMMAND) & (OBF | TIMEOUT)


def test_a_full_output_buffer_interrupts_if_the_command_byte_says_so(kbc: Chip) -> None:
    kbc.command(0xD2, 0x1C)
    assert not kbc.irq
    kbc.command(0x60, 0x01)
    assert kbc.irq
    assert kbc.read(DATA) == 0x1C
    assert not kbc.irq


# -- the others -----------------------------------------------------------------------------------


def test_port_92h_has_the_a20_gate_open_at_first_and_reads_back() -> None:
    port = Chip("port92")
    assert port.read() == A20
    port.write(0)
    assert port.read() == 0
    port.write(0xFE)
    assert port.read() == A20
    assert not port.resets


def test_port_92h_resets_once_its_bit_0_rises() -> None:
    port = Chip("port92")
    port.write(A20 | 1)
    port.write(A20 | 1)
    assert port.resets == 1


@pytest.mark.parametrize("writes", [(0x02, 0x06), (0x00, 0x04), (0x06,), (0x0A, 0x0E), (6, 6)])
def test_cf9h_resets_once_rcpu_rises(writes: tuple[int, ...]) -> None:
    control = Chip("resetctl")
    for value in writes:
        control.write(value)
    assert control.resets == 1


def test_cf9h_alone_chooses_the_kind_of_reset() -> None:
    control = Chip("resetctl")
    control.write(0xFB)
    assert control.read() == 0x0A
    assert not control.resets


def test_the_retrace_comes_70_times_a_second_and_lasts_64_microseconds() -> None:
    step_ns = 1000
    levels = [BEAM.at(at) & 8 for at in range(0, SECOND_NS, step_ns)]
    rises = sum(before < after for before, after in pairwise(levels))
    assert rises == 70
    assert 70 * 62 <= levels.count(8) <= 71 * 65


def test_nothing_is_displayed_in_a_retrace_and_something_between() -> None:
    seen = {BEAM.at(at) & 9 for at in range(0, SECOND_NS // 50, 1000)}
    assert seen == {0, 1, 9}


def test_the_register_is_what_its_lease_says() -> None:
    device = Rig(Variant("vgastatus")).device
    lease = device.lease("io", 0, 0)
    assert lease is not None
    assert all(isinstance(term, Term) for term in lease.terms)
    for at in range(0, SECOND_NS // 50, 1777):
        assert device.read("io", 0, 1, at) == lease.at(at)
