"""The files of fw_cfg, from a machine file and from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kvmshim.errors import InputError
from kvmshim.machinefile import MachineSpec, default_machine, parse_machine
from kvmshim.machinefile.fwcfg import add_files
from kvmshim.vmm.placement import wired

TABLE = "[[device]]\nname = 'fw_cfg'\n[device.options.files]\n"


def files(machine: MachineSpec) -> Mapping[str, Any]:
    (device,) = [d for d in machine.devices if d.wiring.kind == "fw_cfg"]
    found = device.wiring.options["files"]
    assert isinstance(found, Mapping)
    return found


def refusal(text: str, folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        parse_machine(text, folder / "machine.toml")
    return str(refused.value).removeprefix(f"{folder}/")


def test_a_file_is_text_or_a_file_beside_the_machine_file(tmp_path: Path) -> None:
    tmp_path.joinpath("blob").write_bytes(b"\0\xff")
    text = f"{TABLE}'opt/a' = 'hällo'\n'opt/b' = {{ path = 'blob' }}\n"
    machine = parse_machine(text, tmp_path / "machine.toml")
    assert files(machine) == {"opt/a": "hällo".encode(), "opt/b": b"\0\xff"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("'opt/a' = 7", "expected text, or a table"),
        ("'opt/a' = {}", "got an empty table"),
        ("'opt/a' = { pth = 'x' }", "unknown key 'pth' of a file; did you mean 'path'?"),
        ("'opt/a' = { path = 'none' }", "there is no such file; check the path"),
        ("'ö' = 'x'", "is not ASCII"),
        (f"'{'x' * 56}' = 'x'", "must have 1 to 55 printable characters"),
    ],
)
def test_a_mistake_is_told_with_its_line(line: str, complaint: str, tmp_path: Path) -> None:
    said = refusal(f"{TABLE}fine = 'x'\n{line}\n", tmp_path)
    assert said.startswith("machine.toml:5: [[device]] 'fw_cfg': ")
    assert complaint in said


def test_files_that_are_too_much_together_are_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("half").write_bytes(bytes(200 << 10))
    text = f"{TABLE}a = {{ path = 'half' }}\nb = {{ path = 'half' }}\n"
    assert "at most 256 files and 256 KiB in all" in refusal(text, tmp_path)


def test_the_command_line_adds_to_the_files_of_the_machine(tmp_path: Path) -> None:
    tmp_path.joinpath("blob").write_bytes(b"\x01")
    machine = parse_machine(f"{TABLE}a = 'x'\nb = 'x'\n", tmp_path / "machine.toml")
    given = ["b,string=y,z=1", f"name=opt/c,file={tmp_path}/blob"]
    assert files(add_files(machine, given)) == {"a": b"x", "b": b"y,z=1", "opt/c": b"\x01"}


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("opt/a", "expected NAME,file=PATH or NAME,string=TEXT"),
        ("opt/a,text=x", "expected NAME,file=PATH"),
        (",string=x", "1 to 55 printable"),
        ("opt/a,file=/none", "cannot read a file of fw_cfg '/none': there is no such file"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(option: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        add_files(default_machine(), [option])


def test_a_machine_without_the_device_says_how_to_have_it(tmp_path: Path) -> None:
    bare = parse_machine("[machine]\nboard = 'none'\n", tmp_path / "machine.toml")
    with pytest.raises(InputError, match="add --device fw_cfg,port=0x510"):
        add_files(bare, ["a,string=x"])


def test_the_device_is_told_the_size_of_memory() -> None:
    told = {d.wiring.kind: d.wiring.options for d in wired(default_machine())}
    assert told["fw_cfg"] == {"memory_bytes": 16 << 20}
