"""The firmware configuration interface of QEMU's machines: how a guest asks what its machine has.

A guest writes an item's key to a 16-bit selector and reads the item byte by byte from a data port.
Sources: QEMU, docs/specs/fw_cfg.rst; include/standard-headers/linux/qemu_fw_cfg.h.

- The traditional interface only: bit 1 of the identifier, which announces DMA, is 0, and nothing
  answers at 514h.
- Nothing is written through the data port. QEMU ignores it too, since version 2.4.
- A key that is not there, and whatever lies behind an item's end, reads as zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from devserver.models.device import (
    Access,
    Context,
    Device,
    OptionError,
    Policy,
    Region,
    Register,
    StateError,
)

_SOURCE = "QEMU, docs/specs/fw_cfg.rst"

#: Longest name of a file; its field has one byte more, which ends it.
MAX_NAME_BYTES = 55
#: All files together: they travel to a server with the device, in one message.
MAX_FILES_BYTES = 256 << 10
MAX_FILES = 256
MAX_CPUS = 255

#: The memory map that firmware for QEMU looks for.
E820_FILE = "etc/e820"
_E820_ENTRY = struct.Struct("<QQI")
_E820_RAM = 1
_DIRECTORY_COUNT = struct.Struct(">I")
_DIRECTORY_ENTRY = struct.Struct(">IHH56s")


class Key(IntEnum):
    """Items with a key of their own; files have the keys from ``FILE_FIRST`` on."""

    SIGNATURE = 0x00
    ID = 0x01
    UUID = 0x02
    RAM_SIZE = 0x03
    NOGRAPHIC = 0x04
    NB_CPUS = 0x05
    MAX_CPUS = 0x0F
    FILE_DIR = 0x19
    FILE_FIRST = 0x20


class KeyBit(IntFlag):
    """Bits of a key that are no part of the item's number."""

    WRITE_CHANNEL = 1 << 14
    ARCH_LOCAL = 1 << 15


class Feature(IntFlag):
    """Bits of the identifier: what of the interface is there."""

    TRADITIONAL = 1 << 0
    DMA = 1 << 1


SIGNATURE = b"QEMU"


class FwCfg(Device):
    """QEMU's `fw_cfg`: select an item by its key, read it byte by byte.

    There are the signature (key 0), the identifier (1: no DMA), the UUID (2, zeros), the size of
    memory (3), that there is no screen (4), the number of processors (5), the highest such number
    (15), the directory of files (19h) and the files (from 20h on, by name). ``etc/e820``, the map
    of memory, is made from the option ``memory_bytes`` unless it is given.
    """

    kind = "fw_cfg"
    regions = (
        Region(
            name="io",
            size=2,
            registers=(
                Register(
                    offset=0,
                    name="SELECTOR",
                    access=Access.WO,
                    width=2,
                    policy=Policy.POSTED,
                    source=_SOURCE,
                ),
                Register(
                    offset=1,
                    name="DATA",
                    access=Access.RO,
                    reset=SIGNATURE[0],
                    source=_SOURCE,
                ),
            ),
        ),
    )

    @dataclass
    class State:
        key: int = 0
        #: Bytes of the item that were read.
        at: int = 0

    @dataclass(frozen=True)
    class Options:
        cpus: int = 1
        memory_bytes: int = 0
        files: dict[str, bytes] = field(default_factory=dict)

        def __post_init__(self) -> None:
            if not 1 <= self.cpus <= MAX_CPUS:
                raise OptionError(f"cpus is {self.cpus}; give 1 to {MAX_CPUS}")
            if not 0 <= self.memory_bytes < 1 << 64:
                raise OptionError(f"memory_bytes is {self.memory_bytes}; it has 64 bits")
            check_files(self.files)

    state: State
    options: Options

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context)
        self._items = items(self.options)

    def write(self, region: str, offset: int, size: int, value: int, now_ns: int) -> None:
        """Selects by a word at offset 0; any other write does nothing.

        A word is not two bytes here: its upper half would be a write to the data port.
        """
        if (offset, size) == (0, 2):
            self.write_selector(value, now_ns)

    def write_selector(self, value: int, now_ns: int) -> None:
        self.state.key, self.state.at = value, 0

    def read_data(self, now_ns: int) -> int:
        item = self._items.get(self.state.key & ~KeyBit.WRITE_CHANNEL, b"")
        if self.state.at >= len(item):
            return 0
        self.state.at += 1
        return item[self.state.at - 1]

    def load(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot; raises StateError also for a key or place that can't be."""
        before = self.state
        super().load(snapshot)
        if not 0 <= self.state.key <= 0xFFFF or self.state.at < 0:
            self.state = before
            raise StateError(f"{self.kind}: a key has 16 bits, and a place is not negative")


def check_files(files: Mapping[str, bytes]) -> None:
    """Raises :class:`OptionError` for names and sizes that no directory could have."""
    for name, data in files.items():
        try:
            encoded = name.encode("ascii")
        except UnicodeEncodeError:
            raise OptionError(f"file name {name!r:.80} is not ASCII") from None
        if not encoded or len(encoded) > MAX_NAME_BYTES or not name.isprintable():
            raise OptionError(
                f"file name {name!r:.80} must have 1 to {MAX_NAME_BYTES} printable characters"
            )
        if len(data) > MAX_FILES_BYTES:
            raise OptionError(
                f"file {name!r} has {len(data)} bytes; all files together may have "
                f"{MAX_FILES_BYTES >> 10} KiB"
            )
    total = sum(map(len, files.values()))
    if len(files) > MAX_FILES or total > MAX_FILES_BYTES:
        raise OptionError(
            f"{len(files)} files of {total} bytes; at most {MAX_FILES} files and "
            f"{MAX_FILES_BYTES >> 10} KiB in all"
        )


def items(options: FwCfg.Options) -> dict[int, bytes]:
    """What is behind each key."""
    files = dict(options.files)
    if options.memory_bytes:
        files.setdefault(E820_FILE, _E820_ENTRY.pack(0, options.memory_bytes, _E820_RAM))
    ordered = sorted(files.items())
    return {
        Key.SIGNATURE: SIGNATURE,
        Key.ID: Feature.TRADITIONAL.to_bytes(4, "little"),
        Key.UUID: bytes(16),
        Key.RAM_SIZE: options.memory_bytes.to_bytes(8, "little"),
        Key.NOGRAPHIC: (1).to_bytes(2, "little"),
        Key.NB_CPUS: options.cpus.to_bytes(2, "little"),
        Key.MAX_CPUS: options.cpus.to_bytes(2, "little"),
        Key.FILE_DIR: _directory(ordered),
        **{Key.FILE_FIRST + at: data for at, (_, data) in enumerate(ordered)},
    }


def _directory(files: list[tuple[str, bytes]]) -> bytes:
    """Numbers in it are big-endian: each file's size, key, two bytes of zeros, and name."""
    entries = (
        _DIRECTORY_ENTRY.pack(len(data), Key.FILE_FIRST + at, 0, name.encode())
        for at, (name, data) in enumerate(files)
    )
    return _DIRECTORY_COUNT.pack(len(files)) + b"".join(entries)
