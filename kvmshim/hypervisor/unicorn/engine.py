"""The Unicorn engine's library, called by its documented C interface (unicorn/unicorn.h, x86.h).

The Python package of that name is needed for the library in it only. What the engine calls while
it runs a guest is C of ours (native/src/emulated.c), so the package's own hooks would be of no use.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from enum import IntEnum, IntFlag
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from kvmshim.errors import HostError

_LIBRARY = "libunicorn.so.2"
_ADVICE = "pip install 'kvmshim[unicorn]'"
#: The guest never comes here: it ends otherwise (uc_emu_start, ``until``).
_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF


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


class _Table(ctypes.Structure):
    """IDTR and GDTR (``uc_x86_mmr``)."""

    _fields_ = [
        ("selector", ctypes.c_uint16),
        ("base", c_uint64),
        ("limit", c_uint32),
        ("flags", c_uint32),
    ]


_ARCH_X86, _MODE_32 = 4, 1 << 2

_PROTOTYPES: dict[str, list[type]] = {
    "uc_open": [c_int, c_int, c_void_p],
    "uc_close": [c_void_p],
    "uc_mem_map_ptr": [c_void_p, c_uint64, c_uint64, c_uint32, c_void_p],
    "uc_mmio_map": [c_void_p, c_uint64, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p],
    "uc_mem_read": [c_void_p, c_uint64, c_void_p, c_uint64],
    "uc_mem_write": [c_void_p, c_uint64, c_char_p, c_uint64],
    "uc_reg_read": [c_void_p, c_int, c_void_p],
    "uc_reg_write": [c_void_p, c_int, c_void_p],
    "uc_emu_start": [c_void_p, c_uint64, c_uint64, c_uint64, c_size_t],
    "uc_emu_stop": [c_void_p],
    "uc_context_size": [c_void_p],
    "uc_context_alloc": [c_void_p, c_void_p],
    "uc_context_save": [c_void_p, c_void_p],
    "uc_context_restore": [c_void_p, c_void_p],
    "uc_context_free": [c_void_p],
    "uc_strerror": [c_int],
}


def find_library() -> Path | None:
    """Where the engine's library is; None if the package is not installed."""
    package = find_spec("unicorn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "lib" / _LIBRARY
        if path.exists():
            return path
    return None


def library_version() -> str:
    """Of the package that the library is in; empty if it is not installed."""
    try:
        return version("unicorn")
    except PackageNotFoundError:
        return ""


@cache
def load_library() -> ctypes.CDLL:
    """Loads the library. Raises :class:`HostError` if there is none, or it is another one."""
    path = find_library()
    if path is None:
        raise HostError(f"the Unicorn engine is not installed; {_ADVICE}")
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _PROTOTYPES.items():
            getattr(library, name).argtypes = arguments
    except (OSError, AttributeError) as error:
        raise HostError(f"the Unicorn engine can't be loaded: {error}; {_ADVICE}") from error
    library.uc_context_size.restype = c_size_t
    library.uc_strerror.restype = c_char_p
    return library


class Engine:
    """One emulated x86 processor with its memory, in 32-bit mode as the engine calls it.

    That is about the engine's interface only: EIP is an offset in CS, and whether the guest is in
    real mode is up to its CR0.
    """

    def __init__(self) -> None:
        self._library = load_library()
        handle = c_void_p()
        self._check(self._library.uc_open(_ARCH_X86, _MODE_32, ctypes.byref(handle)), "uc_open")
        self.handle = handle.value

    def close(self) -> None:
        """Ends it; its memory may be freed afterwards."""
        if self.handle is not None:
            self._library.uc_close(self.handle)
            self.handle = None

    def function(self, name: str) -> int:
        """The address of one of the library's functions."""
        return ctypes.cast(getattr(self._library, name), c_void_p).value or 0

    def map_memory(self, address: int, host_address: int, size: int, access: Access) -> None:
        """Has ``size`` bytes of this process be memory of the guest."""
        code = self._library.uc_mem_map_ptr(self.handle, address, size, access, host_address)
        self._check(code, f"mapping {size} bytes at {address:#x}")

    def map_window(self, address: int, size: int, read: int, write: int, context: int) -> None:
        """Has the functions ``read`` and ``write`` serve accesses to these addresses."""
        code = self._library.uc_mmio_map(self.handle, address, size, read, context, write, context)
        self._check(code, f"mapping a window of {size} bytes at {address:#x}")

    def hook(self, hook: Hook, function: int, context: int, *what: Instruction) -> None:
        """Has the engine call ``function`` at any address; ``what``: the instruction hooked."""
        number = c_size_t()
        arguments = [c_int(w) for w in what]
        code = self._library.uc_hook_add(
            c_void_p(self.handle),
            ctypes.byref(number),
            c_int(hook),
            c_void_p(function),
            c_void_p(context),
            c_uint64(1),
            c_uint64(0),  # begin above end: everywhere
            *arguments,
        )
        self._check(code, f"hooking {hook.name}")

    def start(self, eip: int) -> int:
        """Runs the guest from CS:EIP until a hook stops it; an :class:`Error` or another number."""
        return int(self._library.uc_emu_start(self.handle, eip, _NOWHERE, 0, 0))

    def read(self, register: Register) -> int:
        """A register's value."""
        value = c_uint64()
        code = self._library.uc_reg_read(self.handle, register, ctypes.byref(value))
        self._check(code, f"reading {register.name}")
        return value.value

    def write(self, register: Register, value: int) -> None:
        """Sets a register; one of a segment is loaded as the processor's mode has it."""
        held = c_uint64(value)
        code = self._library.uc_reg_write(self.handle, register, ctypes.byref(held))
        self._check(code, f"setting {register.name} to {value:#x}")

    def read_table(self, register: Register) -> tuple[int, int]:
        """Base and limit of IDTR or GDTR."""
        table = _Table()
        code = self._library.uc_reg_read(self.handle, register, ctypes.byref(table))
        self._check(code, f"reading {register.name}")
        return int(table.base), int(table.limit)

    def write_table(self, register: Register, base: int, limit: int) -> None:
        """Sets IDTR or GDTR."""
        table = _Table(0, base, limit, 0)
        code = self._library.uc_reg_write(self.handle, register, ctypes.byref(table))
        self._check(code, f"setting {register.name}")

    def read_memory(self, address: int, size: int) -> bytes:
        """Guest memory; zeros where there is none."""
        held = ctypes.create_string_buffer(size)
        self._library.uc_mem_read(self.handle, address, held, size)
        return held.raw

    def write_memory(self, address: int, data: bytes) -> None:
        """Sets guest memory; nothing happens where there is none."""
        self._library.uc_mem_write(self.handle, address, data, len(data))

    def context(self) -> Context:
        """A copy of the whole processor's state, to be closed."""
        return Context(self._library, self.handle)

    def explain(self, code: int) -> str:
        """What an error number means, in the engine's words."""
        text: bytes = self._library.uc_strerror(code)
        return text.decode()

    def _check(self, code: int, what: str) -> None:
        if code != Error.OK:
            raise HostError(f"the Unicorn engine: {what} failed: {self.explain(code)}")


class Context:
    """A processor's state as the engine holds it: bytes whose layout is the library's own."""

    def __init__(self, library: ctypes.CDLL, engine: int | None) -> None:
        self._library = library
        self._engine = engine
        self._held = c_void_p()
        self.size = int(library.uc_context_size(engine))
        if library.uc_context_alloc(engine, ctypes.byref(self._held)) != Error.OK:
            raise MemoryError("no memory for a processor's state")
        library.uc_context_save(engine, self._held)

    def content(self) -> bytes:
        """All of it."""
        return ctypes.string_at(self._held.value or 0, self.size)

    def put(self, offset: int, data: bytes) -> None:
        """Changes a part of it."""
        assert offset + len(data) <= self.size
        ctypes.memmove((self._held.value or 0) + offset, data, len(data))

    def restore(self) -> None:
        """Makes it the processor's state."""
        self._library.uc_context_restore(self._engine, self._held)

    def close(self) -> None:
        """Frees it."""
        if self._held.value is not None:
            self._library.uc_context_free(self._held)
            self._held = c_void_p()


__all__ = [
    "Access",
    "Context",
    "Engine",
    "Error",
    "Hook",
    "Instruction",
    "Register",
    "find_library",
    "library_version",
    "load_library",
]
