"""Device models as a user writes them, in files of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from devserver.machine.board import DeviceWiring
from kvmshim.machinefile.spec import DeviceSpec, MachineSpec

#: Where the adder's register is, of a machine that has no more memory than real mode reaches.
ABOVE_1_MIB = 1 << 20

_HEAD = """\
from dataclasses import dataclass

from devserver.models import Access, Device, Region, Register

"""

_DICE = (
    _HEAD
    + """
class Dice(Device):
    '''Rolls a die on each read.'''

    kind = "dice"
    regions = (
        Region(
            name="io",
            size=1,
            registers=(Register(offset=0, name="ROLL", access=Access.RO),),
        ),
    )

    @dataclass
    class State:
        seed: int = 1

    def read_roll(self, now_ns):
        self.state.seed = self.state.seed * 1103515245 + 12345 & 0x7FFFFFFF
        return self.state.seed % 6 + 1
"""
)
#: What a fresh die shows, roll by roll: a linear congruential generator's first values, modulo 6.
ROLLS = (1, 4, 5, 2)

_LOADED = _DICE.replace('"dice"', '"loaded"').replace(
    "return self.state.seed % 6 + 1", 'raise ValueError("it rolled off the table")'
)

_ADDER = """\
from dataclasses import dataclass

from devserver.models import Device, Policy, Region, Register, Space


class Adder(Device):
    '''Adds up what is written to it.'''

    kind = "adder"
    regions = (
        Region(
            name="io",
            size=4,
            space=Space.MEMORY,
            registers=(Register(offset=0, name="SUM", policy=Policy.COALESCED),),
        ),
    )

    @dataclass
    class State:
        sum: int = 0

    def read_sum(self, now_ns):
        return self.state.sum

    def write_sum(self, value, now_ns):
        self.state.sum = self.state.sum + value & 0xFF
"""

_RESETTER = """\
from devserver.models import Access, Device, Region, Register, Signal


class Resetter(Device):
    '''Resets the machine when it is written to.'''

    kind = "resetter"
    regions = (
        Region(
            name="io",
            size=1,
            registers=(Register(offset=0, name="RESET", access=Access.WO),),
        ),
    )

    def write_reset(self, value, now_ns):
        self.signal(Signal.RESET)
"""


def dice(folder: Path) -> Path:
    """A file with the model ``dice``: each read gives the next of :data:`ROLLS`."""
    return _write(folder / "dice.py", _DICE)


def loaded_dice(folder: Path) -> tuple[Path, int]:
    """A file with the model ``loaded``, whose read raises, and the line that does."""
    line = 1 + _LOADED[: _LOADED.index("raise ")].count("\n")
    return _write(folder / "loaded.py", _LOADED), line


def adder(folder: Path) -> Path:
    """A file with the model ``adder``, whose register is in memory and may be coalesced."""
    return _write(folder / "adder.py", _ADDER)


def with_adder(spec: MachineSpec, placement: str, policy: str = "") -> MachineSpec:
    """A machine with an adder above its one MiB of memory."""
    policies = {"SUM": policy} if policy else {}
    wiring = DeviceWiring(
        name="adder", kind="adder", bases={"": ABOVE_1_MIB}, lines={}, policies=policies
    )
    devices = (*spec.devices, DeviceSpec(wiring=wiring, placement=placement))
    return dataclasses.replace(spec, memory_bytes=ABOVE_1_MIB, devices=devices)


def add_in_memory(values: Iterable[int]) -> bytes:
    """Real-mode code that writes to the adder, and reads the sum into AL."""
    code = b"\xb8\xff\xff\x8e\xd8"  # mov ax, ffff; mov ds, ax
    for value in values:
        code += b"\xc6\x06\x10\x00" + bytes([value])  # mov byte [0010], value
    return code + b"\xa0\x10\x00"  # mov al, [0010]


def resetter(folder: Path) -> Path:
    """A file with the model ``resetter``: a write to it asks for the machine's reset."""
    return _write(folder / "resetter.py", _RESETTER)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
