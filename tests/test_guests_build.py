"""The committed guests are what their sources give, and the manifest says what each must do."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devserver.machine.board import PC_BOARD
from kvmshim.loader import ImageKind, detect_kind

ROOT = Path(__file__).parents[1]
GUESTS = ROOT / "guests"
BUILT = GUESTS / "built"
MAX_STATUS = 111  # above that, the exit status would mean something else
KEYS = {
    "source",
    "file",
    "kind",
    "description",
    "devices",
    "expect",
    "expect_regex",
    "status",
    "input",
    "append",
    "args",
}

needs_nasm = pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed")


def load_build() -> ModuleType:
    """guests/build.py, which is a script beside the sources and no part of a package."""
    spec = importlib.util.spec_from_file_location("guests_build", GUESTS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build()
IMAGES: dict[str, dict[str, Any]] = build.images()
ENTRIES: dict[str, dict[str, Any]] = build.load_manifest()["guest"]

each_image = pytest.mark.parametrize("name", IMAGES)
each_guest = pytest.mark.parametrize("name", ENTRIES)


@needs_nasm
@each_image
def test_the_committed_image_is_what_its_source_gives(name: str, tmp_path: Path) -> None:
    image = IMAGES[name]
    target = tmp_path / image["file"]
    build.build(image["source"], target)
    assert target.read_bytes() == (BUILT / image["file"]).read_bytes(), "run guests/build.py"


@needs_nasm
def test_check_names_the_image_that_its_source_does_not_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(BUILT, tmp_path / "built")
    (tmp_path / "built" / "hello.bin").write_bytes(b"stale")
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    assert build.main(["--check"]) == 1
    errors = capsys.readouterr().err
    assert [line.split()[0] for line in errors.splitlines()] == ["built/hello.bin"]


@needs_nasm
def test_a_source_that_nasm_refuses_is_named_with_its_line(tmp_path: Path) -> None:
    source = tmp_path / "broken.asm"
    source.write_text("bits 16\nno such thing\n")
    with pytest.raises(build.BuildError, match=r"broken\.asm:2"):
        build.build(str(source), tmp_path / "broken.bin")


@needs_nasm
def test_the_example_of_the_docs_builds(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "guests.md").read_text()
    (example,) = re.findall(r"```nasm\n(.*?)```", text, re.DOTALL)
    source = tmp_path / "mine.asm"
    source.write_text(example)
    build.build(str(source), tmp_path / "mine.bin")
    assert len(example.splitlines()) == 5


def test_the_docs_list_every_guest() -> None:
    text = (ROOT / "docs" / "guests.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(ENTRIES)


def test_without_nasm_the_build_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main(["--check"]) == 1
    assert "apt install nasm" in capsys.readouterr().err


def test_every_source_is_in_the_manifest_and_every_image_has_a_source() -> None:
    sources = {path.name for path in GUESTS.glob("*.asm")} | {"bios/bios.asm"}
    assert {image["source"] for image in IMAGES.values()} == sources
    built = {path.name for path in BUILT.iterdir()}
    assert {image["file"] for image in IMAGES.values()} == built


@each_guest
def test_a_guest_says_what_it_must_print_and_how_it_must_end(name: str) -> None:
    entry = ENTRIES[name]
    assert set(entry) <= KEYS
    assert entry["description"]
    assert ("expect" in entry) != ("expect_regex" in entry)
    assert entry.get("expect") or re.compile(entry["expect_regex"])
    status = entry["status"]
    assert status in ("crash", "halted") or 0 <= status <= MAX_STATUS


@each_guest
def test_a_guest_uses_devices_that_the_machine_has(name: str) -> None:
    known = {wiring.name for wiring in PC_BOARD}
    devices = set(ENTRIES[name]["devices"])
    assert devices
    assert devices <= known


@each_guest
def test_a_guest_ends_itself_only_with_an_exit_device(name: str) -> None:
    entry = ENTRIES[name]
    assert ("exit" in entry["devices"]) == isinstance(entry["status"], int)


@each_guest
def test_the_client_takes_a_guest_for_what_it_is(name: str) -> None:
    entry = ENTRIES[name]
    image = (BUILT / entry["file"]).read_bytes()
    assert detect_kind(image) is ImageKind(entry["kind"])


def test_the_boot_sector_is_one_sector() -> None:
    image = (BUILT / "boot_sector.bin").read_bytes()
    assert len(image) == 512
    assert image.endswith(b"\x55\xaa")


def test_the_bios_fills_its_segment_and_starts_with_a_far_jump() -> None:
    image = (BUILT / "bios.rom").read_bytes()
    assert len(image) == 0x10000
    assert image[0xFFF0] == 0xEA
    assert image[0xFFF3:0xFFF5] == b"\x00\xf0"  # to segment F000h


def test_the_rom_fills_its_segment_and_starts_with_a_near_jump() -> None:
    image = (BUILT / "rom.rom").read_bytes()
    assert len(image) == 0x10000
    assert image[0xFFF0] == 0xE9


def test_the_bios_can_be_entered_where_every_bios_can() -> None:
    image = (BUILT / "bios.rom").read_bytes()
    assert image[0xE05B:0xE060] == image[0xFFF0:0xFFF5]
