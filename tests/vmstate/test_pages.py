"""Guest memory as blocks: pages of zeros are left out, runs of others go together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmshim.hypervisor.guest_memory import GuestMemory, Part
from kvmshim.hypervisor.mapping import PAGE_BYTES
from kvmshim.vmm.capture import load_memory
from kvmshim.vmstate.memory import PageRun, blocks, runs_of
from kvmshim.vmstate.state import MAX_BLOCK_BYTES, Block, DamagedState


class Memory(GuestMemory):
    """Memory without a machine."""

    def __init__(self, data: bytes, address: int = 0) -> None:
        self.data = bytearray(data)
        self.address = address

    def parts(self) -> list[Part]:
        return []

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address - self.address :][:length])

    def write(self, address: int, data: bytes) -> None:
        if address + len(data) > len(self.data):
            raise ValueError("outside")
        self.data[address : address + len(data)] = data


def whole(memory: Memory) -> list[PageRun]:
    return [PageRun(memory.address, len(memory.data))]


def pages(*kinds: int) -> bytes:
    """A page filled with each of these bytes."""
    return b"".join(bytes([kind]) * PAGE_BYTES for kind in kinds)


@given(st.lists(st.sampled_from([0, 0, 1, 255]), min_size=1, max_size=150))
def test_blocks_put_into_fresh_memory_give_the_same_memory(kinds: list[int]) -> None:
    memory, fresh = Memory(pages(*kinds)), Memory(bytes(len(kinds) * PAGE_BYTES))
    packed = list(blocks(memory, whole(memory)))
    load_memory(fresh, packed)
    assert fresh.data == memory.data
    assert sum(block.size for block in packed) == PAGE_BYTES * sum(map(bool, kinds))


def test_pages_side_by_side_are_one_block_up_to_its_limit() -> None:
    most = MAX_BLOCK_BYTES // PAGE_BYTES
    memory = Memory(pages(0, 1, 2, 0, 3, *[4] * (most + 2)), address=0x10000)
    found = [(block.address - 0x10000, block.size) for block in blocks(memory, whole(memory))]
    page = PAGE_BYTES
    assert found == [
        (1 * page, 2 * page),
        (4 * page, (most - 4) * page),
        (most * page, 7 * page),
    ]


def test_zeros_are_there_when_they_are_asked_for() -> None:
    memory = Memory(pages(0, 1))
    (block,) = blocks(memory, whole(memory), zeros=True)
    assert block.unpack() == pages(0, 1)


def test_a_page_with_one_byte_at_its_end_is_not_zero() -> None:
    memory = Memory(bytes(2 * PAGE_BYTES - 1) + b"\x01")
    assert [(b.address, b.size) for b in blocks(memory, whole(memory))] == [
        (PAGE_BYTES, PAGE_BYTES)
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.sampled_from([0, 0x10_0000]))
def test_the_runs_of_a_bitmap_are_its_set_bits(dirty: list[bool], address: int) -> None:
    number = sum(1 << i for i, bit in enumerate(dirty) if bit)
    bitmap = number.to_bytes(64, "little")

    def each(runs: Iterator[PageRun]) -> Iterator[int]:
        for run in runs:
            yield from range(run.address, run.address + run.size, PAGE_BYTES)

    expected = [address + i * PAGE_BYTES for i, bit in enumerate(dirty) if bit]
    runs = list(runs_of(bitmap, len(dirty), address))
    assert list(each(iter(runs))) == expected
    assert len(runs) == sum(a and not b for a, b in zip(dirty, [*dirty[1:], False], strict=True))


def test_bits_behind_the_last_page_mean_nothing() -> None:
    assert list(runs_of(b"\xff" * 8, 3, 0)) == [PageRun(0, 3 * PAGE_BYTES)]


def test_a_block_outside_memory_is_damage() -> None:
    with pytest.raises(DamagedState, match="outside"):
        load_memory(Memory(bytes(PAGE_BYTES)), [Block.pack(PAGE_BYTES, b"x")])
