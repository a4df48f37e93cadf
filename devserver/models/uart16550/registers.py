"""Register bits of the 16550 UART, and what its line settings amount to on the wire.

Every member is a mask, not a bit number. They are ``IntEnum``, not ``IntFlag``, because combining
those with a plain ``int`` costs a microsecond, and a guest polls these registers.

Source: National Semiconductor PC16550D datasheet, section 8.0 (Registers).
"""

from __future__ import annotations

from enum import IntEnum

from devserver.models.registers import Access, Policy, Region, Register

CLOCK_HZ = 1_843_200  # the crystal of a PC's serial port
CLOCKS_PER_BIT = 16  # after the divisor
FIFO_SIZE = 16
TRIGGER_LEVELS = (1, 4, 8, 14)  # bytes, by FCR bits 7-6 (section 8.5)

_DIVISOR_ROUND = 1 << 16
_HALF_BIT_NS_TIMES_CLOCK = CLOCKS_PER_BIT * 1_000_000_000 // 2


class Ier(IntEnum):
    """Interrupt Enable Register (8.7)."""

    ERBFI = 0x01  # received data available, and character timeout
    ETBEI = 0x02  # transmitter holding register empty
    ELSI = 0x04  # receiver line status
    EDSSI = 0x08  # modem status
    ALL = 0x0F


class Iir(IntEnum):
    """Interrupt Identification Register (8.6): what its low four bits say, and its high two."""

    MODEM_STATUS = 0x00
    NONE = 0x01
    THR_EMPTY = 0x02
    RECEIVED_DATA = 0x04
    LINE_STATUS = 0x06
    CHARACTER_TIMEOUT = 0x0C
    FIFOS_ENABLED = 0xC0


class Fcr(IntEnum):
    """FIFO Control Register (8.5)."""

    FIFO_ENABLE = 0x01
    RCVR_FIFO_RESET = 0x02
    XMIT_FIFO_RESET = 0x04
    DMA_MODE = 0x08
    RCVR_TRIGGER = 0xC0
    KEPT = 0xC9  # the reset bits clear themselves


class Lcr(IntEnum):
    """Line Control Register (8.1)."""

    WLS = 0x03  # word length: 5, 6, 7, 8 bits
    STB = 0x04  # 2 stop bits (1.5 with 5-bit words)
    PEN = 0x08  # parity enable
    EPS = 0x10  # even parity; with SP: parity bit 0
    SP = 0x20  # stick parity
    SB = 0x40  # set break
    DLAB = 0x80  # divisor latch access


class Mcr(IntEnum):
    """Modem Control Register (8.8)."""

    DTR = 0x01
    RTS = 0x02
    OUT1 = 0x04
    OUT2 = 0x08
    LOOP = 0x10
    ALL = 0x1F


class Lsr(IntEnum):
    """Line Status Register (8.4)."""

    DR = 0x01  # data ready
    OE = 0x02  # overrun error
    PE = 0x04  # parity error
    FE = 0x08  # framing error
    BI = 0x10  # break interrupt
    THRE = 0x20  # transmitter holding register (FIFO mode: transmit FIFO) empty
    TEMT = 0x40  # that and the shift register empty
    RCVR_FIFO_ERROR = 0x80
    CHARACTER_ERRORS = 0x1C  # PE, FE and BI belong to a character; OE to none


class Msr(IntEnum):
    """Modem Status Register (8.9): inputs are 1 when asserted (pin low)."""

    DCTS = 0x01
    DDSR = 0x02
    TERI = 0x04  # trailing edge of ring indicator
    DDCD = 0x08
    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80
    DELTA_INPUTS = 0xB0  # CTS, DSR, DCD: each change sets the delta bit four places lower


def word_mask(lcr: int) -> int:
    """The data bits of a character: 0x1F to 0xFF for 5 to 8 bits."""
    return (0x20 << (lcr & Lcr.WLS)) - 1


def _stop_half_bits(lcr: int) -> int:
    if not lcr & Lcr.STB:
        return 2
    return 4 if lcr & Lcr.WLS else 3


def _half_bits_ns(half_bits: int, divisor: int) -> int:
    # The datasheet advises against a divisor of 0; a 16-bit counter then makes its whole round.
    return half_bits * (divisor or _DIVISOR_ROUND) * _HALF_BIT_NS_TIMES_CLOCK // CLOCK_HZ


def bit_ns(divisor: int) -> int:
    """How long a bit takes."""
    return _half_bits_ns(2, divisor)


def character_ns(lcr: int, divisor: int) -> int:
    """How long a character takes: start bit, data, parity if enabled, stop bits."""
    parity_bits = 1 if lcr & Lcr.PEN else 0
    bits = 1 + 5 + (lcr & Lcr.WLS) + parity_bits
    return _half_bits_ns(2 * bits + _stop_half_bits(lcr), divisor)


def break_errors(lcr: int) -> int:
    """What a receiver makes of a line held at 0 for a whole character.

    Its stop bit reads 0 (framing error), and so does its parity bit: an error where the parity
    of a zero character is 1, that is for odd parity and for parity stuck at 1.
    """
    wrong_parity = lcr & Lcr.PEN and not lcr & Lcr.EPS
    return Lsr.BI | Lsr.FE | (Lsr.PE if wrong_parity else 0)


DATA = "data"  # the bank of offsets 0 and 1 while DLAB is 0
DIVISOR = "divisor"  # and while it is 1

POWER_ON_DIVISOR = 12  # 9600 baud
POWER_ON_LINES = Msr.DCD | Msr.DSR | Msr.CTS

REGISTERS = (
    Register(offset=0, name="RBR", bank=DATA, access=Access.RO, source="PC16550D 8.0"),
    Register(
        offset=0,
        name="THR",
        bank=DATA,
        access=Access.WO,
        policy=Policy.COALESCED,
        source="PC16550D 8.0",
    ),
    Register(offset=1, name="IER", bank=DATA, leased=True, storage="ier", source="PC16550D 8.7"),
    Register(
        offset=0,
        name="DLL",
        bank=DIVISOR,
        reset=POWER_ON_DIVISOR,
        policy=Policy.COALESCED,  # must not spoil the policy of THR, with which it shares the port
        source="PC16550D 8.3",
    ),
    Register(offset=1, name="DLM", bank=DIVISOR, leased=True, source="PC16550D 8.3"),
    Register(
        offset=2, name="IIR", access=Access.RO, leased=True, reset=Iir.NONE, source="PC16550D 8.6"
    ),
    Register(offset=2, name="FCR", access=Access.WO, source="PC16550D 8.5"),
    Register(offset=3, name="LCR", leased=True, storage="lcr", source="PC16550D 8.1"),
    Register(offset=4, name="MCR", leased=True, storage="mcr", source="PC16550D 8.8"),
    Register(
        offset=5,
        name="LSR",
        access=Access.RO,  # writes are for factory tests only
        leased=True,
        reset=Lsr.THRE | Lsr.TEMT,
        source="PC16550D 8.4",
    ),
    Register(
        offset=6,
        name="MSR",
        access=Access.RO,
        leased=True,
        reset=POWER_ON_LINES,
        source="PC16550D 8.9",
    ),
    Register(
        offset=7,
        name="SCR",
        policy=Policy.COALESCED,
        leased=True,
        storage="scr",
        source="PC16550D 8.10",
    ),
)

IO = Region(name="io", size=8, registers=REGISTERS)
