"""Has the engine forget an exception that was delivered.

The engine remembers the exception that it raised last, to make a double fault of one that is raised
while that is being delivered. It forgets it when it has delivered it; but delivering is left to
its user (:mod:`kvmshim.hypervisor.unicorn.delivery`), and there is no call for telling. So the
second division by zero of a guest would be a double fault, and the third its end.

The memory of it is one number in the processor's state, which can be taken out as bytes and put
back. Where it lies differs between versions of the library, so it is found by trying.
"""

from __future__ import annotations

from functools import cache

from kvmshim.abi import ffi
from kvmshim.hypervisor.mapping import PAGE_BYTES, MemoryMapping
from kvmshim.hypervisor.unicorn.delivery import DIVIDE_ERROR, DOUBLE_FAULT
from kvmshim.hypervisor.unicorn.engine import Access, Engine, Hook, Register

_NONE = -1
#: div edx, with EDX = 0
_DIVIDE_BY_ZERO = b"\xf7\xf2"
_NUMBER_BYTES = 4


def forget_exception(engine: Engine) -> None:
    """To be called after an exception was delivered."""
    offset = _offset()
    if offset is None:
        return
    context = engine.context()
    context.content[offset : offset + _NUMBER_BYTES] = _number(_NONE)
    context.restore()
    context.close()


@cache
def _offset() -> int | None:
    """Where the engine remembers the last exception; None if that is not to be found."""
    memory = MemoryMapping(PAGE_BYTES)
    memory.write(0, _DIVIDE_BY_ZERO)
    engine = Engine()
    try:
        return _find(engine, memory)
    finally:
        engine.close()
        memory.close()


def _find(engine: Engine, memory: MemoryMapping) -> int | None:
    stopper = ffi.new("struct emulated *")
    engine.map_memory(0, memory.address, memory.size, Access.READ | Access.EXEC)
    engine.hook(Hook.INTERRUPT, "emulated_trap", stopper)
    engine.write(Register.EDX, 0)
    states = [_state(engine)]
    for _ in range(2):
        engine.start(0)
        states.append(_state(engine))
    wanted = [_number(n) for n in (_NONE, DIVIDE_ERROR, DOUBLE_FAULT)]
    places = [
        at
        for at in range(0, len(states[0]) - _NUMBER_BYTES + 1, _NUMBER_BYTES)
        if [state[at : at + _NUMBER_BYTES] for state in states] == wanted
    ]
    return places[0] if len(places) == 1 else None


def _state(engine: Engine) -> bytes:
    context = engine.context()
    try:
        return bytes(context.content)
    finally:
        context.close()


def _number(value: int) -> bytes:
    return value.to_bytes(_NUMBER_BYTES, "little", signed=True)
