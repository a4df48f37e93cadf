"""Reads images and plans how to boot them; :mod:`kvmshim.loader.detect` tells them apart."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kvmshim.files import read_file
from kvmshim.loader import elf, multiboot, realmode
from kvmshim.loader.detect import detect
from kvmshim.loader.plan import FOUR_GIB, BootPlan, ImageKind, ProtectedStart
from kvmshim.loader.request import Request
from kvmshim.units import format_size

#: Files above this, and above the machine's memory, are not even read. Below it, they may be larger
#: than memory and fit all the same: an ELF file with debug information.
_READ_ANYWAY_BYTES = 64 << 20


def load_image(
    path: str | os.PathLike[str],
    *,
    memory_bytes: int,
    kind: ImageKind | str | None = None,
    load_address: int | None = None,
    entry: int | None = None,
    append: str = "",
    bios: bool | None = None,
) -> BootPlan:
    """Reads the image file ``path`` and plans how to boot it; see :func:`plan_image`."""
    data = read_file(
        Path(path),
        "cannot boot",
        max(memory_bytes, _READ_ANYWAY_BYTES),
        f"the machine's memory {format_size(memory_bytes)}; give the machine more memory",
    )
    return plan_image(
        data,
        str(path),
        memory_bytes=memory_bytes,
        kind=kind,
        load_address=load_address,
        entry=entry,
        append=append,
        bios=bios,
    )


def plan_image(
    data: bytes,
    name: str,
    *,
    memory_bytes: int,
    kind: ImageKind | str | None = None,
    load_address: int | None = None,
    entry: int | None = None,
    append: str = "",
    bios: bool | None = None,
) -> BootPlan:
    """Plans how to boot the image ``data``, called ``name`` in errors, in a machine's memory.

    ``kind`` overrides the detection, and is still checked. ``load_address`` and
    ``entry`` are physical; a kind that has its own refuses them. ``append`` follows the image's
    file name on a multiboot command line. ``bios`` is whether to start through the bundled BIOS:
    by default boot sectors do, and nothing else. Raises :class:`InputError`, one line long.
    """
    request = Request(
        name=name,
        memory_bytes=memory_bytes,
        load_address=load_address,
        entry=entry,
        append=append,
        bios=bios,
    )
    if not data:
        raise request.refuse("it is empty", "give an image with something in it")
    for what, value in (("load address", load_address), ("entry", entry)):
        if value is not None and not 0 <= value < FOUR_GIB:
            raise request.refuse(f"{what} {value:#x} is not a 32-bit address", "correct it")
    guess = detect(data) if kind is None else None
    chosen = guess.kind if guess else _parse_kind(kind or "", request)
    return replace(_PLANNERS[chosen](data, request), guess=guess)


def _parse_kind(kind: ImageKind | str, request: Request) -> ImageKind:
    try:
        return ImageKind(kind)
    except ValueError:
        known = ", ".join(ImageKind)
        raise request.refuse(f"{kind!r} is no kind of image", f"use one of {known}") from None


def _plan_elf(data: bytes, request: Request) -> BootPlan:
    if not elf.is_elf(data):
        raise request.refuse("it is no ELF file", "leave out the kind or choose flat")
    request.check_append_absent("an ELF file without a multiboot header")
    _check_protected(request)
    image = elf.parse_elf(data, request)
    return BootPlan(
        name=request.name,
        kind=ImageKind.ELF32,
        segments=image.segments,
        start=ProtectedStart(eip=image.entry),
    )


def _plan_multiboot(data: bytes, request: Request) -> BootPlan:
    header = multiboot.find_header(data)
    if header is None:
        raise request.refuse(
            f"it has no multiboot header in its first {multiboot.SEARCH_BYTES} bytes",
            "add one or choose another kind",
        )
    _check_protected(request)
    image = multiboot.parse_multiboot(data, header, request)
    information = multiboot.information(image.segments, request)
    return BootPlan(
        name=request.name,
        kind=ImageKind.MULTIBOOT,
        segments=(*image.segments, information),
        information=information,
        start=ProtectedStart(
            eip=image.entry, eax=multiboot.BOOTLOADER_MAGIC, ebx=information.address
        ),
    )


def _check_protected(request: Request) -> None:
    request.check_load_address_absent("the image says itself where it goes")
    request.check_bios_absent("this image starts in protected mode, where a BIOS is of no use")


_PLANNERS: dict[ImageKind, Callable[[bytes, Request], BootPlan]] = {
    ImageKind.FLAT: realmode.plan_flat,
    ImageKind.BOOT_SECTOR: realmode.plan_boot_sector,
    ImageKind.ROM: realmode.plan_rom,
    ImageKind.ELF32: _plan_elf,
    ImageKind.MULTIBOOT: _plan_multiboot,
}
