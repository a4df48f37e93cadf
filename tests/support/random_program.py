"""Random programs of port accesses, as real-mode code that also dumps what they read.

What does not depend on time is kept apart from what does: the counters of the 8254 and the bits of
port 61h that follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import tinyguest

BUFFER = 0x9000
#: Where the handler of the serial port's interrupt leaves a byte each time.
INTERRUPTS = 0xB000
DUMP = b"\xa5DUMP\x5a"
SERIAL, PIT, RTC, DEBUGCON, POST, LATCH = 0x3F8, 0x40, 0x70, 0xE9, 0x80, 0xE0
_PIC, _PIC_MASK, _VECTORS, _IRQ = 0x20, 0x21, 0x20, 4
#: push ax; mov byte [si], '!'; inc si; mov al, 20h; out 20h, al (EOI); pop ax; iret
_HANDLER = b"\x50\xc6\x04!\x46\xb0\x20\xe6\x20\x58\xcf"


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


@dataclass
class Program:
    """Code, and for each byte that it reads what kind it is.

    Exact; the counter's low or high; ``source``, of which a bit depends on time: whether received
    bytes have waited for long (PC16550D, IIR bit 3); or any.
    """

    code: bytes = b"\xbf" + _word(BUFFER) + b"\xbe" + _word(INTERRUPTS)  # mov di; mov si
    kinds: list[str] = field(default_factory=list)

    def read(self, port: int, kind: str = "exact") -> None:
        self.code += tinyguest.read(port) + b"\xaa"
        self.kinds.append(kind)

    def write(self, port: int, value: int) -> None:
        self.code += tinyguest.write(port, value)

    def delay(self, turns: int) -> None:
        self.code += b"\xb9" + _word(turns) + b"\xe2\xfe"  # mov cx; loop


def random_program(seed: int, length: int = 120) -> Program:
    """A program of ``length`` steps that is over in far less than a turn of the 8254's counter."""
    random, program = Random(seed), Program()
    _prepare(program)
    for _ in range(length):
        random.choice(_STEPS)(program, random)
    for register, value in ((3, 3), (1, 0), (4, 0xB), (1, 2)):  # at least one interrupt
        program.write(SERIAL + register, value)
    _take_interrupts(program, random)
    for byte in DUMP:
        program.write(DEBUGCON, byte)
    program.code += b"\x89\xf3\x89\xf9" + _dump(BUFFER)  # mov bx, si; mov cx, di
    program.code += b"\x89\xd9" + _dump(INTERRUPTS)  # mov cx, bx
    program.code += tinyguest.leave(0) + tinyguest.HALT
    return program


def _dump(start: int) -> bytes:
    """sub cx, start; mov si, start; mov dx, the console; rep outsb"""
    console = b"\xba" + _word(DEBUGCON)
    return b"\x81\xe9" + _word(start) + b"\xbe" + _word(start) + console + b"\xf3\x6e"


def _prepare(program: Program) -> None:
    """Sets the interrupt controller and the vector up; counter 0 runs free, from 10000h."""
    skip = b"\xeb" + bytes([len(_HANDLER)])
    handler = 0x7C00 + len(program.code) + len(skip)
    program.code += skip + _HANDLER
    for port, value in ((_PIC, 0x11), (_PIC_MASK, _VECTORS), (_PIC_MASK, 4), (_PIC_MASK, 1)):
        program.write(port, value)
    program.write(_PIC_MASK, 0xFF & ~(1 << _IRQ))
    vector = 4 * (_VECTORS + _IRQ)
    for at, word in ((vector, handler), (vector + 2, 0)):  # mov word [at], word
        program.code += b"\xc7\x06" + _word(at) + _word(word)
    for port, value in ((PIT + 3, 0x34), (PIT, 0), (PIT, 0)):
        program.write(port, value)


# -- steps -----------------------------------------------------------------------------------------


def _say(program: Program, random: Random) -> None:
    for _ in range(random.randint(1, 20)):
        program.write(random.choice((DEBUGCON, SERIAL)), random.randint(0x41, 0x5A))


def _poll_and_say(program: Program, random: Random) -> None:
    for _ in range(random.randint(1, 4)):
        program.read(SERIAL + 5)
        program.write(SERIAL, random.randint(0x61, 0x7A))


def _serial_register(program: Program, random: Random) -> None:
    register, values = random.choice(
        (
            (1, (0x0, 0x1, 0x2, 0x3, 0xF)),
            (2, (0x0, 0x1, 0x7)),
            (3, (0x3, 0x3, 0x1B, 0x83)),
            (4, (0x3, 0xB, 0x13, 0x1F)),
            (7, (0x55, 0xAA, 0x0)),
        )
    )
    program.write(SERIAL + register, random.choice(values))


def _serial_read(program: Program, random: Random) -> None:
    register = random.randrange(8)
    program.read(SERIAL + register, "source" if register == 2 else "exact")


def _cmos(program: Program, random: Random) -> None:
    program.write(RTC, random.choice((0x40, 0x41, 0x5F)))
    if random.random() < 0.5:
        program.write(RTC + 1, random.randrange(256))
    else:
        program.read(RTC + 1)


def _latched_counter(program: Program, random: Random) -> None:
    del random
    program.write(PIT + 3, 0x00)
    program.read(PIT, "low")
    program.read(PIT, "high")


def _status_port(program: Program, random: Random) -> None:
    for _ in range(random.randint(1, 5)):
        program.read(0x61, "any")


def _other(program: Program, random: Random) -> None:
    program.write(POST, random.randrange(256))
    program.write(LATCH + random.randrange(4), random.randrange(256))
    program.read(LATCH + random.randrange(4))


def _take_interrupts(program: Program, random: Random) -> None:
    del random
    program.read(LATCH)  # what was written has been applied when this is answered
    exits = tinyguest.read(LATCH)  # some hosts deliver an interrupt only at an exit
    program.code += b"\xfb" + exits + b"\x90\xfa"  # sti; …; nop; cli


def _wait(program: Program, random: Random) -> None:
    program.delay(random.choice((1, 10, 200)))


_STEPS = (
    _say,
    _poll_and_say,
    _serial_register,
    _serial_register,
    _serial_read,
    _serial_read,
    _cmos,
    _latched_counter,
    _latched_counter,
    _status_port,
    _other,
    _take_interrupts,
    _wait,
)
