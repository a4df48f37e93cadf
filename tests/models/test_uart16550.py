"""The 16550A UART against its datasheet, one behaviour a test, through ports as a guest sees it."""

from __future__ import annotations

import pytest
from uart_bench import CHARACTER_NS, EIGHT_BITS, TRIGGER, Bench, Port

from devserver.machine.bus import BoardError
from devserver.models import Policy, Space
from devserver.models.uart16550.device import Uart16550
from devserver.models.uart16550.registers import Fcr, Ier, Iir, Lcr, Lsr, Mcr, Msr


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- registers ------------------------------------------------------------------------------------


def test_power_on_values_are_those_of_the_datasheet(bench: Bench) -> None:
    assert [bench.inb(port) for port in range(8)] == [0, 0, Iir.NONE, 0, 0, 0x60, 0xB0, 0]


@pytest.mark.parametrize(
    ("port", "kept"), [(Port.IER, 0x0F), (Port.LCR, 0xFF), (Port.MCR, 0x1F), (Port.SCR, 0xFF)]
)
def test_a_register_keeps_the_bits_it_has(bench: Bench, port: Port, kept: int) -> None:
    bench.outb(port, 0xFF)
    assert bench.inb(port) == kept


@pytest.mark.parametrize("port", [Port.LSR, Port.MSR])
def test_status_registers_ignore_writes(bench: Bench, port: Port) -> None:
    before = bench.inb(port)
    bench.outb(port, ~before & 0xFF)
    assert bench.inb(port) == before


def test_dlab_swaps_data_and_interrupt_enable_for_the_divisor(bench: Bench) -> None:
    bench.outb(Port.IER, Ier.EDSSI)
    bench.outb(Port.LCR, Lcr.DLAB)
    assert (bench.inb(Port.DLL), bench.inb(Port.DLM)) == (12, 0)  # 9600 baud
    bench.outb(Port.DLL, 0x34)
    bench.outb(Port.DLM, 0x12)
    assert (bench.inb(Port.DLL), bench.inb(Port.DLM)) == (0x34, 0x12)
    bench.outb(Port.LCR, 0)
    assert bench.inb(Port.IER) == Ier.EDSSI
    assert bench.sent == b""


def test_a_wide_access_is_one_of_each_port_in_turn(bench: Bench) -> None:
    bench.outb(Port.LCR, Lcr.DLAB)
    bench.bus.write(Space.PORT, Port.DLL, 2, 0x1234, 0)
    assert bench.bus.read(Space.PORT, Port.DLL, 4, 0) == 0x80_01_1234


def test_only_ports_whose_every_register_allows_it_are_coalesced() -> None:
    (region,) = Uart16550.regions
    free = {port for port in range(8) if region.write_policy(port) is Policy.COALESCED}
    assert free == {Port.THR, Port.SCR}


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(BoardError, match=r"no option 'pace'.*paced"):
        Bench(pace=True)


def test_reset_restores_power_on_and_drops_the_line(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE)
    bench.type(b"x")
    assert bench.irq
    bench.bus.reset()
    assert not bench.irq
    assert [bench.inb(port) for port in range(8)] == [0, 0, Iir.NONE, 0, 0, 0x60, 0xB0, 0]


# -- sending --------------------------------------------------------------------------------------


def test_a_guest_can_print_without_setting_anything_up(bench: Bench) -> None:
    for character in b"Hello \xff":
        bench.outb(Port.THR, character)
    assert bench.sent == b"Hello \xff"
    assert bench.inb(Port.LSR) == Lsr.THRE | Lsr.TEMT


@pytest.mark.parametrize(("wls", "sent"), [(3, 0xFF), (2, 0x7F), (1, 0x3F), (0, 0x1F)])
def test_a_chosen_word_length_bounds_what_is_sent(bench: Bench, wls: int, sent: int) -> None:
    bench.outb(Port.LCR, EIGHT_BITS)
    bench.outb(Port.LCR, wls)
    bench.outb(Port.THR, 0xFF)
    assert bench.sent == bytes([sent])


def test_nothing_gets_through_a_line_held_at_break(bench: Bench) -> None:
    bench.setup(lcr=EIGHT_BITS | Lcr.SB)
    bench.outb(Port.THR, 0x41)
    bench.outb(Port.LCR, EIGHT_BITS)
    bench.outb(Port.THR, 0x42)
    assert bench.sent == b"B"


def test_thre_interrupt_comes_when_enabled_and_goes_when_iir_names_it(bench: Bench) -> None:
    bench.setup(ier=Ier.ETBEI)
    assert bench.irq
    assert bench.inb(Port.IIR) == Iir.THR_EMPTY
    assert not bench.irq
    assert bench.inb(Port.IIR) == Iir.NONE


