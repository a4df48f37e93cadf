"""What the processor does that the engine leaves to its user: interrupts, exceptions, real mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tinyguest
from emulated import emulate

from kvmshim.vmm.outcome import Outcome, RunResult

pytestmark = pytest.mark.unicorn

ORIGIN = 0x7C00
SCRATCH = 0x9000
#: add word [SCRATCH], 1
COUNT = b"\x83\x06" + SCRATCH.to_bytes(2, "little") + b"\x01"
IRET = b"\xcf"
LEAVE_WITH_COUNT = b"\xa0" + SCRATCH.to_bytes(2, "little") + tinyguest.leave_with_al()

Run = Callable[..., tuple[RunResult, bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a handler's vector and code, and a program, and gives how that ended."""

    def with_handler(vector: int, handler: bytes, program: bytes) -> tuple[RunResult, bytes]:
        skip = b"\xeb" + bytes([len(handler)])
        at = (4 * vector).to_bytes(2, "little")
        install = b"\xc7\x06" + at + (ORIGIN + len(skip)).to_bytes(2, "little")
        image = tmp_path / "guest.bin"
        image.write_bytes(skip + handler + install + program + tinyguest.HALT)
        return emulate(image)

    return with_handler


def test_int_goes_through_the_vector_table_and_comes_back(run: Run) -> None:
    result, _ = run(0x60, COUNT + IRET, b"\xcd\x60" * 3 + LEAVE_WITH_COUNT)
    assert result.status == 3


@pytest.mark.parametrize(("vector", "instruction"), [(3, b"\xcc"), (4, b"\xb0\x7f\x04\x01\xce")])
def test_breakpoint_and_overflow_come_back_behind_the_instruction(
    vector: int, instruction: bytes, run: Run
) -> None:
    result, _ = run(vector, COUNT + IRET, instruction + LEAVE_WITH_COUNT)
    assert result.status == 1


def test_a_handler_begins_with_interrupts_off_and_iret_turns_them_on_again(run: Run) -> None:
    look = b"\x9c\x58\xd0\xec\x80\xe4\x01"  # pushf; pop ax; shr ah, 1; and ah, 1
    keep = look + b"\x88\x26" + (SCRATCH + 1).to_bytes(2, "little") + IRET  # mov [.. + 1], ah
    both = b"\xa1" + SCRATCH.to_bytes(2, "little") + b"\xd0\xe4\x00\xe0"  # mov ax; shl ah, 1; add
    after = look + b"\x88\x26" + SCRATCH.to_bytes(2, "little")
    result, _ = run(
        0x60, keep, b"\xfb\xcd\x60" + after + b"\xfa" + both + tinyguest.leave_with_al()
    )
    assert result.status == 1  # on in the program; off in the handler would add 2 if it were on


def test_each_of_many_divisions_by_zero_is_one_exception(run: Run) -> None:
    step_over = b"\x5b\x83\xc3\x02\x53"  # pop bx; add bx, 2; push bx
    result, _ = run(0, COUNT + step_over + IRET, b"\x31\xd2" + b"\xf7\xf2" * 5 + LEAVE_WITH_COUNT)
    assert result.status == 5


def test_an_instruction_that_does_not_exist_is_an_exception(run: Run) -> None:
    step_over = b"\x5b\x83\xc3\x02\x53"
    result, _ = run(6, COUNT + step_over + IRET, b"\x0f\x0b" * 2 + LEAVE_WITH_COUNT)
    assert result.status == 2


def test_a_single_step_comes_behind_each_instruction(run: Run) -> None:
    trap_on = b"\x9c\x58\x80\xcc\x01\x50\x9d"  # pushf; pop ax; or ah, 1; push ax; popf
    trap_off = b"\x9c\x58\x80\xe4\xfe\x50\x9d"
    result, _ = run(1, COUNT + IRET, trap_on + b"\x90" * 4 + trap_off + LEAVE_WITH_COUNT)
    assert result.status == 4 + 5  # the four, and up to the one that ends it


def test_an_interrupt_table_that_is_too_short_is_a_triple_fault(run: Run) -> None:
    table = b"\x0f\x01\x1e" + SCRATCH.to_bytes(2, "little")  # lidt [SCRATCH], all zeros there
    result, _ = run(0x60, COUNT + IRET, table + b"\xcd\x60")
    assert result.outcome is Outcome.CRASHED
    assert "triple fault" in result.message


def test_the_stack_wraps_within_its_segment(run: Run) -> None:
    top = b"\xbc\x02\x00"  # mov sp, 2: FLAGS go to 0, CS to FFFE, IP to FFFC
    result, _ = run(0x60, COUNT + IRET, top + b"\xcd\x60" + LEAVE_WITH_COUNT)
    assert result.status == 1


def test_addresses_go_on_above_one_mib(run: Run) -> None:
    move = b"\xb8\xff\xff\x8e\xc0\x26\xc6\x06\x10\x00\x2a"  # mov es, ffff; mov byte [es:10], 42
    back = b"\x26\xa0\x10\x00"
    result, _ = run(0x60, IRET, move + back + tinyguest.leave_with_al())
    assert result.status == 42


def test_the_bios_keeps_what_it_has_though_a_guest_writes_to_it(tmp_path: Path) -> None:
    load = b"\xa0\x00\x01\x8a\x26\x0f\x02"  # mov al, [0100]; mov ah, [020f]
    code = (
        b"\xb8\x00\xf0\x8e\xd8\x8e\xc0"  # mov ax, f000; mov ds, ax; mov es, ax
        + load
        + b"\x89\xc3\xf7\xd0"  # mov bx, ax; not ax
        + b"\xa2\x00\x01\x88\xe0"  # mov [0100], al; mov al, ah
        + b"\xb9\x10\x00\xbf\x00\x02\xf3\xaa"  # mov cx, 16; mov di, 0200; rep stosb
        + load
        + b"\x29\xd8\x08\xe0"  # sub ax, bx; or al, ah
    ) + tinyguest.leave_with_al()
    image = tmp_path / "guest.bin"
    image.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa")
    assert emulate(image)[0].status == 0
