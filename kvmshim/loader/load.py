"""Reads images and plans how to boot them; :mod:`kvmshim.loader.detect` tells them apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from kvmshim.files import read_file
from kvmshim.loader import protected, realmode, registers
from kvmshim.loader.detect import detect
from kvmshim.loader.plan import FOUR_GIB, BootPlan, ImageKind
from kvmshim.loader.registers import Setting
from kvmshim.loader.request import Module, Request
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
    modules: Iterable[tuple[Path, str]] = (),
    settings: tuple[Setting, ...] = (),
    screen: bool = False,
) -> BootPlan:
    """Reads the image file ``path`` and plans how to boot it; see :func:`plan_image`.

    ``modules`` are read too: files, and what follows the name of each.
    """
    over = f"the machine's memory {format_size(memory_bytes)}; give the machine more memory"
    data = read_file(Path(path), "cannot boot", max(memory_bytes, _READ_ANYWAY_BYTES), over)
    read = tuple(
        Module(str(file), read_file(file, "cannot load the module", memory_bytes, over), text)
        for file, text in modules
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
        modules=read,
        settings=settings,
        screen=screen,
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
    modules: tuple[Module, ...] = (),
    settings: tuple[Setting, ...] = (),
    screen: bool = False,
) -> BootPlan:
    """Plans how to boot the image ``data``, called ``name`` in errors, in a machine's memory.

    ``kind`` overrides the detection, and is still checked. ``load_address`` and
    ``entry`` are physical; a kind that has its own refuses them. ``append`` follows the image's
    file name on a multiboot command line. ``bios`` is whether to start through the bundled BIOS:
    by default boot sectors do, and nothing else. ``modules`` go to a multiboot kernel, ``settings``
    are registers at its start. ``screen`` says that the output is a terminal, which the BIOS may
    send control sequences. Raises :class:`InputError`, one line long.
    """
    request = Request(
        name=name,
        memory_bytes=memory_bytes,
        load_address=load_address,
        entry=entry,
        append=append,
        bios=bios,
        modules=modules,
        screen=screen,
    )
    if not data:
        raise request.refuse("it is empty", "give an image with something in it")
    for what, value in (("load address", load_address), ("entry", entry)):
        if value is not None and not 0 <= value < FOUR_GIB:
            raise request.refuse(f"{what} {value:#x} is not a 32-bit address", "correct it")
    guess = detect(data) if kind is None else None
    chosen = guess.kind if guess else _parse_kind(kind or "", request)
    if chosen not in (ImageKind.MULTIBOOT, ImageKind.MULTIBOOT2):
        request.check_modules_absent(f"an image of kind {chosen}")
    plan = _PLANNERS[chosen](data, request)
    if settings:
        if plan.bios:
            why = f"{settings[0].where}: the BIOS sets the registers before the image starts"
            raise request.refuse(why, "leave out [registers], or the BIOS with bios = false")
        registers.check(settings, plan.start.mode, name)
    start = replace(plan.start, registers=settings)
    return replace(plan, guess=guess, start=start)


def _parse_kind(kind: ImageKind | str, request: Request) -> ImageKind:
    try:
        return ImageKind(kind)
    except ValueError:
        known = ", ".join(ImageKind)
        raise request.refuse(f"{kind!r} is no kind of image", f"use one of {known}") from None


_PLANNERS: dict[ImageKind, Callable[[bytes, Request], BootPlan]] = {
    ImageKind.FLAT: realmode.plan_flat,
    ImageKind.BOOT_SECTOR: realmode.plan_boot_sector,
    ImageKind.ROM: realmode.plan_rom,
    ImageKind.ELF32: protected.plan_elf32,
    ImageKind.ELF64: protected.plan_elf64,
    ImageKind.MULTIBOOT: protected.plan_multiboot,
    ImageKind.MULTIBOOT2: protected.plan_multiboot2,
    ImageKind.FLAT32: protected.plan_flat32,
    ImageKind.FLAT64: protected.plan_flat64,
}