def test_thre_interrupt_comes_again_when_it_is_enabled_anew(bench: Bench) -> None:
    bench.setup(ier=Ier.ETBEI)
    bench.inb(Port.IIR)
    bench.outb(Port.IER, Ier.ETBEI)
    assert not bench.irq
    bench.outb(Port.IER, 0)
    bench.outb(Port.IER, Ier.ETBEI)
    assert bench.irq


def test_each_character_sent_gives_the_interrupt_line_a_fresh_edge(bench: Bench) -> None:
    bench.setup(ier=Ier.ETBEI)
    for _ in range(3):  # never reading IIR: an edge-triggered controller must still see each
        bench.outb(Port.THR, 0x41)
    assert bench.edges == 4
    assert bench.inb(Port.IIR) == Iir.THR_EMPTY


def test_a_reading_of_iir_that_names_another_source_leaves_thre_pending(bench: Bench) -> None:
    bench.setup(ier=Ier.ETBEI | Ier.ERBFI)
    bench.type(b"x")
    assert bench.inb(Port.IIR) == Iir.RECEIVED_DATA
    bench.inb(Port.RBR)
    assert bench.inb(Port.IIR) == Iir.THR_EMPTY


def test_resetting_the_transmit_fifo_raises_thre(bench: Bench) -> None:
    bench.setup(ier=Ier.ETBEI, fcr=Fcr.FIFO_ENABLE)
    bench.inb(Port.IIR)
    bench.outb(Port.FCR, Fcr.FIFO_ENABLE | Fcr.XMIT_FIFO_RESET)
    assert bench.irq


# -- receiving ------------------------------------------------------------------------------------


def test_16450_mode_holds_one_character_and_the_rest_waits_outside(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI)
    bench.type(b"abc")
    for character in b"abc":
        assert bench.inb(Port.LSR) == Lsr.DR | Lsr.THRE | Lsr.TEMT
        assert bench.inb(Port.IIR) == Iir.RECEIVED_DATA
        assert bench.inb(Port.RBR) == character
    assert bench.edges == 3
    assert not bench.irq
    assert bench.inb(Port.RBR) == 0x63  # the holding register keeps its value


def test_an_empty_fifo_reads_zero(bench: Bench) -> None:
    bench.setup(fcr=Fcr.FIFO_ENABLE)
    bench.type(b"x")
    assert [bench.inb(Port.RBR), bench.inb(Port.RBR)] == [0x78, 0]


@pytest.mark.parametrize("level", TRIGGER)
def test_fifo_interrupts_at_its_trigger_level(bench: Bench, level: int) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE | TRIGGER[level])
    bench.type(b"x" * (level - 1))
    assert not bench.irq
    bench.type(b"x")
    assert bench.inb(Port.IIR) == Iir.RECEIVED_DATA | Iir.FIFOS_ENABLED
    assert bench.irq
    bench.inb(Port.RBR)
    assert not bench.irq
    assert bench.inb(Port.IIR) == Iir.NONE | Iir.FIFOS_ENABLED


def test_lowering_the_trigger_level_below_what_waits_raises_the_interrupt(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE | TRIGGER[14])
    bench.type(b"abcd")
    assert not bench.irq
    bench.outb(Port.FCR, Fcr.FIFO_ENABLE | TRIGGER[4])
    assert bench.irq


def test_a_terminal_never_overruns_the_fifo(bench: Bench) -> None:
    bench.setup(fcr=Fcr.FIFO_ENABLE)
    text = bytes(range(100))
    bench.type(text)
    assert bench.inputs() == text
    assert not bench.inb(Port.LSR) & Lsr.OE


def test_character_timeout_comes_after_four_character_times(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE | TRIGGER[8])
    bench.type(b"ab")
    assert bench.bus.next_deadline_ns() == 4 * CHARACTER_NS
    bench.wait(4 * CHARACTER_NS - 1)
    assert not bench.irq
    bench.wait(1)
    assert bench.inb(Port.IIR) == Iir.CHARACTER_TIMEOUT | Iir.FIFOS_ENABLED
    bench.type(b"c")
    assert bench.irq
    assert bench.bus.next_deadline_ns() is None
    bench.inb(Port.RBR)
    assert not bench.irq
    bench.wait(4 * CHARACTER_NS)
    assert bench.irq


@pytest.mark.parametrize("event", ["character", "read"])
def test_receiving_or_reading_restarts_the_character_timeout(bench: Bench, event: str) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE | TRIGGER[8])
    bench.type(b"ab")
    bench.wait(3 * CHARACTER_NS)
    if event == "character":
        bench.type(b"c")
    else:
        bench.inb(Port.RBR)
    bench.wait(4 * CHARACTER_NS - 1)
    assert not bench.irq
    bench.wait(1)
    assert bench.irq


