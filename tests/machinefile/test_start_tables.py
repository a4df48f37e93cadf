"""The tables of a machine file that say what a kernel is handed: modules and registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, load_image
from kvmshim.loader.registers import Setting
from kvmshim.machinefile import parse_machine
from kvmshim.machinefile.spec import ModuleSpec
from kvmshim.vmm.assemble import parse_module

PATH = Path("vm/machine.toml")


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse_machine(text, PATH)
    return str(refused.value)


def test_modules_are_beside_the_machine_file_in_their_order() -> None:
    text = "[[module]]\npath = 'env'\n[[module]]\npath = 'img'\nappend = 'root=/'\n"
    assert parse_machine(text, PATH).modules == (
        ModuleSpec(path=Path("vm/env")),
        ModuleSpec(path=Path("vm/img"), append="root=/"),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[module]]\nappend = 'x'", "1: [[module]] has no 'path'; name the file"),
        ("[[module]]\npth = 'x'", "2: unknown key 'pth' in [[module]]; did you mean 'path'?"),
        ("[module]\npath = 'x'", "1: modules are written as tables under [[module]]"),
    ],
)
def test_a_mistake_in_a_module_is_told_with_its_line(text: str, complaint: str) -> None:
    assert refusal(text) == f"vm/machine.toml:{complaint}"


def test_the_command_line_names_a_file_and_its_text(tmp_path: Path) -> None:
    assert parse_module("env,A=1,B=2") == ModuleSpec(path=Path("env"), append="A=1,B=2")
    there = tmp_path / "a,b"
    there.write_bytes(b"")
    assert parse_module(str(there)) == ModuleSpec(path=there)
    with pytest.raises(InputError, match="--module ,x: the file comes first"):
        parse_module(",x")


def test_registers_are_named_as_in_assembly() -> None:
    text = "[registers]\ndl = 0x81\neax = 0x2badb002\nr15 = 0xffffffffffffffff\n"
    assert parse_machine(text, PATH).registers == (
        Setting("dl", 0x81, "vm/machine.toml:2"),
        Setting("eax", 0x2BADB002, "vm/machine.toml:3"),
        Setting("r15", (1 << 64) - 1, "vm/machine.toml:4"),
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("eaxx = 1", "there is no such register; did you mean 'eax'?"),
        ("nonsense = 1", "there is no such register; see docs/machine-file.md"),
        ("al = 0x100", "0x100 is more than the register can hold, 0xff"),
        ("cs = 0x10000", "0x10000 is more than the register can hold, 0xffff"),
        ("sp = -1", "-1 is negative"),
        ("ax = 'x'", "expected a number, got 'x'"),
        ("ax = true", "expected a number, got True"),
        ("bl = 1\nbx = 2", "'bl' is part of the same register and is set already"),
        ("flags = 8", "0x8 sets bits that are reserved (0x8)"),
    ],
)
def test_a_mistake_in_a_register_is_told_with_its_line(line: str, complaint: str) -> None:
    said = refusal(f"[registers]\n{line}\n")
    assert said.startswith(f"vm/machine.toml:{1 + len(line.splitlines())}: ")
    assert f"in [registers]: {complaint}" in said


def plan(folder: Path, kind: str, *settings: Setting) -> BootPlan:
    image = folder / "image"
    image.write_bytes((b"\xf4" * 510 + b"\x55\xaa").ljust(4096, b"\xf4"))
    return load_image(image, memory_bytes=16 << 20, kind=kind, settings=settings)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("flat", "cs"), ("flat", "eax"), ("rom", "dl"), ("flat32", "esp"), ("flat64", "r8")],
)
def test_a_register_that_the_mode_has_is_set(kind: str, name: str, tmp_path: Path) -> None:
    setting = Setting(name, 1, "m.toml:9")
    assert plan(tmp_path, kind, setting).start.registers == (setting,)


@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        ("flat", "rax", "it has 64 bits, and .* starts in real mode; set 'eax'"),
        ("flat32", "r8", "it has 64 bits, and .* starts in 32-bit protected mode; leave it out"),
        ("flat64", "ds", "segments are set in real mode only, and .* 64-bit mode; leave it out"),
        ("boot-sector", "dl", "the BIOS sets the registers .*; leave out .registers., or the BIOS"),
    ],
)
def test_a_register_that_the_mode_lacks_is_refused_with_its_line(
    kind: str, name: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"m.toml:9: .*{complaint}"):
        plan(tmp_path, kind, Setting(name, 1, "m.toml:9"))
