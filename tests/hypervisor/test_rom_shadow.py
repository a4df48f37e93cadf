"""ROM images: read-only where they end at 4 GiB, a copy in RAM where they end at 1 MiB."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import library
import pytest
import tinyguest
from commandline import AT_MOST_S
from library import Terminal

from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome
from kvmshim.vmstate.state import Header

KIB, MIB = 1 << 10, 1 << 20
SHADOW_BYTES = 256 * KIB
MARK = 0x41
UNTIL_FED = tinyguest.read(tinyguest.LINE_STATUS) + b"\xa8\x01\x74\xf8"  # test al, 1; jz

each_hypervisor = pytest.mark.parametrize(
    "hypervisor",
    [
        pytest.param("kvm", marks=pytest.mark.kvm),
        pytest.param("unicorn", marks=pytest.mark.unicorn),
    ],
)


def rom(size_bytes: int, code: bytes) -> bytes:
    """A ROM of zeros that runs ``code`` in its copy, with DS where the copy begins.

    The first byte of what is copied is MARK.
    """
    image = bytearray(size_bytes)
    copied = min(size_bytes, SHADOW_BYTES)
    image[-copied] = MARK
    code = b"\xb8" + ((MIB - copied) >> 4).to_bytes(2, "little") + b"\x8e\xd8" + code
    image[-0x100 : -0x100 + len(code)] = code
    image[-16:-11] = b"\xea\x00\xff\x00\xf0"  # jmp f000:ff00
    return bytes(image)


def machine(folder: Path, image: bytes, hypervisor: str) -> Machine:
    path = folder / "image.rom"
    path.write_bytes(image)
    spec = library.spec_of(path, placement="local")
    return library.machine_for(dataclasses.replace(spec, hypervisor=hypervisor).with_controllers())


@each_hypervisor
@pytest.mark.parametrize(
    "size_bytes",
    [8 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 2 * MIB, 16 * MIB],
    ids=lambda n: f"{n:#x}",
)
def test_the_copy_of_a_rom_of_any_size_can_be_written(
    size_bytes: int, hypervisor: str, tmp_path: Path
) -> None:
    grow = b"\xa0\x00\x00\x80\x06\x00\x00\x07\x02\x06\x00\x00"  # al = [0]; [0] += 7; al += [0]
    image = rom(size_bytes, grow + b"\x2c\x50" + tinyguest.leave_with_al())  # sub al, 50h
    with machine(tmp_path, image, hypervisor) as made:
        assert made.run(timeout_s=AT_MOST_S).status == 2 * MARK + 7 - 0x50


@each_hypervisor
def test_what_a_guest_wrote_to_the_copy_is_there_after_a_suspend(
    hypervisor: str, tmp_path: Path
) -> None:
    """A page that it made all zeros, too, which a state leaves out."""
    code = (
        b"\xc6\x06\x00\x00\x00\xc6\x06\x00\x10\x2a"  # mov byte [0], 0; mov byte [1000], 42
        + tinyguest.say(b"r")
        + UNTIL_FED
        + b"\xa0\x00\x00\x02\x06\x00\x10"  # mov al, [0]; add al, [1000]
        + tinyguest.leave_with_al()
    )
    terminal = Terminal()
    with machine(tmp_path, rom(128 * KIB, code), hypervisor) as made:
        terminal.when(b"r", made.pause)
        assert made.run(timeout_s=AT_MOST_S, output=terminal).outcome is Outcome.PAUSED
        state = made.save()
        state = dataclasses.replace(state, header=Header.from_bytes(state.header.to_bytes()))
    with Machine.restored(state) as back:
        back.feed("com1", b"x")
        assert back.run(timeout_s=AT_MOST_S).status == 42


@each_hypervisor
def test_the_rom_itself_keeps_what_it_has(hypervisor: str, tmp_path: Path) -> None:
    image = bytearray(64 * KIB)
    code = b"\x2e\xc6\x06\x00\x01\x55\x2e\xa0\x00\x01"  # mov byte [cs:100], 55; mov al, [cs:100]
    code += tinyguest.leave_with_al()
    image[0x100], image[-0x100 : -0x100 + len(code)] = MARK, code
    image[-16:-13] = b"\xe9\x0d\xff"  # jmp ff00, still below 4 GiB
    with machine(tmp_path, bytes(image), hypervisor) as made:
        assert made.run(timeout_s=AT_MOST_S).status == MARK
