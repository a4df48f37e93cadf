"""Runs a list of port accesses and waits on a PC of QEMU's, and tells what it saw.

QEMU's test accelerator would step the clock for us, but distributions leave it out of their
packages. Any QEMU counts instructions, though: with ``-icount`` each takes 2**shift ns of virtual
time. So the steps become a program of a few instructions each, in the ROM that the processor
starts in. The program notes the time stamp counter (virtual time, exactly) and what it reads in
memory, and sends all that out at its end. The interrupt lines come through QEMU's qtest protocol;
the program moves a line of the test device after each step, which tells the steps apart there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BINARIES = ("qemu-system-x86_64", "qemu-system-i386")
TIMEOUT_S = 20.0

MARKER_LINE = 11
_MARKER_PORT = 0x2000 + MARKER_LINE
_RESULT_PORT = 0x5E9
_END_PORT = 0xF4
_ROM_BYTES = 0x1_0000
_START = 0xFFF0
#: Instructions from the one that reads the time to the access, and on to the marker's first write.
_TO_ACCESS, _TO_MARKER = 6, 10
_RECORD = struct.Struct("<QI")


@dataclass(frozen=True)
class In:
    """An IN of 1, 2 or 4 bytes."""

    port: int
    size: int = 1


@dataclass(frozen=True)
class Out:
    """An OUT of 1, 2 or 4 bytes."""

    port: int
    value: int
    size: int = 1


@dataclass(frozen=True)
class Wait:
    """Nothing, for that much time (in whole instructions)."""

    span_ns: int


Step = In | Out | Wait


@dataclass
class Seen:
    """What a step did: the value that was read, and the interrupt lines behind it.

    ``at_ns`` is the VM time of the access, ``until_ns`` the time at which the lines were looked at.
    ``rises`` counts how often each line rose since the step before.
    """

    at_ns: int
    until_ns: int
    value: int | None = None
    levels: dict[int, bool] = field(default_factory=dict)
    rises: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """All that was seen, what the first serial port and the debug console sent, exit status.

    Nothing is seen when a step ended the machine before the last.
    """

    seen: list[Seen]
    serial: bytes
    console: bytes
    status: int


def run(steps: Sequence[Step], shift: int) -> Outcome:
    """Takes the steps on a fresh PC, on which an instruction takes 2**shift ns."""
    with tempfile.TemporaryDirectory(prefix="qemu-pc-") as name:
        folder = Path(name)
        (folder / "rom").write_bytes(_rom(steps, shift))
        lines, status = _run(folder, shift)
        results = (folder / "results").read_bytes()
        seen = _read_results(results, steps, shift) if results else []
        if seen:
            _fill_in_lines(seen, lines)
        serial, console = ((folder / name).read_bytes() for name in ("serial", "console"))
        return Outcome(seen, serial, console, status)


# -- the program ------------------------------------------------------------------------------


def _rom(steps: Sequence[Step], shift: int) -> bytes:
    note_time = b"\x0f\x31" + b"\x66\xab" + b"\x66\x92" + b"\x66\xab"  # rdtsc, stosd edx:eax
    mark = b"\xba" + struct.pack("<H", _MARKER_PORT) + b"\xb0\x01\xee" + b"\xb0\x00\xee"
    store = b"\x66\xab"  # stosd
    code = b"\xb8\x00\x10\x8e\xc0\x8e\xd8\x31\xff\xfc"  # data at 1000h:0, going up
    for step in steps:
        if isinstance(step, Wait):
            loops = max(1, (step.span_ns >> shift) - 20)
            code += b"\x66\xb9" + struct.pack("<I", loops) + b"\x67\xe2\xfd"
        code += note_time + _access(step) + store + mark
    code += b"\xba" + struct.pack("<H", _RESULT_PORT) + b"\x89\xf9\x31\xf6\xf3\x6e"  # rep outsb
    code += b"\xba" + struct.pack("<H", _END_PORT) + b"\xb0\x00\xee" + b"\xeb\xfe"
    assert len(code) < _START, "too many steps"
    jump = b"\xe9" + struct.pack("<H", -(_START + 3) & 0xFFFF)
    return (code.ljust(_START, b"\xf4") + jump).ljust(_ROM_BYTES, b"\xf4")


def _access(step: Step) -> bytes:
    """Three instructions, with the value that was read left in EAX."""
    match step:
        case In(port, size):
            code = {1: b"\xec", 2: b"\xed", 4: b"\x66\xed"}[size]
            return b"\xba" + struct.pack("<H", port) + b"\x66\x31\xc0" + code
        case Out(port, value, size):
            code = {1: b"\xee", 2: b"\xef", 4: b"\x66\xef"}[size]
            return b"\xba" + struct.pack("<H", port) + b"\x66\xb8" + struct.pack("<I", value) + code
        case Wait():
            return b"\x90\x90\x90"


# -- the run ----------------------------------------------------------------------------------


def _run(folder: Path, shift: int) -> tuple[list[str], int]:
    """Returns the messages about interrupt lines, and QEMU's exit status."""
    binary = next(filter(None, map(shutil.which, BINARIES)))
    arguments = [
        *(binary, "-M", "pc,hpet=off", "-m", "2", "-bios", str(folder / "rom"), "-S"),
        *("-accel", "tcg", "-icount", f"shift={shift},sleep=off"),
        *("-display", "none", "-nodefaults", "-no-user-config", "-qtest-log", "/dev/null"),
        *("-rtc", "base=2024-02-28T23:59:58,clock=vm"),
        *("-qtest", f"unix:{folder / 'qtest'}", "-qmp", f"unix:{folder / 'qmp'}"),
        *("-device", "pc-testdev", "-serial", f"file:{folder / 'serial'}"),
        *("-chardev", f"file,id=console,path={folder / 'console'}"),
        *("-device", "isa-debugcon,chardev=console,iobase=0xe9"),
        *("-chardev", f"file,id=results,path={folder / 'results'}"),
        *("-device", f"isa-debugcon,chardev=results,iobase={_RESULT_PORT:#x}"),
        *("-device", f"isa-debug-exit,iobase={_END_PORT:#x},iosize=4"),
    ]
    with (
        _listen(folder / "qtest") as qtest_listener,
        _listen(folder / "qmp") as qmp_listener,
        _process(arguments) as process,
        qtest_listener.accept()[0] as qtest,
        qmp_listener.accept()[0] as qmp,
    ):
        messages = _start(qtest, qmp)
        return messages, process.wait(TIMEOUT_S)


