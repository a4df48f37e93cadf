"""The guests and the BIOS that come with the package."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kvmshim.errors import InputError

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class BundledGuest:
    """A guest of the manifest: its built image, and what it is to print and do."""

    name: str
    path: Path
    description: str
    manifest: dict[str, Any] = field(repr=False)


def guests_folder() -> Path:
    """Where the guests are: inside an installed package, beside it in a source tree."""
    installed = _HERE / "_guests"
    return installed if installed.is_dir() else _HERE.parent / "guests"


@cache
def guests() -> dict[str, BundledGuest]:
    """Every bundled guest by name."""
    folder = guests_folder()
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    return {
        name: BundledGuest(name, folder / "built" / entry["file"], entry["description"], entry)
        for name, entry in manifest["guest"].items()
    }


def find_guest(name: str) -> BundledGuest:
    """The bundled guest ``name``; raises :class:`InputError` naming the nearest one."""
    known = guests()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
    raise InputError(f"no bundled guest and no file is named '{name}'; {hint}")


def bios_image() -> bytes:
    """The bundled BIOS's ROM image."""
    return (guests_folder() / "built" / "bios.rom").read_bytes()
