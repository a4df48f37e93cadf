"""ELF executables for i386 and x86-64: what to load where.

Source: Tool Interface Standard, Executable and Linking Format 1.2, book I, 'ELF Header' and
'Program Header'; machine numbers from the System V ABI's registry.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from kvmshim.loader.plan import Segment
from kvmshim.loader.request import Extent, Request

MAGIC = b"\x7fELF"

_IDENT_BYTES = 16
_PT_LOAD = 1


class ElfClass(IntEnum):
    """EI_CLASS."""

    ELFCLASS32 = 1
    ELFCLASS64 = 2


class ElfData(IntEnum):
    """EI_DATA: the byte order."""

    ELFDATA2LSB = 1
    ELFDATA2MSB = 2


class ElfType(IntEnum):
    """e_type."""

    ET_REL = 1
    ET_EXEC = 2
    ET_DYN = 3
    ET_CORE = 4


class Machine(IntEnum):
    """e_machine, those that an error can name."""

    SPARC = 2
    EM_386 = 3
    MIPS = 8
    POWERPC = 20
    ARM = 40
    X86_64 = 62
    AARCH64 = 183
    RISCV = 243


class Form(NamedTuple):
    """How an ELF file of one class is laid out, and what it must be to be booted.

    ``header`` is what follows e_ident. ``fields`` are the places of p_offset, p_vaddr, p_paddr,
    p_filesz and p_memsz in a program header.
    """

    elf_class: ElfClass
    machine: Machine
    header: struct.Struct
    program_header: struct.Struct
    fields: tuple[int, int, int, int, int]
    supported: str
    remedy: str


ELF32 = Form(
    ElfClass.ELFCLASS32,
    Machine.EM_386,
    struct.Struct("<HHIIIIIHHHHHH"),
    struct.Struct("<8I"),
    (1, 2, 3, 4, 5),
    "only 32-bit little-endian i386 executables are of this kind",
    "build it with -m32 for i386",
)
ELF64 = Form(
    ElfClass.ELFCLASS64,
    Machine.X86_64,
    struct.Struct("<HHIQQQIHHHHHH"),
    struct.Struct("<2I6Q"),
    (2, 3, 4, 5, 6),
    "only 64-bit little-endian x86-64 executables are of this kind",
    "build it with -m64 for x86-64",
)

_NOT_EXECUTABLE = {
    ElfType.ET_REL: ("an object file that was not linked", "link it with ld"),
    ElfType.ET_DYN: ("position-independent", "link it at a fixed address, with -no-pie"),
    ElfType.ET_CORE: ("a core dump", "give the program itself"),
}


@dataclass(frozen=True)
class ElfImage:
    """The loadable segments at their physical addresses, and the physical entry point."""

    segments: tuple[Segment, ...]
    entry: int


@dataclass(frozen=True)
class _Load:
    """A PT_LOAD program header that takes memory."""

    offset: int
    vaddr: int
    paddr: int
    file_bytes: int
    memory_bytes: int

    @property
    def extent(self) -> Extent:
        return Extent(self.paddr, self.memory_bytes)

    @property
    def file_extent(self) -> Extent:
        return Extent(self.paddr, self.file_bytes)


def is_elf(data: bytes) -> bool:
    """Whether ``data`` begins like an ELF file of any class."""
    return data.startswith(MAGIC)


def form_of(data: bytes) -> Form:
    """What the ELF file ``data`` is to be read as, by its class."""
    return ELF64 if data[4:5] == bytes([ElfClass.ELFCLASS64]) else ELF32


def parse_elf(data: bytes, form: Form, request: Request) -> ElfImage:
    """What to load from the ELF file ``data``; raises InputError if it can't be booted so."""
    _check_identity(data, form, request)
    loads = _program_headers(data, form, request)
    request.check_memory([load.extent for load in loads], "link it at other addresses")
    for load in loads:
        if load.offset + load.file_bytes > len(data):
            raise request.refuse(
                f"the ELF file is cut short: segment {load.extent} ends at byte "
                f"{load.offset + load.file_bytes} of the file, which has {len(data)}",
                "build or copy it again",
            )
    segments = tuple(
        Segment(
            load.paddr,
            data[load.offset : load.offset + load.file_bytes],
            load.memory_bytes - load.file_bytes,
        )
        for load in loads
    )
    return ElfImage(segments, _entry(data, loads, form, request))


