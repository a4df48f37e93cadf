"""The Unicorn engine: its library, found and loaded, and a processor of its.

The Python package of that name is needed for the library in it only. What the engine calls while
it runs a guest is C of ours (native/src/unicorn/emulated.c), so the package's own hooks would be
of no use.
"""

from __future__ import annotations

import os
from enum import IntEnum, IntFlag
from functools import cache
from typing import Any

from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError
from kvmshim.hypervisor.unicorn.package import ADVICE, find_library

#: A value that is nowhere else in a fresh processor.
_MARK = 0x5AC3_9E71


class Register(IntEnum):
    """Registers, by the engine's numbers (``uc_x86_reg``)."""

    CS = 11
    DS = 17
    EAX = 19
    EBP = 20
    EBX = 21
    ECX = 22
    EDI = 23
    EDX = 24
    EFLAGS = 25
    EIP = 26
    ES = 28
    ESI = 29
    ESP = 30
    FS = 32
    GS = 33
    SS = 49
    CR0 = 50
    CR2 = 52
    CR3 = 53
    CR4 = 54
    IDTR = 242
    GDTR = 243


class Error(IntEnum):
    """Errors that are told apart here (``uc_err``)."""

    OK = 0
    INSN_INVALID = 10


class Access(IntFlag):
    """What a guest may do to memory (``uc_prot``)."""

    READ = 1
    WRITE = 2
    EXEC = 4


class Hook(IntEnum):
    """When the engine calls (``uc_hook_type``)."""

    INTERRUPT = 1 << 0
    INSTRUCTION = 1 << 1
    CODE = 1 << 2
    WRITE_PROTECTED = 1 << 8


class Instruction(IntEnum):
    """Instructions that can be hooked (``uc_x86_insn``)."""

    IN = 218
    OUT = 500


def load_library() -> None:
    """Loads the library. Raises :class:`HostError` if there is none, or it is another one."""
    path = find_library()
    if path is None:
        raise HostError(f"the Unicorn engine is not installed; {ADVICE}")
    problem = lib.engine_load(os.fsencode(path))
    if problem != ffi.NULL:
        why = ffi.string(problem).decode(errors="replace")
        raise HostError(f"the Unicorn engine can't be loaded: {why}; {ADVICE}")


class Engine:
    """One emulated x86 processor with its memory, in 32-bit mode as the engine calls it.

    That is about the engine's interface only: EIP is an offset in CS, and whether the guest is in
    real mode is up to its CR0.
    """

    def __init__(self) -> None:
        load_library()
        held = ffi.new("void **")
        _check(lib.engine_open(held), "making a processor")
        self.handle: Any = held[0]
        self._value = ffi.new("uint64_t *")
        self._limit = ffi.new("uint32_t *")

    def close(self) -> None:
        """Ends it; its memory may be freed afterwards."""
        if self.handle != ffi.NULL:
            lib.engine_close(self.handle)
            self.handle = ffi.NULL

    def map_memory(self, address: int, host_address: int, size: int, access: Access) -> None:
        """Has ``size`` bytes of this process be memory of the guest."""
        memory = ffi.cast("void *", host_address)
        code = lib.engine_map_memory(self.handle, address, size, access, memory)
        _check(code, f"mapping {size} bytes at {address:#x}")

    def map_window(self, address: int, size: int, read: str, write: str, context: Any) -> None:
        """Has C functions of ours serve accesses to these addresses."""
        code = lib.engine_map_window(
            self.handle, address, size, _function(read), _function(write), context
        )
        _check(code, f"mapping a window of {size} bytes at {address:#x}")

    def hook(self, hook: Hook, function: str, context: Any, instruction: int = 0) -> None:
        """Has the engine call a C function of ours; ``instruction``: for Hook.INSTRUCTION."""
        code = lib.engine_hook(self.handle, hook, _function(function), context, instruction)
        _check(code, f"hooking {hook.name}")

    def start(self, eip: int) -> int:
        """Runs the guest from CS:EIP until a hook stops it; an :class:`Error` or another number."""
        return int(lib.engine_start(self.handle, eip))

    def read(self, register: Register) -> int:
        """A register's value."""
        code = lib.engine_read_register(self.handle, register, self._value)
        _check(code, f"reading {register.name}")
        return int(self._value[0])

    def write(self, register: Register, value: int) -> None:
        """Sets a register; one of a segment is loaded as the processor's mode has it."""
        code = lib.engine_write_register(self.handle, register, value)
        _check(code, f"setting {register.name} to {value:#x}")

    def read_table(self, register: Register) -> tuple[int, int]:
        """Base and limit of IDTR or GDTR."""
        code = lib.engine_read_table(self.handle, register, self._value, self._limit)
        _check(code, f"reading {register.name}")
        return int(self._value[0]), int(self._limit[0])

    def write_table(self, register: Register, base: int, limit: int) -> None:
        """Sets IDTR or GDTR."""
        code = lib.engine_write_table(self.handle, register, base & 0xFFFF_FFFF, limit)
        _check(code, f"setting {register.name}")

    def read_memory(self, address: int, size: int) -> bytes:
        """Guest memory; zeros where there is none."""
        held = ffi.new("uint8_t[]", size)
        lib.engine_read_memory(self.handle, address, held, size)
        return bytes(ffi.buffer(held))

    def write_memory(self, address: int, data: bytes) -> None:
        """Sets guest memory; nothing happens where there is none."""
        lib.engine_write_memory(self.handle, address, data, len(data))

    def context(self) -> Context:
        """A copy of the whole processor's state, to be closed."""
        return Context(self.handle)


class Context:
    """A processor's state as the engine holds it: bytes whose layout is the library's own."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        held = ffi.new("void **")
        _check(lib.engine_context_new(engine, held), "taking the processor's state")
        self._held = held[0]
        lib.engine_context_save(engine, self._held)
        #: All of it; what is changed here is the state that :meth:`restore` brings.
        self.content = ffi.buffer(self._held, lib.engine_context_size(engine))

    def state(self) -> bytes:
        """The processor's part of it; what lies before that is the engine's own."""
        return bytes(self.content[_header_bytes() :])

    def take_state(self, state: bytes) -> None:
        """Puts in what :meth:`state` gave. Raises ValueError if that is of another size."""
        start = _header_bytes()
        if len(state) != len(self.content) - start:
            raise ValueError(f"{len(state)} bytes, not {len(self.content) - start}")
        self.content[start : len(self.content)] = state

    def restore(self) -> None:
        """Makes it the processor's state."""
        lib.engine_context_restore(self._engine, self._held)

    def close(self) -> None:
        """Frees it."""
        lib.engine_context_free(self._held)


@cache
def _header_bytes() -> int:
    """How much comes in a context before the processor's state, which begins with EAX."""
    engine = Engine()
    engine.write(Register.EAX, _MARK)
    context = engine.context()
    try:
        return bytes(context.content).index(_MARK.to_bytes(4, "little"))
    finally:
        context.close()
        engine.close()


def explain(code: int) -> str:
    """What an error number means, in the engine's words."""
    return str(ffi.string(lib.engine_explain(code)).decode())


def _check(code: int, what: str) -> None:
    if code != Error.OK:
        raise HostError(f"the Unicorn engine: {what} failed: {explain(code)}")


def _function(name: str) -> Any:
    """A function of native/src/unicorn/emulated.c."""
    return ffi.cast("void *", ffi.addressof(lib, name))
