"""Peers: the same accesses of the same kind of guest to another machine's own serial port."""

from __future__ import annotations

import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from kvmshim.bundled import guests_folder
from kvmshim.errors import HostError

_QEMU = "qemu-system-x86_64"
#: Where the boot sector has its numbers (guests/bench_peer.asm).
_PARAMETERS_AT = 0x1F4
_ROUNDS = 22
_WARM_UP = 2
_DEADLINE_S = 30.0
_LAST = "."


def find_qemu() -> str | None:
    """The emulator's path, if it is installed."""
    return shutil.which(_QEMU)


def qemu_accesses(qemu: str, count: int) -> tuple[list[float], list[float]]:
    """ns of an IN of the line status, and of an OUT of a character, under ``-accel kvm``.

    The guest says on its debug console when a block of accesses begins and ends, so that the time
    is taken inside one run; a sample is the mean of a block. Raises HostError.
    """
    block = max(200, count)
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        image.write(_boot_sector(block, _ROUNDS))
        image.flush()
        marks = _run(_command(qemu, image.name))
    wanted = "IO" * _ROUNDS + _LAST
    if "".join(mark for mark, _ in marks) != wanted:
        raise HostError(f"{_QEMU} did not run the benchmark's boot sector to its end")
    spans = [(mark, (later - at) / block) for (mark, at), (_, later) in pairwise(marks)][
        2 * _WARM_UP :
    ]
    return [ns for mark, ns in spans if mark == "I"], [ns for mark, ns in spans if mark == "O"]


def _boot_sector(block: int, rounds: int) -> bytes:
    image = bytearray(Path(guests_folder() / "built" / "bench_peer.bin").read_bytes())
    struct.pack_into("<II", image, _PARAMETERS_AT, block, rounds)
    return bytes(image)


def _command(qemu: str, image: str) -> list[str]:
    drive = f"if=ide,index=0,format=raw,snapshot=on,file={image}"
    return [
        *(qemu, "-accel", "kvm", "-machine", "pc", "-m", "16M", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-drive", drive, "-boot", "c", "-no-reboot"),
        *("-chardev", "null,id=line", "-serial", "chardev:line"),
        *("-chardev", "stdio,id=marks,signal=off", "-device", "isa-debugcon,chardev=marks"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
    ]


def _run(command: list[str]) -> list[tuple[str, int]]:
    """The marks that the guest makes, each with the time (ns) when it came."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    marks: list[tuple[str, int]] = []
    end_s = time.monotonic() + _DEADLINE_S
    try:
        while not marks or marks[-1][0] != _LAST:
            left_s = max(0.0, end_s - time.monotonic())
            if not select.select([process.stdout], [], [], left_s)[0]:
                break
            byte = os.read(process.stdout.fileno(), 1)
            if not byte:
                break
            marks.append((byte.decode("latin-1"), time.monotonic_ns()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return marks
