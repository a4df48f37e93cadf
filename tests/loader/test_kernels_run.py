"""Kernels that start in 32-bit and 64-bit mode, on a real processor."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import library
import pytest
import tinyguest
from commandline import AT_MOST_S, kvmshim, the_line
from images import MIB, Load, elf, elf64, multiboot2_header, multiboot_header

from kvmshim.errors import InputError
from kvmshim.loader.registers import Setting

each_hypervisor = pytest.mark.parametrize(
    "hypervisor",
    [
        pytest.param("kvm", marks=pytest.mark.kvm),
        pytest.param("unicorn", marks=pytest.mark.unicorn),
    ],
)
KERNEL = Path(__file__).parent / "unit_test_kernel.asm"
KERNEL_ADDRESS = 4 * MIB
#: push eax; pop edx (rax and rdx in 64-bit mode); mov ax, 10h; mov ds, ax; mov ss, ax.
STACK_AND_SEGMENTS = b"\x50\x5a\x66\xb8\x10\x00\x8e\xd8\x8e\xd0"
#: movaps xmm0, xmm1.
SSE = b"\x0f\x28\xc1"


def leave_with(load_al: bytes) -> bytes:
    """Ends the guest with what these instructions put into AL; in 32-bit and 64-bit mode."""
    return load_al + b"\xe6" + bytes([tinyguest.EXIT_PORT])


def status(image: Path, data: bytes, hypervisor: str, kind: str, *settings: Setting) -> int | None:
    """What a guest of this image ends with."""
    image.write_bytes(data)
    spec = library.spec_of(image, placement="local")
    assert spec.image is not None
    spec = dataclasses.replace(
        spec,
        image=dataclasses.replace(spec.image, kind=kind),
        hypervisor=hypervisor,
        registers=settings,
    )
    with library.machine_for(spec.with_controllers()) as made:
        return made.run(timeout_s=AT_MOST_S).status


@each_hypervisor
@pytest.mark.parametrize("kind", ["elf32", "multiboot", "multiboot2", "flat32"])
def test_a_32_bit_image_has_a_stack_segments_and_bios_data(
    kind: str, hypervisor: str, tmp_path: Path
) -> None:
    code = STACK_AND_SEGMENTS + leave_with(b"\xa0\x49\x04\x00\x00")  # mov al, [449]: video mode
    header, second = multiboot_header(), bytes(4) + multiboot2_header()
    data = {
        "elf32": elf([Load(data=code)]),
        "multiboot": elf([Load(data=header + code)], entry=MIB + len(header)),
        "multiboot2": elf([Load(data=second + code)], entry=MIB + len(second)),
        "flat32": code,
    }[kind]
    assert status(tmp_path / "image", data, hypervisor, kind) == 3


@pytest.mark.kvm
@pytest.mark.parametrize("kind", ["elf64", "flat64"])
def test_a_64_bit_image_has_a_stack_segments_sse_and_memory_as_it_is(
    kind: str, tmp_path: Path
) -> None:
    high = b"\x8a\x04\x25" + (0x8000_0449).to_bytes(4, "little")  # mov al, [ffffffff80000449]
    code = STACK_AND_SEGMENTS + SSE + leave_with(high)
    data = elf64(Load(data=code)) if kind == "elf64" else code
    assert status(tmp_path / "image", data, "kvm", kind) == 3


@pytest.mark.unicorn
def test_a_hypervisor_without_64_bit_mode_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'unicorn' emulates 32-bit processors only; run it on 'k"):
        status(tmp_path / "image", b"\xf4", "unicorn", "flat64")


@each_hypervisor
def test_registers_are_as_asked_in_real_mode(hypervisor: str, tmp_path: Path) -> None:
    code = b"\x00\xd0\x2e\x02\x06\x00\x00"  # add al, dl; add al, [cs:0]: the first byte is 0
    settings = [Setting(name, value, "m") for name, value in RELOCATED.items()]
    code += leave_with(b"")
    assert status(tmp_path / "image", code, hypervisor, "flat", *settings) == 0x12


#: 07C0:0000 is where a flat image lies, too.
RELOCATED = {"cs": 0x07C0, "ip": 0, "al": 0x02, "dx": 0x0110}


@each_hypervisor
def test_registers_are_as_asked_in_protected_mode(hypervisor: str, tmp_path: Path) -> None:
    code = b"\x58\x00\xc8" + b"\x0f\x92\xc2\x00\xd0"  # pop eax; add al, cl; setc dl; add al, dl
    settings = [Setting("esp", MIB + 64, "m"), Setting("cl", 0xFF, "m")]
    data = (code + leave_with(b"")).ljust(64, b"\xf4") + b"\x05\0\0\0"
    assert status(tmp_path / "image", data, hypervisor, "flat32", *settings) == 5


@pytest.mark.kvm
def test_registers_are_as_asked_in_64_bit_mode(tmp_path: Path) -> None:
    code = leave_with(b"\x4c\x89\xc0\x48\xc1\xe8\x38")  # mov rax, r8; shr rax, 56
    setting = Setting("r8", 0x2A << 56, "m")
    assert status(tmp_path / "image", code, "kvm", "flat64", setting) == 0x2A


@pytest.mark.kvm
@pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")
@pytest.mark.parametrize("place", ["server", "local"])
def test_a_kernel_that_starts_as_the_public_kvm_unit_tests_do(place: str, tmp_path: Path) -> None:
    """By multiboot into 32-bit mode, from there to 64 bits; then fw_cfg, APIC, IDT, MSRs."""
    flat = tmp_path / "flat"
    options = ("-f", "bin", f"-dORIGIN={KERNEL_ADDRESS}", "-o", flat, KERNEL)
    subprocess.run(["nasm", *map(str, options)], check=True)
    code = flat.read_bytes()
    load = Load(paddr=KERNEL_ADDRESS, data=code, memory_bytes=len(code) + (64 << 10))
    (tmp_path / "kernel.elf").write_bytes(elf([load], entry=KERNEL_ADDRESS + 12))
    (tmp_path / "env").write_bytes(b"NR_CPUS=1\n")
    options = ("--append", "one two", "--module", tmp_path / "env", "--placement", place)
    done = kvmshim("run", tmp_path / "kernel.elf", *options)
    assert done.stdout.decode().splitlines() == [
        *("kernel.elf one two", "NR_CPUS=1", "one processor"),
        *("exception and interrupt came", "MSR and TSC are there"),
    ]
    assert done.returncode == 0


@pytest.mark.process
def test_a_module_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kernel.elf").write_bytes(elf([Load(data=multiboot_header())], entry=MIB))
    done = kvmshim("run", tmp_path / "kernel.elf", "--module", tmp_path / "none")
    assert done.returncode == 113
    assert "cannot load the module" in the_line(done)
