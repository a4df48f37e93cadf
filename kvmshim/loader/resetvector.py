"""Whether a ROM's last 16 bytes, where the processor starts, are code that a ROM begins with.

Firmware begins with a jump, or with a few instructions and then a jump: 16 bytes hold no more. So
the instructions are followed up to the first jump, and its target must lie in the ROM and hold
something. Source of the encodings: Intel SDM volume 2, chapters 2 to 5.
"""

from __future__ import annotations

from kvmshim.loader.plan import ONE_MIB, SHADOW_BYTES

RESET_BYTES = 16

_SEGMENT_BYTES = 64 << 10
_OPERAND_SIZE = 0x66
#: Operand size, address size, CS: the prefixes that reset code has.
_PREFIXES = (_OPERAND_SIZE, 0x67, 0x2E)
_JMP_SHORT, _JMP_FAR, _JMP_INDIRECT = 0xEB, 0xEA, b"\xff"
_TWO_BYTES = 0x0F

#: Bytes of an instruction in real mode, by its opcode: those that may stand before the jump.
_LENGTHS = {
    **dict.fromkeys((0x90, 0xFA, 0xFB, 0xFC, 0xFD, 0xEC, 0xED, 0xEE, 0xEF), 1),  # NOP, CLI, OUT …
    **dict.fromkeys((0x31, 0x33, 0x29, 0x2B, 0x85, 0x89, 0x8B, 0x8C, 0x8E), 2),  # two registers
    **dict.fromkeys((0xA8, 0x3C, 0x24, 0x0C, 0xE4, 0xE5, 0xE6, 0xE7), 2),  # AL, imm8
    **dict.fromkeys(range(0x70, 0x80), 2),  # Jcc rel8
    **dict.fromkeys(range(0xB0, 0xB8), 2),  # MOV r8, imm8
    **dict.fromkeys(range(0xB8, 0xC0), 3),  # MOV r16, imm16
}
#: The same behind 0Fh: INVD, WBINVD; MOV from and to control registers.
_LENGTHS_0F = {0x08: 2, 0x09: 2, 0x20: 3, 0x22: 3}
_WITH_REGISTERS = (0x31, 0x33, 0x29, 0x2B, 0x85, 0x89, 0x8B, 0x8C, 0x8E)
_WIDE_IMMEDIATE = range(0xB8, 0xC0)


def is_plausible(rom: bytes) -> bool:
    """Whether the processor, started 16 bytes before the end of ``rom``, comes to more code."""
    code = rom[-RESET_BYTES:]
    at = 0
    while at < len(code):
        wide = False
        while at < len(code) and code[at] in _PREFIXES:
            wide = wide or code[at] == _OPERAND_SIZE
            at += 1
        instruction = code[at:]
        if begins_with_jump(instruction):
            return _leads_somewhere(rom, instruction, at, wide=wide)
        if instruction[:1] == _JMP_INDIRECT:
            return len(instruction) > 1 and instruction[1] >> 3 & 7 in (4, 5)  # JMP r/m, m16:16
        length = _length(instruction, wide=wide)
        if not length:
            return False
        at += length
    return False


def begins_with_jump(code: bytes) -> bool:
    """Whether the first instruction is JMP rel8, rel16 or ptr16:16."""
    return code[:1] in (b"\xeb", b"\xe9", b"\xea")


def _length(instruction: bytes, *, wide: bool) -> int:
    """Of an instruction that may stand before the jump; 0 for any other."""
    opcode = instruction[:1]
    if not opcode:
        return 0
    if opcode[0] == _TWO_BYTES:
        return _LENGTHS_0F.get(instruction[1], 0) if len(instruction) > 1 else 0
    if opcode[0] in _WITH_REGISTERS and (len(instruction) < 2 or instruction[1] < 0xC0):
        return 0
    wider = 2 if wide and opcode[0] in _WIDE_IMMEDIATE else 0
    length = _LENGTHS.get(opcode[0], 0)
    return length + wider if length else 0


def _leads_somewhere(rom: bytes, jump: bytes, at: int, *, wide: bool) -> bool:
    """Whether the target of a jump, ``at`` bytes behind the start, is in the ROM and not empty."""
    offset_bytes = 1 if jump[0] == _JMP_SHORT else 4 if wide else 2
    selector_bytes = 2 if jump[0] == _JMP_FAR else 0
    if len(jump) < 1 + offset_bytes + selector_bytes:
        return False
    if jump[0] == _JMP_FAR:
        offset = int.from_bytes(jump[1 : 1 + offset_bytes], "little")
        selector = int.from_bytes(jump[1 + offset_bytes : 3 + offset_bytes], "little")
        target = (selector << 4) + offset - ONE_MIB + len(rom)
        lowest = len(rom) - min(len(rom), SHADOW_BYTES)
    else:
        distance = int.from_bytes(jump[1 : 1 + offset_bytes], "little", signed=True)
        after = _SEGMENT_BYTES - RESET_BYTES + at + 1 + offset_bytes
        target = (after + distance) % _SEGMENT_BYTES - _SEGMENT_BYTES + len(rom)
        lowest = 0
    there = rom[target : target + 4] if lowest <= target < len(rom) else b""
    return there.strip(b"\0") != b"" and there.strip(b"\xff") != b""