def _start(qtest: socket.socket, qmp: socket.socket) -> list[str]:
    """Lets the program run, to its end; returns what is told of interrupt lines."""
    qtest.settimeout(TIMEOUT_S)
    qtest.sendall(b"irq_intercept_in ioapic\n")
    with qtest.makefile("r") as lines:
        assert lines.readline() == "OK\n"
        for command in ("qmp_capabilities", "cont"):
            qmp.sendall(json.dumps({"execute": command}).encode())
        return [line.strip() for line in lines]


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(TIMEOUT_S)
    listener.bind(str(path))
    listener.listen(1)
    return listener


@contextlib.contextmanager
def _process(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


# -- the results ------------------------------------------------------------------------------


def _read_results(data: bytes, steps: Sequence[Step], shift: int) -> list[Seen]:
    seen = []
    for step, (stamp_ns, value) in zip(steps, _RECORD.iter_unpack(data), strict=True):
        at_ns, until_ns = (stamp_ns + (count << shift) for count in (_TO_ACCESS, _TO_MARKER))
        seen.append(Seen(at_ns, until_ns, value if isinstance(step, In) else None))
    return seen


def _fill_in_lines(seen: list[Seen], messages: Sequence[str]) -> None:
    levels: dict[int, bool] = {}
    rises: dict[int, int] = {}
    at = iter(seen)
    for message in messages:
        _, change, line = message.split()
        high = change == "raise"
        if int(line) == MARKER_LINE:
            if high:
                entry = next(at)
                entry.levels, entry.rises, rises = dict(levels), rises, {}
            continue
        levels[int(line)] = high
        rises[int(line)] = rises.get(int(line), 0) + high
