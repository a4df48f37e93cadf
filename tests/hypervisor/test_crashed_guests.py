"""A guest that can't go on: which instruction it was, where, and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import library
import pytest
from commandline import AT_MOST_S, kvmshim
from emulated import emulated

from kvmshim.hypervisor.kvm.vcpu import Registers
from kvmshim.vmm.code import Code, read_code
from kvmshim.vmm.outcome import Outcome, RunResult

HYPERVISORS = [pytest.param("kvm", marks=pytest.mark.kvm), "unicorn"]
ORIGIN = 0x7C00
#: Flat segments, as every protected-mode program has them.
GDT = bytes(8) + bytes.fromhex("ffff0000009acf00 ffff00000092cf00")
NOWHERE = 0xFED0_0000
#: fild word [FED00000h]: KVM emulates what touches a device, and no instructions of the x87.
FILD = bytes.fromhex("df05") + NOWHERE.to_bytes(4, "little")


def in_protected_mode(code: bytes) -> bytes:
    """A flat image that runs ``code`` in 32-bit protected mode."""
    enter = bytes.fromhex(
        "fa 2e0f01166000"  # cli; lgdt [cs:60h]
        "0f20c0 0c01 0f22c0"  # cr0.PE = 1
        "66ea 207c0000 0800"  # jmp 8:7c20h
    )
    enter = enter.replace(b"\x16\x60\x00", b"\x16\x60\x7c")
    body = bytes.fromhex("66b81000 8ed8 8ec0 8ed0 dbe3") + code  # ds, es, ss; fninit
    pointer = (len(GDT) - 1).to_bytes(2, "little") + (ORIGIN + 0x68).to_bytes(4, "little")
    return enter.ljust(0x20, b"\x90") + body.ljust(0x40, b"\xf4") + pointer.ljust(8, b"\0") + GDT


def run(hypervisor: str, folder: Path, code: bytes) -> RunResult:
    image = folder / "guest.bin"
    image.write_bytes(code)
    make = library.machine if hypervisor == "kvm" else emulated
    with make(image, placement="local") as machine:
        return machine.run(timeout_s=AT_MOST_S)


@pytest.mark.kvm
def test_an_instruction_that_kvm_can_not_emulate_is_named_and_what_may_run_it(
    tmp_path: Path,
) -> None:
    result = run("kvm", tmp_path, in_protected_mode(FILD))
    assert result.outcome is Outcome.CRASHED
    assert result.message == (
        "the guest crashed: this host's KVM can't emulate the instruction df 05 00 00 d0 fe "
        "(fild word ptr [0xfed00000]) (KVM_EXIT_INTERNAL_ERROR, suberror 1); "
        "'--hypervisor unicorn' may run it, as it needs no KVM"
    )


def test_the_emulator_does_run_it(tmp_path: Path) -> None:
    result = run("unicorn", tmp_path, in_protected_mode(FILD + b"\xf4"))
    assert result.outcome is Outcome.HALTED
    assert [place.low for place in result.unclaimed.places] == [NOWHERE]


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_a_jump_to_where_there_is_no_memory_is_called_that(hypervisor: str, tmp_path: Path) -> None:
    jump = b"\xea" + NOWHERE.to_bytes(4, "little") + b"\x08\x00"
    result = run(hypervisor, tmp_path, in_protected_mode(jump))
    assert result.outcome is Outcome.CRASHED
    assert result.message.endswith("it went to 0xfed00000, where there is no memory")


@pytest.mark.parametrize("hypervisor", HYPERVISORS)
def test_the_code_at_which_a_guest_stands_follows_its_registers(
    hypervisor: str, tmp_path: Path
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(b"\x90\xeb\xfe")
    make = library.machine if hypervisor == "kvm" else emulated
    with make(image, placement="local") as machine:
        result = machine.run(timeout_s=0.1)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.details[-1] == "code at 0x7c01: eb fe (jmp 0x7c01)"


@pytest.mark.kvm
def test_without_a_disassembler_there_are_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)  # as if it were not installed
    result = run("kvm", tmp_path, in_protected_mode(FILD))
    assert "can't emulate the instruction df 05 00 00 d0 fe f4 f4" in result.message


@pytest.mark.kvm
def test_the_command_says_it_on_standard_error(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(in_protected_mode(FILD))
    result = kvmshim("run", image)
    first = result.stderr.decode().splitlines()[0]
    assert result.returncode == 117
    assert first.startswith("kvmshim: the guest crashed: this host's KVM can't emulate")


# -- through page tables ---------------------------------------------------------------------------

PG, PSE, PAE, LMA = 1 << 31, 1 << 4, 1 << 5, 1 << 10
P, PS = 1, 1 << 7
LINEAR = 0xC010_0123
FOUND = Code(LINEAR, b"\x90" * 15, 1, "nop")


def processor(cr3: int, cr4: int, efer: int = 0) -> Registers:
    return Registers(
        general={"rip": LINEAR},
        selectors={},
        bases={"cs": 0},
        cr0=PG,
        cr2=0,
        cr3=cr3,
        cr4=cr4,
        efer=efer,
        code_bits=64 if efer else 32,
    )


class Memory:
    """64 KiB with page tables, and code in all the rest of the first 2 MiB."""

    def __init__(self, entries: dict[int, int]) -> None:
        self._entries = entries

    def read(self, address: int, length: int) -> bytes:
        if address < 0x1_0000:
            return self._entries.get(address, 0).to_bytes(length, "little")
        return b"\x90" * length if address < 0x20_0000 else b""


def index(shift: int, bits: int, size: int) -> int:
    """Where the entry for LINEAR is in a table."""
    return (LINEAR >> shift & (1 << bits) - 1) * size


@pytest.mark.parametrize(
    ("registers", "entries"),
    [
        (
            processor(0x1000, 0),
            {0x1000 + index(22, 10, 4): 0x2000 | P, 0x2000 + index(12, 10, 4): 0x10_0000 | P},
        ),
        (processor(0x1000, PSE), {0x1000 + index(22, 10, 4): P | PS}),
        (
            processor(0x1020, PAE),
            {
                0x1020 + index(30, 2, 8): 0x2000 | P,
                0x2000 + index(21, 9, 8): P | PS,
            },
        ),
        (
            processor(0x1000, PAE, LMA),
            {
                0x1000 + index(39, 9, 8): 0x2000 | P,
                0x2000 + index(30, 9, 8): 0x3000 | P,
                0x3000 + index(21, 9, 8): 0x4000 | P,
                0x4000 + index(12, 9, 8): 0x1_1000 | P,
            },
        ),
    ],
    ids=["32-bit", "4 MiB pages", "PAE", "long mode"],
)
def test_code_is_found_through_page_tables(registers: Registers, entries: dict[int, int]) -> None:
    assert read_code(registers, Memory(entries).read) == FOUND
    for missing in entries:
        rest = {at: entry for at, entry in entries.items() if at != missing}
        assert read_code(registers, Memory(rest).read).data == b""
