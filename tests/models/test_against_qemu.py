"""Our UART and our small devices beside QEMU's.

Every value that a step reads is compared, the level of the interrupt line after the step, and how
often the line rose during it. What is left out stands in ``qemu_differences``.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_beside_ours import COM1_LINE, Ours, compare, few
from qemu_differences import COM1, IER, IIR, LCR, LSR, MCR, MSR, RBR, SCR
from qemu_pc import In, Out, Step, Wait, run

from devserver.models import Signal
from devserver.models.uart16550.registers import Fcr, Ier, Lcr, Mcr

pytestmark = pytest.mark.qemu

# -- 16550 ------------------------------------------------------------------------------------

CHARACTER_NS = 86_805  # ten bits at 115,200 baud
SERIAL_SHIFT = 6
SERIAL_SETUP: list[Step] = [
    *(Out(LCR, Lcr.DLAB | 3), Out(RBR, 1), Out(IER, 0), Out(LCR, 3)),
    *(Out(IIR, 0), Out(IER, 0), Out(MCR, Mcr.OUT2)),
    *(In(LSR), In(MSR), In(IIR), In(RBR)),
]
LOOP = Mcr.OUT2 | Mcr.LOOP
serial_step = st.one_of(
    st.builds(Out, st.just(RBR), st.integers(0, 0xFF)),
    st.just(In(RBR)),
    st.sampled_from([In(IIR), In(LSR)]),
    st.sampled_from([In(port) for port in (IER, LCR, MCR, MSR, SCR)]),
    st.sampled_from([Out(IER, value) for value in range(Ier.EDSSI)]),
    st.sampled_from([Out(IIR, value) for value in (0, 1, 3, 5, 7, 0x41, 0x81, 0xC1, 0xC7)]),
    st.sampled_from([Out(MCR, LOOP), Out(MCR, LOOP | 7), Out(MCR, Mcr.OUT2), Out(MCR, 0x0B)]),
    st.sampled_from([Out(LCR, value) for value in (0x03, 0x83, 0x0F, 0x1B, 0x07)]),
    st.builds(Out, st.just(SCR), st.integers(0, 0xFF)),
    st.sampled_from([Wait(count * CHARACTER_NS) for count in (1, 3, 5, 20)]),
)


def out_again(port: int, value: int, times: int) -> list[Step]:
    return [Out(port, value + n) for n in range(times)]


SERIAL_STORIES: dict[str, list[Step]] = {
    "prints": [Out(RBR, byte) for byte in b"Hello"],
    "prints with interrupts": [Out(IER, 2), In(IIR), Out(RBR, 1), In(IIR), In(IIR), Out(RBR, 2)],
    "divisor": [Out(LCR, 0x83), Out(RBR, 0x34), Out(IER, 0x12), In(RBR), In(IER), Out(LCR, 3)],
    "16450 overrun": [Out(MCR, LOOP), *out_again(RBR, 0x41, 3), In(LSR), In(RBR), In(LSR)],
    "FIFO overrun": [
        *(Out(IIR, 1), Out(IER, 7), Out(MCR, LOOP), *out_again(RBR, 0, 18)),
        *(In(IIR), In(LSR), In(IIR), *[In(RBR), In(LSR)] * 17, In(IIR)),
    ],
    **{
        f"trigger level {level:#x}": [
            *(Out(IIR, Fcr.FIFO_ENABLE | level), Out(IER, 1), Out(MCR, LOOP)),
            *[step for n in range(15) for step in (Out(RBR, n), In(IIR))],
            *[In(RBR), In(IIR)] * 15,
        ]
        for level in (0x00, 0x40, 0x80, 0xC0)
    },
    "character timeout": [
        *(Out(IIR, 0xC1), Out(IER, 1), Out(MCR, LOOP), Out(RBR, 5), Out(RBR, 6), In(IIR)),
        *(Wait(int(3.9 * CHARACTER_NS)), In(IIR), Wait(CHARACTER_NS // 5), In(IIR)),
        *(In(RBR), In(IIR), Wait(5 * CHARACTER_NS), In(IIR), In(RBR), In(IIR)),
    ],
    "FIFO reset": [Out(IIR, 1), Out(MCR, LOOP), Out(RBR, 5), In(LSR), Out(IIR, 3), In(LSR)],
    "modem lines": [
        step for n in range(16) for step in (Out(MCR, Mcr.OUT2 | Mcr.LOOP | n), In(MSR), In(MCR))
    ],
}


def test_serial_power_on_values() -> None:
    compare([In(port) for port in range(COM1, COM1 + 8) if port != MCR], SERIAL_SHIFT, COM1_LINE)


@pytest.mark.parametrize("story", SERIAL_STORIES)
def test_serial_story(story: str) -> None:
    theirs, ours = compare([*SERIAL_SETUP, *SERIAL_STORIES[story]], SERIAL_SHIFT, COM1_LINE)
    assert ours.sent_by("com1") == theirs.serial


@few
@given(st.lists(serial_step, min_size=30, max_size=80))
def test_serial_whatever_the_guest_does(steps: list[Step]) -> None:
    theirs, ours = compare([*SERIAL_SETUP, *steps], SERIAL_SHIFT, COM1_LINE)
    assert ours.sent_by("com1") == theirs.serial


# -- the small ones ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4])
def test_test_device_latch_in_all_widths(size: int) -> None:
    places = range(0xE0, 0xE4, size)
    reads: list[Step] = [In(at, wide) for wide in (1, 2, 4) for at in range(0xE0, 0xE4, wide)]
    steps: list[Step] = [Out(0xE0, 0x44332211, 4), *reads]
    steps += [step for at in places for step in (Out(at, 0xA9B8C7D6, size), *reads)]
    compare(steps, 6, line=5)


@pytest.mark.parametrize("line", [1, 5, 9, 15])
def test_test_device_drives_interrupt_lines(line: int) -> None:
    port = 0x2000 + line
    compare([Out(port, value) for value in (1, 1, 0, 0x80, 0xFF, 0)] + [In(port)], 6, line)


def test_debug_console_sends_and_tells_that_it_is_there() -> None:
    theirs, ours = compare([In(0xE9), *[Out(0xE9, byte) for byte in b"hello"]], 6, line=0)
    assert ours.sent_by("debugcon") == theirs.console == b"hello"


@pytest.mark.parametrize(("value", "size"), [(0, 1), (1, 1), (0x2A, 1), (0x7F, 1), (3, 2), (5, 4)])
def test_debug_exit_ends_the_machine_with_the_value(value: int, size: int) -> None:
    out = Out(0xF4, value, size)
    status, ours = run([In(0xF4), out], 6).status, Ours()
    ours.take(out, 0, 0)
    assert ours.signals == [(Signal.EXIT, status >> 1)]


def test_debug_exit_reads_as_zero_and_the_post_port_takes_anything() -> None:
    compare([In(0xF4), *[Out(0x80, code) for code in range(3)], In(0x80)], 6, line=0)
