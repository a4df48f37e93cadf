"""Image files that can't be read, each refused with one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from images import CODE

from kvmshim.errors import InputError
from kvmshim.loader import Segment, load_image

MEMORY_BYTES = 1 << 20


def refusal(path: Path | str) -> str:
    with pytest.raises(InputError) as refused:
        load_image(path, memory_bytes=MEMORY_BYTES)
    line = str(refused.value)
    assert line.startswith(f"cannot boot {str(path)!r}: ")
    assert "\n" not in line
    return line


def test_an_image_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(CODE)
    plan = load_image(tmp_path / "guest.bin", memory_bytes=MEMORY_BYTES)
    assert plan.segments == (Segment(0x7C00, CODE),)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    assert "no such file; check the path" in refusal(tmp_path / "absent")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "it is a directory" in refusal(tmp_path)


def test_an_empty_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "it is empty" in refusal(tmp_path / "empty")


def test_a_named_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CODE)
    (tmp_path / "secret").chmod(0)
    assert "may not be read" in refusal(tmp_path / "secret")


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert "it has 1024 GiB, the machine's memory 1 MiB" in refusal(tmp_path / "huge")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "loop\nline"])
def test_a_strange_path_is_refused_in_one_line(path: str) -> None:
    refusal(path)
