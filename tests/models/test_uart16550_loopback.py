"""The 16550A UART in loopback: its data path, its modem lines, and the errors made there."""

from __future__ import annotations

import pytest
from uart_bench import EIGHT_BITS, Bench, Port

from devserver.models.uart16550.registers import Fcr, Ier, Lcr, Lsr, Mcr, Msr


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- loopback -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fcr", [0, Fcr.FIFO_ENABLE])
def test_loopback_returns_what_is_sent_and_sends_nothing(bench: Bench, fcr: int) -> None:
    bench.setup(mcr=Mcr.LOOP, fcr=fcr)
    bench.outb(Port.THR, 0xA5)
    assert bench.inputs() == b"\xa5"
    assert bench.sent == b""


@pytest.mark.parametrize("wls", range(4))
def test_loopback_carries_the_bits_of_the_word_length(bench: Bench, wls: int) -> None:
    bench.setup(mcr=Mcr.LOOP, lcr=wls)
    bench.outb(Port.THR, 0xFF)
    assert bench.inputs() == bytes([0xFF >> (3 - wls)])


def test_what_is_typed_waits_for_the_end_of_loopback(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP)
    bench.type(b"typed")
    assert bench.inputs() == b""
    bench.outb(Port.MCR, 0)
    assert bench.inputs() == b"typed"


@pytest.mark.parametrize(
    ("output", "input_", "delta"),
    [
        (Mcr.RTS, Msr.CTS, Msr.DCTS),
        (Mcr.DTR, Msr.DSR, Msr.DDSR),
        (Mcr.OUT2, Msr.DCD, Msr.DDCD),
    ],
)
def test_loopback_wires_modem_outputs_to_inputs(
    bench: Bench, output: int, input_: int, delta: int
) -> None:
    bench.setup(mcr=Mcr.LOOP)
    bench.inb(Port.MSR)
    assert bench.inb(Port.MSR) == 0
    bench.outb(Port.MCR, Mcr.LOOP | output)
    assert bench.inb(Port.MSR) == input_ | delta
    bench.outb(Port.MCR, Mcr.LOOP)
    assert bench.inb(Port.MSR) == delta


def test_ring_is_noted_at_its_trailing_edge_only(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP)
    bench.inb(Port.MSR)
    bench.outb(Port.MCR, Mcr.LOOP | Mcr.OUT1)
    assert bench.inb(Port.MSR) == Msr.RI
    bench.outb(Port.MCR, Mcr.LOOP)
    assert bench.inb(Port.MSR) == Msr.TERI


def test_a_delta_stays_until_it_is_read_even_if_the_line_returned(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP)
    bench.inb(Port.MSR)
    bench.outb(Port.MCR, Mcr.LOOP | Mcr.RTS)
    bench.outb(Port.MCR, Mcr.LOOP)
    assert bench.inb(Port.MSR) == Msr.DCTS


def test_entering_and_leaving_loopback_are_changes_of_the_lines(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP)
    assert bench.inb(Port.MSR) == Msr.DCTS | Msr.DDSR | Msr.DDCD
    bench.outb(Port.MCR, 0)
    assert bench.inb(Port.MSR) == 0xB0 | Msr.DCTS | Msr.DDSR | Msr.DDCD


# -- errors, made in loopback ---------------------------------------------------------------------


def test_overrun_in_16450_mode_replaces_the_character(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP | Mcr.OUT2, ier=Ier.ELSI)
    bench.outb(Port.THR, 0x41)
    assert not bench.irq
    bench.outb(Port.THR, 0x42)
    assert bench.irq
    assert bench.inb(Port.LSR) == Lsr.DR | Lsr.OE | Lsr.THRE | Lsr.TEMT
    assert not bench.irq
    assert bench.inputs() == b"B"


def test_overrun_in_fifo_mode_loses_the_newest_character(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP, fcr=Fcr.FIFO_ENABLE)
    for character in range(17):
        bench.outb(Port.THR, character)
    assert bench.inb(Port.LSR) == Lsr.DR | Lsr.OE | Lsr.THRE | Lsr.TEMT
    assert bench.inputs() == bytes(range(16))


@pytest.mark.parametrize(
    ("parity", "errors"),
    [
        (0, Lsr.BI | Lsr.FE),
        (Lcr.PEN, Lsr.BI | Lsr.FE | Lsr.PE),
        (Lcr.PEN | Lcr.EPS, Lsr.BI | Lsr.FE),
        (Lcr.PEN | Lcr.SP, Lsr.BI | Lsr.FE | Lsr.PE),
        (Lcr.PEN | Lcr.SP | Lcr.EPS, Lsr.BI | Lsr.FE),
    ],
)
def test_a_looped_break_is_one_zero_character_with_its_errors(
    bench: Bench, parity: int, errors: int
) -> None:
    bench.setup(mcr=Mcr.LOOP | Mcr.OUT2, ier=Ier.ELSI, fcr=Fcr.FIFO_ENABLE, lcr=EIGHT_BITS | parity)
    bench.outb(Port.LCR, EIGHT_BITS | parity | Lcr.SB)
    assert bench.irq
    assert bench.inb(Port.LSR) == Lsr.DR | Lsr.RCVR_FIFO_ERROR | errors | Lsr.THRE | Lsr.TEMT
    assert not bench.irq
    bench.outb(Port.THR, 0x41)  # the line is held: nothing arrives
    bench.outb(Port.LCR, EIGHT_BITS | parity | Lcr.SB)  # and this is no new break
    assert bench.inputs() == b"\0"


def test_entering_loopback_during_a_break_receives_the_break(bench: Bench) -> None:
    bench.setup(lcr=EIGHT_BITS | Lcr.SB)
    assert not bench.inb(Port.LSR) & Lsr.BI
    bench.outb(Port.MCR, Mcr.LOOP)
    assert bench.inb(Port.LSR) & Lsr.BI


def test_an_error_shows_when_its_character_is_on_top_of_the_fifo(bench: Bench) -> None:
    bench.setup(mcr=Mcr.LOOP | Mcr.OUT2, ier=Ier.ELSI, fcr=Fcr.FIFO_ENABLE)
    idle = Lsr.DR | Lsr.THRE | Lsr.TEMT
    bench.outb(Port.THR, 0x41)
    bench.outb(Port.LCR, EIGHT_BITS | Lcr.SB)
    bench.outb(Port.LCR, EIGHT_BITS)
    bench.outb(Port.THR, 0x42)
    assert bench.inb(Port.LSR) == idle | Lsr.RCVR_FIFO_ERROR
    assert not bench.irq
    assert bench.inb(Port.RBR) == 0x41
    assert bench.irq
    assert bench.inb(Port.LSR) == idle | Lsr.RCVR_FIFO_ERROR | Lsr.BI | Lsr.FE
    assert bench.inb(Port.LSR) == idle  # read once, and no further errors in the FIFO
    assert bench.inputs() == b"\0B"