def test_an_empty_fifo_and_16450_mode_have_no_timeout(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI)
    bench.type(b"x")
    assert bench.bus.next_deadline_ns() is None
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE)
    bench.type(b"x")
    bench.inb(Port.RBR)
    assert bench.bus.next_deadline_ns() is None


@pytest.mark.parametrize(
    ("lcr", "half_bits"),
    [(0, 14), (3, 20), (Lcr.STB, 15), (3 | Lcr.STB, 22), (3 | Lcr.PEN, 22), (2 | Lcr.PEN, 20)],
)
def test_line_control_sets_the_length_of_a_character(
    bench: Bench, lcr: int, half_bits: int
) -> None:
    bench.setup(lcr=lcr, fcr=Fcr.FIFO_ENABLE)
    bench.type(b"x")
    assert bench.bus.next_deadline_ns() == 4 * (half_bits * 8_000_000_000 // 1_843_200)


# -- FIFO control ---------------------------------------------------------------------------------


def test_fcr_bits_need_fifo_enable_in_the_same_write(bench: Bench) -> None:
    bench.setup()
    bench.type(b"x")
    bench.outb(Port.FCR, Fcr.RCVR_FIFO_RESET | Fcr.RCVR_TRIGGER)
    assert bench.inb(Port.IIR) == Iir.NONE
    assert bench.inputs() == b"x"


@pytest.mark.parametrize("fcr", [Fcr.FIFO_ENABLE | Fcr.RCVR_FIFO_RESET, 0])
def test_a_fifo_reset_and_a_change_of_mode_empty_the_receiver(bench: Bench, fcr: int) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE)
    bench.type(b"abc")
    bench.outb(Port.FCR, fcr)
    assert not bench.irq
    assert bench.inputs() == b""
    assert bench.bus.next_deadline_ns() is None


def test_a_fifo_reset_withdraws_a_character_timeout(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI, fcr=Fcr.FIFO_ENABLE | TRIGGER[8])
    bench.type(b"a")
    bench.wait(4 * CHARACTER_NS)
    assert bench.irq
    bench.outb(Port.FCR, Fcr.FIFO_ENABLE | Fcr.RCVR_FIFO_RESET | TRIGGER[8])
    assert not bench.irq


# -- interrupts and the modem's lines -------------------------------------------------------------


def test_interrupts_are_named_in_the_order_of_their_priority(bench: Bench) -> None:
    loop = Mcr.LOOP | Mcr.OUT2
    bench.setup(ier=Ier.ALL, mcr=loop)
    bench.inb(Port.MSR)
    bench.outb(Port.THR, 1)
    bench.outb(Port.THR, 2)  # overrun
    bench.outb(Port.MCR, loop | Mcr.RTS)
    assert bench.inb(Port.IIR) == Iir.LINE_STATUS
    bench.inb(Port.LSR)
    assert bench.inb(Port.IIR) == Iir.RECEIVED_DATA
    bench.inb(Port.RBR)
    assert bench.inb(Port.IIR) == Iir.THR_EMPTY
    assert bench.inb(Port.IIR) == Iir.MODEM_STATUS
    bench.inb(Port.MSR)
    assert bench.inb(Port.IIR) == Iir.NONE
    assert not bench.irq


def test_out2_gates_the_interrupt_line_but_not_iir(bench: Bench) -> None:
    bench.setup(ier=Ier.ERBFI, mcr=0)
    bench.type(b"x")
    assert bench.inb(Port.IIR) == Iir.RECEIVED_DATA
    assert not bench.irq
    bench.outb(Port.MCR, Mcr.OUT2)
    assert bench.irq
    bench.outb(Port.MCR, 0)
    assert not bench.irq


def test_a_disabled_interrupt_leaves_the_status_readable(bench: Bench) -> None:
    bench.setup()
    bench.type(b"x")
    assert not bench.irq
    assert bench.inb(Port.IIR) == Iir.NONE
    assert bench.inb(Port.LSR) & Lsr.DR


def test_hanging_up_drops_carrier_once_all_was_read(bench: Bench) -> None:
    bench.setup(ier=Ier.EDSSI)
    bench.type(b"ab")
    bench.hang_up()
    assert not bench.irq  # 'b' still waits outside
    assert bench.inputs() == b"ab"
    assert bench.irq
    assert bench.inb(Port.IIR) == Iir.MODEM_STATUS
    assert bench.inb(Port.MSR) == Msr.DSR | Msr.CTS | Msr.DDCD
    assert not bench.irq
    assert bench.inb(Port.MSR) == Msr.DSR | Msr.CTS
