"""The file that a suspended machine is kept in: whole, or one clear error that says what it is."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_states import HEADER, MEMORY, STATE

from kvmshim.errors import HostError, InputError
from kvmshim.vmstate.file import MAGIC, VERSION, decode_state, encode_state, read_state, write_state
from kvmshim.vmstate.state import MAX_BLOCK_BYTES, Block, DamagedState, MachineState

WHOLE = b"".join(encode_state(STATE))
#: Where the first record begins.
RECORDS = len(MAGIC) + 4


def decode(data: bytes) -> MachineState:
    return decode_state(io.BytesIO(data))


def refusal(data: bytes) -> str:
    """What is said of such a file, in one line."""
    with pytest.raises(InputError) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def record(kind: int, payload: bytes) -> bytes:
    """A record with a right checksum."""
    head = struct.pack("<II", kind, len(payload))
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


# -- whole files --------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_state(path, STATE)
    state = read_state(path)
    assert state.header == HEADER
    assert tuple(state.memory) == MEMORY
    assert tuple(state.memory) == MEMORY  # it can be gone through again
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_the_number_of_the_format_follows_the_magic() -> None:
    assert WHOLE[: len(MAGIC)] == MAGIC
    assert struct.unpack_from("<I", WHOLE, len(MAGIC)) == (VERSION,)


def test_a_file_that_can_t_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_state(path, STATE)

    def failing() -> object:
        yield MEMORY[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(HostError, match="No space left"):
        write_state(path, MachineState(HEADER, failing()))  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert read_state(path).header == HEADER


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere"):
        write_state(tmp_path / "nowhere" / "state", STATE)


# -- bad files ----------------------------------------------------------------------------------


@given(st.integers(1, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_anywhere_is_truncated(length: int) -> None:
    assert "truncated" in refusal(WHOLE[:length])


@given(st.integers(0, 8 * len(WHOLE) - 1))
@settings(max_examples=100)
def test_no_changed_bit_goes_unnoticed(bit: int) -> None:
    changed = bytearray(WHOLE)
    changed[bit // 8] ^= 1 << bit % 8
    said = refusal(bytes(changed))
    assert any(word in said for word in ("damaged", "truncated", "newer", "not the state"))


@given(st.binary(max_size=64), st.sampled_from([b"", WHOLE[:RECORDS], WHOLE]))
def test_any_bytes_get_one_line(data: bytes, before: bytes) -> None:
    if before + data != WHOLE:
        assert refusal(before + data)


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40)), max_size=3))
def test_records_with_right_checksums_and_wrong_contents_get_one_line(
    records: list[tuple[int, bytes]],
) -> None:
    body = b"".join(record(kind, payload) for kind, payload in records)
    assert refusal(WHOLE[:RECORDS] + body)


def test_an_empty_file_and_another_kind_of_file_are_told_as_such() -> None:
    assert "not the state of a suspended machine" in refusal(b"")
    assert "not the state of a suspended machine" in refusal(b"\x7fELF" + bytes(100))


def test_a_file_of_a_newer_version_says_which() -> None:
    newer = MAGIC + struct.pack("<I", VERSION + 1) + WHOLE[RECORDS:]
    said = refusal(newer)
    assert "newer version" in said
    assert f"format {VERSION + 1}; this one reads {VERSION}" in said


def test_blocks_that_are_missing_or_too_many_are_noticed() -> None:
    without = b"".join(encode_state(MachineState(HEADER, MEMORY[:1])))
    end = WHOLE[-20:]
    assert "damaged" in refusal(without[:-20] + end)


def test_a_file_s_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "half"
    path.write_bytes(WHOLE[: len(WHOLE) // 2])
    with pytest.raises(InputError, match="half: it is truncated"):
        tuple(read_state(path).memory)
    with pytest.raises(InputError, match="nothing: No such file"):
        read_state(tmp_path / "nothing")


# -- blocks -------------------------------------------------------------------------------------


def test_a_block_unpacks_to_what_was_packed() -> None:
    assert Block.pack(0, b"abc" * 1000).unpack() == b"abc" * 1000


@pytest.mark.parametrize(
    "block",
    [
        Block(0, 0, zlib.compress(b"")),
        Block(0, MAX_BLOCK_BYTES + 1, zlib.compress(bytes(MAX_BLOCK_BYTES + 1))),
        Block(0, 10, zlib.compress(bytes(11))),
        Block(0, 10, zlib.compress(bytes(9))),
        Block(0, 10, zlib.compress(bytes(10)) + b"more"),
        Block(0, 10, b"no zlib"),
        Block(0, 4096, zlib.compress(bytes(1 << 24))),  # what unpacks to far more than it says
    ],
)
def test_a_block_that_is_not_what_it_says_is_damaged(block: Block) -> None:
    with pytest.raises(DamagedState):
        block.unpack()
