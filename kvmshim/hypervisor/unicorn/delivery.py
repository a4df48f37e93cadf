"""Interrupts and exceptions, delivered as the processor would: the engine leaves that to its user.

Source: Intel SDM volume 3, 6.12 (protected mode) and 20.1.4 (real mode). In protected mode 32-bit
gates to code of the same privilege are served, without paging; the error codes of exceptions are
all 0, because the engine does not tell them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmshim.hypervisor.unicorn.engine import Engine, Register
from kvmshim.hypervisor.unicorn.segments import base_of, descriptor_of, is_protected

DIVIDE_ERROR, INVALID_OPCODE, DOUBLE_FAULT, GENERAL_PROTECTION = 0, 6, 8, 13
FLAG_TRAP, FLAG_INTERRUPT, FLAG_ALIGNMENT = 1 << 8, 1 << 9, 1 << 18
_WITH_ERROR_CODE = frozenset((8, 10, 11, 12, 13, 14, 17))
_REAL_ENTRY_BYTES, _GATE_BYTES = 4, 8
_INTERRUPT_GATE, _TRAP_GATE, _PRESENT = 0xE, 0xF, 0x80


def deliver(engine: Engine, vector: int, *, by_itself: bool) -> bool:
    """Has the processor go on with the handler of ``vector``; False if it shuts down instead.

    ``by_itself``: it is an exception, neither INT n nor an interrupt.
    """
    for candidate in (vector, GENERAL_PROTECTION, DOUBLE_FAULT):
        by_itself = by_itself or candidate != vector
        if is_protected(engine):
            delivered = _deliver_protected(engine, candidate, by_itself=by_itself)
        else:
            delivered = _deliver_real(engine, candidate)
        if delivered:
            return True
    return False


def _deliver_real(engine: Engine, vector: int) -> bool:
    base, limit = engine.read_table(Register.IDTR)
    at = vector * _REAL_ENTRY_BYTES
    if at + _REAL_ENTRY_BYTES - 1 > limit:
        return False
    entry = engine.read_memory(base + at, _REAL_ENTRY_BYTES)
    flags = engine.read(Register.EFLAGS)
    _push(engine, (flags, engine.read(Register.CS), engine.read(Register.EIP)), 2, wide=False)
    engine.write(Register.EFLAGS, flags & ~(FLAG_INTERRUPT | FLAG_TRAP | FLAG_ALIGNMENT))
    engine.write(Register.CS, int.from_bytes(entry[2:4], "little"))
    engine.write(Register.EIP, int.from_bytes(entry[0:2], "little"))
    return True


def _deliver_protected(engine: Engine, vector: int, *, by_itself: bool) -> bool:
    base, limit = engine.read_table(Register.IDTR)
    at = vector * _GATE_BYTES
    if at + _GATE_BYTES - 1 > limit:
        return False
    gate = engine.read_memory(base + at, _GATE_BYTES)
    kind = gate[5] & 0xF
    selector = int.from_bytes(gate[2:4], "little")
    privilege = engine.read(Register.CS) & 3
    if not gate[5] & _PRESENT or kind not in (_INTERRUPT_GATE, _TRAP_GATE):
        return False
    if selector & 3 != privilege:
        return False
    flags = engine.read(Register.EFLAGS)
    pushed = [flags, engine.read(Register.CS), engine.read(Register.EIP)]
    if by_itself and vector in _WITH_ERROR_CODE:
        pushed.append(0)
    wide = descriptor_of(engine, engine.read(Register.SS)).wide
    _push(engine, pushed, 4, wide=wide)
    cleared = FLAG_TRAP | (FLAG_INTERRUPT if kind == _INTERRUPT_GATE else 0)
    engine.write(Register.EFLAGS, flags & ~cleared)
    engine.write(Register.CS, selector)
    engine.write(Register.EIP, int.from_bytes(gate[0:2] + gate[6:8], "little"))
    return True


def _push(engine: Engine, values: Sequence[int], size: int, *, wide: bool) -> None:
    """Pushes values of ``size`` bytes; ``wide``: the stack pointer is ESP, not SP."""
    base = base_of(engine, Register.SS)
    stack = engine.read(Register.ESP)
    mask = 0xFFFF_FFFF if wide else 0xFFFF
    pointer = stack & mask
    for value in values:
        pointer = pointer - size & mask
        raw = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        engine.write_memory(base + pointer & 0xFFFF_FFFF, raw)
    engine.write(Register.ESP, stack & ~mask & 0xFFFF_FFFF | pointer)
