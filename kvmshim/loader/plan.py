"""What a boot plan is made of: plain data that says what memory and the first vCPU are to hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from kvmshim.loader.registers import LONG, PROTECTED, REAL, Setting

#: Where the PC's BIOS puts a boot sector (IBM PC/AT Technical Reference, bootstrap loader).
BOOT_SECTOR_ADDRESS = 0x7C00
#: The first hard disk, as INT 13h numbers it; a BIOS hands the boot drive over in DL.
FIRST_HARD_DISK = 0x80

FOUR_GIB = 1 << 32
ONE_MIB = 1 << 20
#: End of conventional memory; what lies from here to 1 MiB is for adapters and the BIOS.
CONVENTIONAL_END = 0xA0000
#: The extended BIOS data area: the last KiB of conventional memory.
EBDA_ADDRESS = 0x9FC00
#: How much of a ROM is seen below 1 MiB too: what a PC has shadow memory for, C0000 to FFFFF.
SHADOW_BYTES = 256 << 10


class ImageKind(StrEnum):
    """What an image is; the values are the names that users write."""

    FLAT = "flat"
    BOOT_SECTOR = "boot-sector"
    ROM = "rom"
    ELF32 = "elf32"
    ELF64 = "elf64"
    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    FLAT32 = "flat32"
    FLAT64 = "flat64"


@dataclass(frozen=True)
class Segment:
    """``data`` at the guest-physical ``address``, followed by ``zero_bytes`` zeros."""

    address: int
    data: bytes = field(repr=False)
    zero_bytes: int = 0

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.address + len(self.data) + self.zero_bytes


@dataclass(frozen=True)
class Rom:
    """Read-only memory that ends at 4 GiB; its last part is also seen where it ends at 1 MiB.

    That is the ROM itself, read-only, or with ``shadowed`` a copy in RAM, as a PC's chipset has it
    once the firmware has switched its shadow memory on: firmware relocates itself to there.
    """

    data: bytes = field(repr=False)
    shadowed: bool = False

    @property
    def address(self) -> int:
        """Where the whole of it begins."""
        return FOUR_GIB - len(self.data)

    @property
    def low_data(self) -> bytes:
        """The part that is seen below 1 MiB too."""
        return self.data[-SHADOW_BYTES:]

    @property
    def low_address(self) -> int:
        """Where :attr:`low_data` begins."""
        return ONE_MIB - len(self.low_data)


@dataclass(frozen=True, kw_only=True)
class RealStart:
    """A vCPU in real mode. DS, ES, SS and their bases are 0, FLAGS is 2 (interrupts off).

    ``cs_base`` is apart from ``cs_selector`` because after a reset they disagree (Intel SDM
    volume 3, 'First Instruction Executed'). ``registers`` are set last of all.
    """

    cs_selector: int
    cs_base: int
    ip: int
    sp: int = 0
    edx: int = 0
    registers: tuple[Setting, ...] = ()
    mode: Literal["real"] = REAL

    def __str__(self) -> str:
        return f"in real mode at {self.cs_selector:04x}:{self.ip:04x}"


@dataclass(frozen=True, kw_only=True)
class ProtectedStart:
    """A vCPU in 32-bit protected mode: every segment 0 to 4 GiB, no paging, interrupts off.

    ``gdt`` is where the table lies from which the segments are, if there is one.
    """

    eip: int
    eax: int = 0
    ebx: int = 0
    esp: int = 0
    gdt: int | None = None
    registers: tuple[Setting, ...] = ()
    mode: Literal["protected32"] = PROTECTED

    def __str__(self) -> str:
        return f"in protected mode at {self.eip:#x}"


@dataclass(frozen=True, kw_only=True)
class LongStart:
    """A vCPU in 64-bit mode, with page tables at ``cr3``, SSE allowed, interrupts off."""

    rip: int
    rsp: int
    cr3: int
    gdt: int
    registers: tuple[Setting, ...] = ()
    mode: Literal["long64"] = LONG

    def __str__(self) -> str:
        return f"in 64-bit mode at {self.rip:#x}"


CpuStart = RealStart | ProtectedStart | LongStart

#: The processor's state after a reset: the first instruction is 16 bytes below 4 GiB. EDX holds
#: the processor's signature, family 6 here (Intel SDM volume 3, 'Processor State After Reset').
RESET_START = RealStart(cs_selector=0xF000, cs_base=0xFFFF_0000, ip=0xFFF0, edx=0x600)


@dataclass(frozen=True)
class Guess:
    """What an image was taken for, without being told.

    ``why`` says by what. ``others`` are kinds that it could have been too. ``note`` names a format
    that is none of these, if the image looks like one, and what to do with it.
    """

    kind: ImageKind
    why: str
    others: tuple[ImageKind, ...] = ()
    note: str = ""

    def lines(self) -> list[str]:
        """For people whose guest did not run."""
        text = f"the image was taken for kind '{self.kind}': {self.why}"
        if self.others:
            text += f"; it could be {' or '.join(f'--kind {kind}' for kind in self.others)}"
        return [text, *([f"the image {self.note}"] if self.note else [])]


@dataclass(frozen=True, kw_only=True)
class BootPlan:
    """Everything that loading an image means for a machine.

    ``segments`` go to memory, in any order: they fit it and don't overlap. ``information`` is the
    one of them that does not come from the image: what a multiboot kernel or the BIOS is told.
    ``rom`` is mapped read-only. ``bios`` asks for the bundled BIOS in the ROM area; the vCPU then
    starts in it and ``disk_image`` is the copy, at the top of memory, that INT 13h reads.
    ``around`` is what a loader leaves beside the image: modules, BIOS data, descriptors, page
    tables. ``guess`` is how the kind was found; None if it was given.
    """

    name: str
    kind: ImageKind
    start: CpuStart
    segments: tuple[Segment, ...] = ()
    information: Segment | None = None
    rom: Rom | None = None
    bios: bool = False
    disk_image: Segment | None = None
    around: tuple[Segment, ...] = ()
    guess: Guess | None = None

    def memory(self) -> Iterator[Segment]:
        """Every segment that memory is to hold, the disk image's copy included."""
        yield from self.segments
        yield from self.around
        if self.disk_image is not None:
            yield self.disk_image

    def describe(self) -> str:
        """One line for people: what the image is, where it goes and how it starts."""
        how = "through the BIOS" if self.bios else self.start
        return f"{self.name!r}: {self.kind} image, {self._where()}, starts {how}"

    def _where(self) -> str:
        if self.rom is not None:
            return f"{len(self.rom.data)} bytes at {self.rom.address:#x}"
        image = [segment for segment in self.segments if segment is not self.information]
        low = min(segment.address for segment in image)
        size_bytes = sum(segment.end - segment.address for segment in image)
        pieces = f" in {len(image)} pieces" if len(image) > 1 else ""
        return f"{size_bytes} bytes from {low:#x}{pieces}"
