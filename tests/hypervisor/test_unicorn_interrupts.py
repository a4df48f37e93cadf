"""On the Unicorn engine interrupts come between the instructions where a processor takes them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tinyguest
from emulated import emulate, emulated
from library import Terminal

from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.unicorn

ORIGIN = 0x7C00
PIC, PIC_MASK, VECTOR = 0x20, 0x21, 0x24
LINE = 4
INTERRUPT_ENABLE = tinyguest.COM1 + 1
TRANSMITTER_EMPTY = 2
MODEM_CONTROL, INTERRUPTS_REACH_THE_BUS = tinyguest.COM1 + 4, 8  # OUT2
#: Whatever was counted in AL until the interrupt is the exit status.
LEAVE_WITH_AL = b"\xe6\xf4\xf4"


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


def asked(vector_base: int = VECTOR - LINE) -> bytes:
    """Sets the controllers up and has the serial port ask for an interrupt, which is off."""
    code = b"\xfa"
    for port, value in ((PIC, 0x11), (PIC_MASK, vector_base), (PIC_MASK, 4), (PIC_MASK, 1)):
        code += tinyguest.write(port, value)
    code += tinyguest.write(PIC_MASK, 0xFF & ~(1 << LINE))
    code += tinyguest.write(MODEM_CONTROL, INTERRUPTS_REACH_THE_BUS)
    return code + tinyguest.write(INTERRUPT_ENABLE, TRANSMITTER_EMPTY)


def real_mode(program: bytes) -> bytes:
    """A program that is asked for an interrupt, whose handler ends the guest with AL."""
    skip = b"\xeb" + bytes([len(LEAVE_WITH_AL)])
    vector = b"\xc7\x06" + _word(4 * VECTOR) + _word(ORIGIN + len(skip))
    return skip + LEAVE_WITH_AL + vector + asked() + b"\xb0\x00" + program


INCREMENT = b"\x04\x01"  # add al, 1
POPF_ON = b"\x68\x02\x02\x9d"  # push 202h; popf: interrupts on


@pytest.mark.parametrize(
    ("program", "al"),
    [
        pytest.param(b"\xfb" + INCREMENT * 3, 1, id="one instruction after STI"),
        pytest.param(POPF_ON + INCREMENT * 3, 0, id="at once after POPF"),
        pytest.param(b"\xfb\x90\xfa" + INCREMENT * 3, 0, id="in a window of one instruction"),
        pytest.param(b"\xfb\xfa" + INCREMENT * 3 + b"\xe6\xf4", 3, id="never between STI and CLI"),
        pytest.param(b"\xfb\xf4" + INCREMENT * 3, 0, id="in HLT right behind STI"),
        pytest.param(b"\xfb\xe4\x21\xb0\x07\xfa" + INCREMENT, 0xEF, id="right behind an IN"),
        pytest.param(INCREMENT * 2 + LEAVE_WITH_AL, 2, id="never while they are off"),
    ],
)  # fmt: skip
def test_an_interrupt_is_taken(program: bytes, al: int, tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(real_mode(program + tinyguest.HALT))
    assert emulate(image)[0].status == al


@pytest.mark.process
@pytest.mark.parametrize("place", ["server", "local"])
def test_an_interrupt_that_an_access_causes_comes_right_behind_it(
    place: str, tmp_path: Path
) -> None:
    now = b"\xba" + _word(INTERRUPT_ENABLE) + b"\xb0\x00\xee\xb0\x02\xfb\xee"  # off; then on again
    read_back = b"\xec" + INCREMENT * 3  # a read waits for what was written before
    image = tmp_path / "guest.bin"
    image.write_bytes(real_mode(now + read_back + tinyguest.HALT))
    assert emulate(image, placement=place)[0].status == 2


def test_an_interrupt_goes_through_a_gate_in_protected_mode(tmp_path: Path) -> None:
    leave = b"\x66\xba\xf4\x00\xee"  # mov dx, 0f4h; out dx, al
    handler = b"\xb0\x2a" + leave
    protected = (
        b"\x66\xb8\x10\x00\x8e\xd0\x8e\xd8"  # mov ax, 10h; mov ss, ax; mov ds, ax
        b"\xbc\x00\x70\x00\x00\xfb\x90\x90\xb0\x01"  # mov esp, 7000h; sti; …; mov al, 1
    ) + leave
    segments = bytes(8) + b"\xff\xff\0\0\0\x9a\xcf\0" + b"\xff\xff\0\0\0\x92\xcf\0"
    enter = b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0\xea"  # mov eax, cr0; or al, 1; mov cr0, eax; jmp far
    head = len(asked()) + 10 + len(enter) + 4
    at_handler = ORIGIN + head + len(protected)
    at_segments = at_handler + len(handler)
    at_gate = at_segments + len(segments)
    gate = _word(at_handler) + b"\x08\x00\x00\x8e\x00\x00"
    at_tables = at_gate + len(gate)
    tables = _word(len(segments) - 1) + at_segments.to_bytes(4, "little")
    tables += _word(8 * VECTOR + 7) + (at_gate - 8 * VECTOR).to_bytes(4, "little")
    load = b"\x0f\x01\x16" + _word(at_tables) + b"\x0f\x01\x1e" + _word(at_tables + 6)
    far = _word(ORIGIN + head) + b"\x08\x00"
    image = tmp_path / "guest.bin"
    image.write_bytes(asked() + load + enter + far + protected + handler + segments + gate + tables)
    assert emulate(image)[0].status == 42


def test_a_guest_that_sleeps_costs_no_processor_time(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(tinyguest.say(b"!") + b"\xfb\xf4" + tinyguest.SPIN)
    terminal = Terminal()
    began: list[float] = []
    terminal.when(b"!", lambda: began.append(time.process_time()))
    with emulated(image) as made:
        result = made.run(timeout_s=0.4, output=terminal)
    assert result.outcome is Outcome.TIMED_OUT
    assert time.process_time() - began[0] < 0.2
