"""Runs random programs of accesses, and keeps what each run showed for a comparison."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from commandline import AT_MOST_S
from library import spec_of
from random_program import DUMP, Program

from kvmshim.vmm.assemble import machine_for

PIT_COUNTS_PER_NS = 105 / 88_000
#: What the kernel's clock and the exits' marks may differ by, in counts.
SLACK_COUNTS = 64


@dataclass(frozen=True)
class History:
    """What one run of a program showed."""

    output: dict[str, bytes]
    read: bytes
    interrupts: bytes
    lasted_ns: int
    leased: int
    posted: int

    def of_kind(self, program: Program, kind: str) -> bytes:
        pairs = zip(self.read, program.kinds, strict=True)
        return bytes(value for value, other in pairs if other == kind)


def run_program(
    program: Program, folder: Path, *, strict: bool, hypervisor: str = "kvm"
) -> History:
    """Runs a program to its end."""
    image = folder / "program.bin"
    image.write_bytes(program.code)
    spec = dataclasses.replace(spec_of(image), strict=strict, hypervisor=hypervisor)
    output: dict[str, bytes] = {}

    def take(device: str, channel: str, data: bytes) -> None:
        output[f"{device}.{channel}"] = output.get(f"{device}.{channel}", b"") + data

    with machine_for(spec) as machine:
        machine.feed("com1", b"fed")
        result = machine.run(timeout_s=AT_MOST_S, output=take, trace_exits=100_000)
    assert result.exit_status == 0, result.message
    said, dump = output["debugcon.tx"].split(DUMP)
    link = result.stats["link (embedded)"]
    return History(
        output={**output, "debugcon.tx": said},
        read=dump[: len(program.kinds)],
        interrupts=dump[len(program.kinds) :],
        lasted_ns=result.trace[-1][0] - result.trace[0][0],
        leased=result.stats["vcpu"]["leased"],
        posted=link["posted"],
    )


def counts(program: Program, history: History) -> list[int]:
    """The counter's values, as the guest read them."""
    low, high = history.of_kind(program, "low"), history.of_kind(program, "high")
    return [a | b << 8 for a, b in zip(low, high, strict=True)]


def sources(program: Program, history: History) -> list[int]:
    """What the serial port's interrupt was, but for whether bytes had waited for long."""
    return [value & ~0x08 for value in history.of_kind(program, "source")]


def assert_it_ran_down(program: Program, history: History) -> None:
    """All steps down are no more than the time allows; a step up would be nearly a turn."""
    fell = sum((a - b) % 0x10000 for a, b in pairwise(counts(program, history)))
    assert fell <= history.lasted_ns * PIT_COUNTS_PER_NS + SLACK_COUNTS