def _check_identity(data: bytes, form: Form, request: Request) -> None:
    if len(data) < _IDENT_BYTES + form.header.size:
        raise request.refuse(
            f"the ELF file is cut short: {len(data)} bytes are less than an ELF header",
            "build or copy it again",
        )
    order = ">" if data[5] == ElfData.ELFDATA2MSB else "<"
    elf_type, machine = struct.unpack_from(f"{order}HH", data, _IDENT_BYTES)
    what = _describe(data[4], data[5], machine)
    if (data[4], data[5], machine) != (form.elf_class, ElfData.ELFDATA2LSB, form.machine):
        raise request.refuse(f"it is {what}; {form.supported}", form.remedy)
    if elf_type != ElfType.ET_EXEC:
        unknown = (f"of type {elf_type}", "link it as an executable")
        fault, remedy = next(
            (words for kind, words in _NOT_EXECUTABLE.items() if kind == elf_type), unknown
        )
        raise request.refuse(f"it is {what}, but {fault}", remedy)


def _describe(elf_class: int, elf_data: int, machine: int) -> str:
    bits = {1: "a 32-bit", 2: "a 64-bit"}.get(elf_class, f"a class {elf_class}")
    order = {1: "little-endian", 2: "big-endian"}.get(elf_data, f"order {elf_data}")
    known = {member.value: member.name.removeprefix("EM_").lower() for member in Machine}
    name = "i386" if machine == Machine.EM_386 else known.get(machine, f"machine {machine}")
    return f"{bits} {order} ELF file for {name}"


def _program_headers(data: bytes, form: Form, request: Request) -> list[_Load]:
    header = form.header.unpack_from(data, _IDENT_BYTES)
    table_offset, entry_bytes, count = header[4], header[8], header[9]
    if count and entry_bytes < form.program_header.size:
        raise request.refuse(
            f"its ELF program headers have {entry_bytes} bytes each instead of "
            f"{form.program_header.size}",
            "build it again",
        )
    if table_offset + count * entry_bytes > len(data):
        raise request.refuse(
            "the ELF file is cut short: its program headers lie beyond its end",
            "build or copy it again",
        )
    loads = []
    for index in range(count):
        fields = form.program_header.unpack_from(data, table_offset + index * entry_bytes)
        kind = fields[0]
        offset, vaddr, paddr, file_bytes, memory_bytes = (fields[at] for at in form.fields)
        if kind != _PT_LOAD or not (file_bytes or memory_bytes):
            continue
        if file_bytes > memory_bytes:
            raise request.refuse(
                f"its segment at {paddr:#x} has {file_bytes} bytes in the file "
                f"but only {memory_bytes} in memory",
                "build it again",
            )
        loads.append(_Load(offset, vaddr, paddr, file_bytes, memory_bytes))
    if not loads:
        raise request.refuse("the ELF file has nothing to load (no PT_LOAD segment)", "link it")
    return loads


def _entry(data: bytes, loads: list[_Load], form: Form, request: Request) -> int:
    """The physical address to start at.

    e_entry is a virtual address. A kernel linked high but loaded low may have either kind there:
    linkers put the virtual one, hand-made scripts the physical one. Only one can be in range.
    """
    file_extents = [load.file_extent for load in loads if load.file_bytes]
    if request.entry is not None:
        return request.check_entry(request.entry, file_extents)
    entry: int = form.header.unpack_from(data, _IDENT_BYTES)[3]
    for load in loads:
        if load.vaddr <= entry < load.vaddr + load.file_bytes:
            return entry - load.vaddr + load.paddr
    return request.check_entry(entry, file_extents)
