"""The 16550A UART at the pace of its line: what is sent and received takes character times."""

from __future__ import annotations

import pytest
from uart_bench import BIT_NS, CHARACTER_NS, EIGHT_BITS, TRIGGER, Bench, Port

from devserver.models.uart16550.registers import Fcr, Ier, Iir, Lcr, Lsr, Mcr


@pytest.fixture
def paced() -> Bench:
    return Bench(paced=True)


def test_characters_leave_at_the_baud_rate(paced: Bench) -> None:
    paced.setup(fcr=Fcr.FIFO_ENABLE)
    for character in b"abc":
        paced.outb(Port.THR, character)
    assert paced.inb(Port.LSR) == 0
    seen = []
    for _ in range(3):
        paced.wait(CHARACTER_NS)
        seen.append((paced.sent, paced.inb(Port.LSR)))
    assert seen == [(b"a", 0), (b"ab", Lsr.THRE), (b"abc", Lsr.THRE | Lsr.TEMT)]


def test_16450_mode_takes_the_next_character_while_one_is_sent(paced: Bench) -> None:
    paced.setup(ier=Ier.ETBEI)
    paced.outb(Port.THR, 0x61)
    assert paced.inb(Port.LSR) == Lsr.THRE
    assert paced.inb(Port.IIR) == Iir.THR_EMPTY
    paced.outb(Port.THR, 0x62)
    assert paced.inb(Port.LSR) == 0
    assert not paced.irq
    paced.wait(CHARACTER_NS)
    assert paced.irq
    paced.wait(CHARACTER_NS)
    assert paced.sent == b"ab"
    assert paced.inb(Port.LSR) == Lsr.THRE | Lsr.TEMT


def test_thre_of_a_lone_character_is_late_by_a_character_less_a_bit(paced: Bench) -> None:
    paced.setup(ier=Ier.ETBEI, fcr=Fcr.FIFO_ENABLE)
    paced.outb(Port.THR, 0x61)
    paced.wait(CHARACTER_NS - BIT_NS - 1)
    assert (paced.irq, paced.inb(Port.LSR)) == (False, 0)
    paced.wait(1)
    assert (paced.irq, paced.inb(Port.LSR)) == (True, Lsr.THRE)


def test_thre_after_two_characters_at_once_is_prompt_and_then_late_again(paced: Bench) -> None:
    paced.setup(fcr=Fcr.FIFO_ENABLE)
    for character in b"abc":
        paced.outb(Port.THR, character)
    paced.wait(2 * CHARACTER_NS)
    assert paced.inb(Port.LSR) == Lsr.THRE  # 'c' has just gone to the shift register
    paced.outb(Port.THR, 0x64)
    paced.wait(CHARACTER_NS)
    assert paced.inb(Port.LSR) == 0  # so has 'd', which was alone in the FIFO


def test_enabling_the_thre_interrupt_while_a_character_waits_raises_nothing(paced: Bench) -> None:
    paced.setup()
    paced.outb(Port.THR, 0x61)
    paced.outb(Port.THR, 0x62)
    paced.outb(Port.IER, Ier.ETBEI)
    assert not paced.irq
    paced.wait(CHARACTER_NS)
    assert paced.irq


def test_overrun_of_the_transmit_fifo_overwrites_the_oldest(paced: Bench) -> None:
    paced.setup(fcr=Fcr.FIFO_ENABLE)
    for character in range(18):  # one in the shift register, 16 in the FIFO, one too many
        paced.outb(Port.THR, character)
    paced.wait(20 * CHARACTER_NS)
    assert paced.sent == bytes([0, *range(2, 18)])


def test_fifo_reset_spares_the_shift_register(paced: Bench) -> None:
    paced.setup(fcr=Fcr.FIFO_ENABLE)
    for character in b"abc":
        paced.outb(Port.THR, character)
    paced.outb(Port.FCR, Fcr.FIFO_ENABLE | Fcr.XMIT_FIFO_RESET)
    assert paced.inb(Port.LSR) == Lsr.THRE
    paced.wait(5 * CHARACTER_NS)
    assert paced.sent == b"a"


def test_input_takes_one_character_a_character_time(paced: Bench) -> None:
    paced.setup(fcr=Fcr.FIFO_ENABLE | TRIGGER[4], ier=Ier.ERBFI)
    paced.type(b"abcdef")
    paced.wait(3 * CHARACTER_NS - 1)
    assert not paced.irq
    paced.wait(1)
    assert paced.irq
    assert paced.inputs() == b"abcd"
    paced.wait(2 * CHARACTER_NS)
    assert paced.inputs() == b"ef"


def test_loopback_takes_a_character_time(paced: Bench) -> None:
    paced.setup(mcr=Mcr.LOOP)
    paced.outb(Port.THR, 0x41)
    paced.wait(CHARACTER_NS - 1)
    assert paced.inputs() == b""
    paced.wait(1)
    assert paced.inputs() == b"A"


def test_a_divisor_of_zero_counts_a_whole_round(paced: Bench) -> None:
    paced.setup()
    paced.outb(Port.LCR, EIGHT_BITS | Lcr.DLAB)
    paced.outb(Port.DLL, 0)
    paced.outb(Port.LCR, EIGHT_BITS)
    paced.outb(Port.THR, 0x41)
    assert paced.bus.next_deadline_ns() == 10 * 65536 * 16_000_000_000 // 1_843_200
