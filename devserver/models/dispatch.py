"""Which function serves an access: the rows of a region's dispatch, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from devserver.models.lease import Lease
from devserver.models.registers import Register

T = TypeVar("T")
Reader = Callable[[int], int]
Writer = Callable[[int, int], None]
Lessor = Callable[[int], Lease | None]
#: Bytes written one after the other and their VM times; False: write them one by one.
RunWriter = Callable[[bytes, Sequence[int]], bool]


def plain_bytes(rows: Mapping[str, list[tuple[Register, T] | None]]) -> Iterator[tuple[int, T]]:
    """The offsets where one byte-wide register serves a single byte in every bank."""
    for offset, entry in enumerate(rows[""]):
        same = all(row[offset] is entry for row in rows.values())
        if same and entry is not None and entry[0].width == 1:
            yield offset, entry[1]


def plain_entry(
    rows: Mapping[str, list[tuple[Register, T] | None]], offset: int, size: int
) -> T | None:
    """What serves ``size`` bytes at an offset in every bank, if one register does just that."""
    entry = rows[""][offset]
    if entry is None or any(row[offset] is not entry for row in rows.values()):
        return None
    register = entry[0]
    return entry[1] if (register.offset, register.width) == (offset, size) else None


def last_of_run(state: Callable[[], object], storage: str) -> RunWriter:
    """What takes a run of bytes for a register that only stores: the last one stays."""

    def store(values: bytes, times_ns: Sequence[int]) -> bool:
        kept: int = getattr(state(), storage)
        setattr(state(), storage, kept & ~0xFF | values[-1])
        return True

    return store
