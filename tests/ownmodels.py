"""Device models as a user writes them, in files of their own."""

from __future__ import annotations

from pathlib import Path

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


def resetter(folder: Path) -> Path:
    """A file with the model ``resetter``: a write to it asks for the machine's reset."""
    return _write(folder / "resetter.py", _RESETTER)


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
