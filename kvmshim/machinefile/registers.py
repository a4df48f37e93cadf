"""A key of ``[registers]``: a register's name and value, checked as far as the file tells."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from kvmshim.loader.registers import FLAGS_RESERVED, NAMES, Setting, conflict
from kvmshim.machinefile.convert import BadValue


def setting(name: str, value: int, where: str, before: Iterable[Setting]) -> Setting:
    """The setting that a key stands for; ``before`` are those that the file has already.

    Raises :class:`BadValue`.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see docs/machine-file.md for their names"
        raise BadValue(f"there is no such register; {hint}")
    register = NAMES[name]
    if value > register.most:
        raise BadValue(f"{value:#x} is more than the register can hold, {register.most:#x}")
    if register.field == "rflags" and value & FLAGS_RESERVED:
        raise BadValue(f"{value:#x} sets bits that are reserved ({value & FLAGS_RESERVED:#x})")
    other = conflict(name, (given.name for given in before))
    if other is not None:
        raise BadValue(f"{other!r} is part of the same register and is set already; leave one out")
    return Setting(name, value, where)
