"""Registers that a machine file sets before the first instruction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from kvmshim.errors import InputError

#: The modes in which a processor can start, by the widest register that each has.
REAL: Final = "real"
PROTECTED: Final = "protected32"
LONG: Final = "long64"
_MODE_NAMES = {REAL: "real mode", PROTECTED: "32-bit protected mode", LONG: "64-bit mode"}
_ALWAYS_SET = 1 << 1
#: Bits of RFLAGS that a processor does not let a program set (Intel SDM volume 1, 3.4.3).
FLAGS_RESERVED = ~0x3F_7FD7 & (1 << 64) - 1
_SEGMENT_SHIFT = 4


class Name(NamedTuple):
    """``bits`` of KVM's register ``field`` from bit ``shift`` on; a segment has no ``bits``."""

    field: str
    bits: int
    shift: int = 0
    segment: bool = False

    @property
    def most(self) -> int:
        """The largest value."""
        return (1 << (16 if self.segment else self.bits)) - 1

    @property
    def mask(self) -> int:
        """The bits that it has of its field."""
        return self.most << self.shift


def _names() -> dict[str, Name]:
    names: dict[str, Name] = {}
    for letter in "abcd":
        names[f"{letter}l"] = Name(f"r{letter}x", 8)
        names[f"{letter}h"] = Name(f"r{letter}x", 8, 8)
    for base in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"):
        names |= {f"{p}{base}": Name(f"r{base}", bits) for p, bits in _WIDTHS}
    for number in range(8, 16):
        names[f"r{number}"] = Name(f"r{number}", 64)
    names |= {f"{p}flags": Name("rflags", bits) for p, bits in _WIDTHS}
    for segment in ("cs", "ds", "es", "fs", "gs", "ss"):
        names[segment] = Name(segment, 0, segment=True)
    return names


_WIDTHS = (("", 16), ("e", 32), ("r", 64))
#: Every register that can be set.
NAMES = _names()


class Setting(NamedTuple):
    """A register and its value; ``where`` says who asked for it ('machine.toml:7')."""

    name: str
    value: int
    where: str


def check(settings: Iterable[Setting], mode: str, image: str) -> None:
    """Raises :class:`InputError` for registers that the mode in which an image starts has not."""
    for setting in settings:
        name = NAMES[setting.name]
        if name.segment and mode != REAL:
            why = "segments are set in real mode only"
        elif name.bits == 64 and mode != LONG:
            why = "it has 64 bits"
        else:
            continue
        raise InputError(
            f"{setting.where}: {setting.name!r} in [registers]: {why}, and {image!r} starts in "
            f"{_MODE_NAMES[mode]}; {_remedy(setting.name, name)}"
        )


def _remedy(text: str, name: Name) -> str:
    if name.segment or not (narrow := text.removeprefix("r")).isalpha():
        return "leave it out"
    return f"set 'e{narrow}'"


def conflict(name: str, others: Iterable[str]) -> str | None:
    """Which of ``others`` has bits of the same register as ``name``."""
    mine = NAMES[name]
    for other in others:
        theirs = NAMES[other]
        if other != name and mine.field == theirs.field and mine.mask & theirs.mask:
            return other
    return None


def apply(settings: Iterable[Setting], regs: Any, sregs: Any) -> None:
    """Puts the values into a ``struct kvm_regs`` and a ``struct kvm_sregs``."""
    for setting in settings:
        name = NAMES[setting.name]
        if name.segment:
            segment = getattr(sregs, name.field)
            segment.selector, segment.base = setting.value, setting.value << _SEGMENT_SHIFT
            continue
        before = int(getattr(regs, name.field))
        setattr(regs, name.field, before & ~name.mask | setting.value << name.shift)
    regs.rflags |= _ALWAYS_SET
