"""What was asked of the loader, and the checks that every kind of image shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kvmshim.errors import InputError
from kvmshim.units import format_size


class Extent(NamedTuple):
    """A range of guest-physical memory."""

    address: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.address + self.size_bytes

    def __str__(self) -> str:
        return f"{self.address:#x}-{self.end - 1:#x}"


class Module(NamedTuple):
    """A file that a multiboot kernel is handed: its name, its bytes, what follows the name."""

    name: str
    data: bytes
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An image's name, the memory of the machine it is for, and what the user asked for it."""

    name: str
    memory_bytes: int
    load_address: int | None = None
    entry: int | None = None
    append: str = ""
    bios: bool | None = None
    modules: tuple[Module, ...] = ()
    screen: bool = False

    def refuse(self, why: str, remedy: str) -> InputError:
        """The error that says this image can't be booted; for the caller to raise."""
        return InputError(f"cannot boot {self.name!r}: {why}; {remedy}")

    def check_load_address_absent(self, what: str) -> None:
        """Refuses a load address for an image that brings its own."""
        if self.load_address is not None:
            raise self.refuse(
                f"load address {self.load_address:#x} was given, but {what}",
                "leave out the load address",
            )

    def check_append_absent(self, what: str) -> None:
        """Refuses a command line that nobody would receive."""
        if self.append:
            raise self.refuse(
                f"text was given to append to the command line, but {what} receives none",
                "leave out --append, or build a multiboot image",
            )

    def check_modules_absent(self, what: str) -> None:
        """Refuses modules that nobody would be told of."""
        if self.modules:
            raise self.refuse(
                f"module '{self.modules[0].name}' was given, but {what} receives none",
                "leave out the modules, or build a multiboot image",
            )

    def check_bios_absent(self, what: str) -> None:
        """Refuses the BIOS for an image that starts without one."""
        if self.bios:
            raise self.refuse(f"the BIOS was asked for, but {what}", "leave it out")

    def check_memory(self, extents: Iterable[Extent], remedy: str) -> None:
        """Refuses extents that leave memory or overlap one another."""
        before: Extent | None = None
        for extent in sorted(extents):
            if extent.end > self.memory_bytes:
                raise self.refuse(
                    f"it needs memory at {extent}, the machine has "
                    f"{format_size(self.memory_bytes)} ({self.memory_bytes:#x} bytes)",
                    f"{remedy} or give the machine more memory",
                )
            if before is not None and extent.address < before.end:
                raise self.refuse(f"it loads {before} and {extent}, which overlap", remedy)
            before = extent

    def check_entry(self, entry: int, extents: Iterable[Extent]) -> int:
        """Returns ``entry`` if an image's bytes lie there; refuses it otherwise."""
        known = list(extents)
        if any(extent.address <= entry < extent.end for extent in known):
            return entry
        places = ", ".join(str(extent) for extent in known[:4]) + (", ..." if known[4:] else "")
        raise self.refuse(
            f"entry {entry:#x} lies outside what is loaded ({places})", "correct the entry"
        )
