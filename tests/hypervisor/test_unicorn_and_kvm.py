"""Random straight-line programs compute the same on the Unicorn engine and on KVM."""

from __future__ import annotations

import tempfile
from pathlib import Path

import library
import pytest
import tinyguest
from emulated import emulate
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = [pytest.mark.unicorn, pytest.mark.kvm]

DATA, DATA_BYTES = 0x9000, 0x100
#: AX, CX, DX, BX, BP, SI, DI; not SP.
REGISTERS = (0, 1, 2, 3, 5, 6, 7)


def _word(value: int) -> bytes:
    return value.to_bytes(2, "little")


registers = st.sampled_from(REGISTERS)
words = st.integers(0, 0xFFFF)
places = st.integers(DATA, DATA + DATA_BYTES - 4).map(_word)
#: Register to register, or the other way round.
direct = st.builds(lambda a, b: bytes([0xC0 | a << 3 | b]), registers, registers)
#: A register and a word in memory.
with_memory = st.builds(lambda a, where: bytes([a << 3 | 6]) + where, registers, places)
#: ADD OR ADC SBB AND SUB XOR CMP, both directions; MOV, XCHG, TEST.
arithmetic = st.sampled_from([op << 3 | d for op in range(8) for d in (1, 3)])
moves = st.sampled_from([0x85, 0x87, 0x89, 0x8B])
width = st.sampled_from([b"", b"\x66"])

instructions = st.one_of(
    st.builds(lambda r, v: bytes([0xB8 | r]) + _word(v), registers, words),
    st.builds(lambda w, op, o: w + bytes([op]) + o, width, arithmetic, direct | with_memory),
    st.builds(lambda w, op, o: w + bytes([op]) + o, width, moves, direct | with_memory),
    # ROL ROR RCL RCR SHL SHR SAR by an immediate: the carry is defined
    st.builds(
        lambda w, op, r, n: w + bytes([0xC1, 0xC0 | op << 3 | r, n]),
        width,
        st.sampled_from([0, 1, 2, 3, 4, 5, 7]),
        registers,
        st.integers(1, 15),
    ),
    st.builds(lambda op, r: bytes([op | r]), st.sampled_from([0x40, 0x48]), registers),  # INC, DEC
    st.builds(lambda op, r: bytes([0xF7, op | r]), st.sampled_from([0xD0, 0xD8]), registers),
    st.sampled_from([b"\x98", b"\x99", b"\xf8", b"\xf9", b"\xf5"]),  # CBW CWD CLC STC CMC
    st.builds(lambda a, b: bytes([0x50 | a, 0x58 | b]), registers, registers),  # PUSH, POP
    st.just(b"\xcd\x60"),
    # JC, JNC over one MOV
    st.builds(lambda op, r, v: bytes([op, 3, 0xB8 | r]) + _word(v), st.sampled_from([0x72, 0x73]),
              registers, words),
    st.builds(lambda port: b"\x50\xe4" + bytes([port]) + b"\x58", st.sampled_from([0xE8, 0xEA])),
)  # fmt: skip
programs = st.lists(instructions, min_size=5, max_size=60).map(b"".join)


def _image(program: bytes) -> bytes:
    """The program between a handler for INT 60h and what prints all registers and data."""
    handler = b"\x83\x06" + _word(DATA) + b"\x07\xcf"  # add word [DATA], 7; iret
    skip = b"\xeb" + bytes([len(handler)])
    vector = b"\xc7\x06" + _word(4 * 0x60) + _word(0x7C00 + len(skip))
    ending = b"\x01\xd8\x9c\x66\x60"  # add ax, bx (all flags are defined); pushf; pushad
    console = b"\xba" + _word(tinyguest.COM1)
    stack = b"\x89\xe6\xb9" + _word(34) + console + b"\xf3\x6e"  # mov si, sp; mov cx; rep outsb
    data = b"\xbe" + _word(DATA) + b"\xb9" + _word(DATA_BYTES) + b"\xf3\x6e"
    return skip + handler + vector + program + ending + stack + data + tinyguest.leave(0)


@settings(max_examples=60)
@given(programs)
def test_a_random_program_computes_the_same_on_both(program: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "guest.bin"
        image.write_bytes(_image(program))
        result, here = emulate(image)
        assert result.status == 0
        assert len(here) == 34 + DATA_BYTES
        assert here == library.run(image, placement="local")[1]
