"""Guest memory as blocks, all of it or the pages that a running guest has written to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from kvmshim.hypervisor.mapping import PAGE_BYTES
from kvmshim.vmstate.state import MAX_BLOCK_BYTES, Block

if TYPE_CHECKING:
    from kvmshim.hypervisor.guest_memory import GuestMemory
    from kvmshim.hypervisor.kvm.vm import MemorySlot, Vm

_ZERO_PAGE = bytes(PAGE_BYTES)


class PageRun(NamedTuple):
    """Whole pages of guest-physical memory, side by side."""

    address: int
    size: int


def blocks(memory: GuestMemory, runs: Iterable[PageRun], *, zeros: bool = False) -> Iterator[Block]:
    """The contents of these pages now, packed.

    Pages of zeros are left out, as fresh memory has them already; with ``zeros`` they are not,
    because what was sent before has to be overwritten.
    """
    for run in runs:
        for address in range(run.address, run.address + run.size, MAX_BLOCK_BYTES):
            size = min(MAX_BLOCK_BYTES, run.address + run.size - address)
            raw = memory.read(address, size)
            if zeros:
                yield Block.pack(address, raw)
                continue
            for start, end in _not_zero(raw):
                yield Block.pack(address + start, raw[start:end])


def _not_zero(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the pages are that are not all zero, side by side ones together."""
    start = None
    for at in range(0, len(raw), PAGE_BYTES):
        if raw[at : at + PAGE_BYTES] == _ZERO_PAGE:
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(raw)


def runs_of(bitmap: bytes, pages: int, address: int) -> Iterator[PageRun]:
    """The set bits of a bitmap (page 0 is bit 0 of byte 0) as runs from ``address`` on."""
    start = None
    for page in range(pages + 1):
        dirty = page < pages and bitmap[page // 8] >> (page % 8) & 1
        if dirty and start is None:
            start = page
        elif not dirty and start is not None:
            yield PageRun(address + start * PAGE_BYTES, (page - start) * PAGE_BYTES)
            start = None


class DirtyLog:
    """Which pages a guest writes to, while the log is open (a ``with`` block).

    ``take()`` gives the pages written to since it was called last, or since the log was opened. A
    page that is written to meanwhile is in this or in the next answer. Writable memory only: ROM
    never changes.
    """

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._slots: list[MemorySlot] = [slot for slot in vm.slots if not slot.read_only]

    def __enter__(self) -> Self:
        for slot in self._slots:
            self._vm.log_dirty(slot, True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            self._vm.log_dirty(slot, False)

    def take(self) -> list[PageRun]:
        """The pages written to, as runs (KVM_GET_DIRTY_LOG). Raises :class:`KvmError`."""
        found: list[PageRun] = []
        for slot in self._slots:
            bitmap = self._vm.dirty_bitmap(slot)
            found += runs_of(bitmap, slot.size // PAGE_BYTES, slot.address)
        return found
