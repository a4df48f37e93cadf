"""A machine's state in a file.

Layout, all numbers little-endian:

====================  ==========================================================================
magic                 8 bytes
version               u32
records               each: kind u32, length u32, CRC-32 (of kind, length and payload) u32, payload
====================  ==========================================================================

The records are one header (a msgpack map, :class:`kvmshim.vmstate.state.Header`), any number of
memory blocks (address u64, size u32, zlib data), and an end mark with their number (u64). Nothing
follows it: a file that was cut short anywhere is seen to be.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import IO

from kvmshim.errors import HostError, InputError
from kvmshim.vmstate.state import MAX_BLOCK_BYTES, Block, DamagedState, Header, MachineState

#: The first byte is no text, and a line end that a careless copy would change is in it.
MAGIC = b"\x8ekvmvm\r\n"
VERSION = 2

_VERSION = struct.Struct("<I")
_RECORD = struct.Struct("<III")
_CHECKED = struct.Struct("<II")
_BLOCK = struct.Struct("<QI")
_END = struct.Struct("<Q")
_MAX_HEADER_BYTES = 256 << 20
#: zlib adds a little to what it can't compress.
_MAX_BLOCK_RECORD_BYTES = _BLOCK.size + MAX_BLOCK_BYTES + 1024


class _Kind(IntEnum):
    HEADER = 1
    MEMORY = 2
    END = 3


_LONGEST = {
    _Kind.HEADER: _MAX_HEADER_BYTES,
    _Kind.MEMORY: _MAX_BLOCK_RECORD_BYTES,
    _Kind.END: _END.size,
}


def write_state(path: Path, state: MachineState) -> None:
    """Writes a state so that ``path`` is either the whole of it or what it was before.

    Raises :class:`HostError` if the file can't be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.fresh")
    try:
        with open(fresh, "xb", opener=_private) as file:
            for part in encode_state(state):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise HostError(f"can't write the machine's state to {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def _private(path: str, flags: int) -> int:
    """What a guest has in its memory is its owner's."""
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk only when the folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def encode_state(state: MachineState) -> Iterator[bytes]:
    """The bytes of the file, in parts."""
    yield MAGIC + _VERSION.pack(VERSION)
    yield _record(_Kind.HEADER, state.header.to_bytes())
    count = 0
    for record in encode_blocks(state.memory):
        count += 1
        yield record
    yield _record(_Kind.END, _END.pack(count))


def encode_blocks(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Memory as records, one by one."""
    for block in blocks:
        yield _record(_Kind.MEMORY, _BLOCK.pack(block.address, block.size) + block.data)


def decode_blocks(data: bytes) -> Iterator[Block]:
    """The blocks of whole records; raises :class:`DamagedState`."""
    file = io.BytesIO(data)
    while file.tell() < len(data):
        kind, payload = _read_record(file)
        if kind is not _Kind.MEMORY or len(payload) < _BLOCK.size:
            raise DamagedState("a part of the machine's memory is damaged")
        yield _block(payload)


def _block(payload: bytes) -> Block:
    address, size = _BLOCK.unpack_from(payload)
    return Block(address, size, payload[_BLOCK.size :])


def _record(kind: _Kind, payload: bytes) -> bytes:
    return _RECORD.pack(kind, len(payload), _crc(kind, payload)) + payload


def _crc(kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(kind, len(payload))))


def read_state(path: Path) -> MachineState:
    """The state in a file; its memory is read from there each time that it is gone through.

    Raises :class:`InputError` if it is no such file or from a newer version, and
    :class:`DamagedState` if it is cut short or damaged, here or when memory is gone through.
    """
    memory = _FileMemory(path)
    return MachineState(memory.header(), memory)


class _FileMemory(Iterable[Block]):
    """The memory blocks of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def header(self) -> Header:
        with self._opened() as file:
            return _read_header(file)

    def __iter__(self) -> Iterator[Block]:
        with self._opened() as file:
            _read_header(file)
            yield from _read_blocks(file)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self._path.open("rb") as file:
                yield file
        except OSError as error:
            raise InputError(f"can't read {self._path}: {error.strerror}") from error
        except DamagedState as error:
            raise DamagedState(f"{self._path}: {error}") from None
        except InputError as error:
            raise InputError(f"{self._path}: {error}") from None


def decode_state(file: IO[bytes]) -> MachineState:
    """The state in an open file, memory and all. Raises as :func:`read_state` does."""
    header = _read_header(file)
    return MachineState(header, tuple(_read_blocks(file)))


def _read_header(file: IO[bytes]) -> Header:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        if magic and MAGIC.startswith(magic):
            raise _cut_short()
        raise InputError("this is not the state of a suspended machine")
    (version,) = _VERSION.unpack(_exactly(file, _VERSION.size))
    if version > VERSION:
        raise InputError(
            f"it was written by a newer version of kvmshim (format {version}; this one reads "
            f"{VERSION}); resume it with that"
        )
    if version < 1:
        raise DamagedState(f"it is damaged: there is no format {version}")
    kind, payload = _read_record(file)
    if kind is not _Kind.HEADER:
        raise DamagedState("it is damaged: it does not begin with a header")
    return Header.from_bytes(payload)


def _read_blocks(file: IO[bytes]) -> Iterator[Block]:
    count = 0
    while True:
        kind, payload = _read_record(file)
        if kind is _Kind.END:
            break
        if kind is not _Kind.MEMORY or len(payload) < _BLOCK.size:
            raise DamagedState(f"it is damaged: record {count + 2} is not what it should be")
        count += 1
        yield _block(payload)
    if payload != _END.pack(count):
        raise DamagedState(f"it is damaged: it has {count} memory blocks, and should have others")
    if file.read(1):
        raise DamagedState("it is damaged: something follows its end")


def _read_record(file: IO[bytes]) -> tuple[_Kind, bytes]:
    kind, length, crc = _RECORD.unpack(_exactly(file, _RECORD.size))
    if kind not in _LONGEST or length > _LONGEST[_Kind(kind)]:
        raise DamagedState(f"it is damaged: there is no record of kind {kind}, {length} bytes")
    payload = _exactly(file, length)
    if _crc(kind, payload) != crc:
        raise DamagedState("it is damaged: a checksum is wrong")
    return _Kind(kind), payload


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise _cut_short()
    return data


def _cut_short() -> DamagedState:
    return DamagedState("it is truncated: its end is missing")
