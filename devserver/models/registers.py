"""How a model declares its registers: once, for dispatch, reset, policy and documentation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Space(IntEnum):
    """The address space that a region lies in (x86: I/O ports and memory are separate)."""

    PORT = 0
    MEMORY = 1


class Access(Enum):
    """Which directions a register answers; the other direction reads all-ones or is ignored."""

    RO = "read-only"
    WO = "write-only"
    RW = "read-write"

    @property
    def readable(self) -> bool:
        return self is not Access.WO

    @property
    def writable(self) -> bool:
        return self is not Access.RO


class Policy(Enum):
    """How a write to a register travels.

    ``FINISH``: the guest waits until the model has applied the write (the strict mode).
    ``POSTED``: the write is queued and the guest goes on; later reads still see it applied.
    """

    FINISH = "finish"
    POSTED = "posted"


@dataclass(frozen=True, kw_only=True)
class Register:
    """One register as the datasheet has it.

    ``offset`` is in bytes from the region's base, ``width`` in bytes (1, 2, 4 or 8). ``bank`` names
    a set of registers that shares offsets with another set; the model's ``bank()`` says which
    is selected, and a register with no bank is there in all of them. ``storage`` names the
    ``State`` field that a plain register lives in: it then needs no ``read_…``/``write_…`` method.
    ``source`` is the datasheet and section that the declaration follows.
    """

    offset: int
    name: str
    access: Access = Access.RW
    reset: int = 0
    width: int = 1
    bank: str = ""
    policy: Policy = Policy.FINISH
    storage: str | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A contiguous range of ``size`` bytes in one address space, with the registers in it."""

    name: str
    size: int
    registers: tuple[Register, ...]
    space: Space = Space.PORT

    def __post_init__(self) -> None:
        for register in self.registers:
            if not 0 <= register.offset <= self.size - register.width:
                raise ValueError(
                    f"register {register.name} at offset {register.offset:#x}, "
                    f"{register.width} bytes wide, lies outside region '{self.name}' "
                    f"of {self.size} bytes"
                )

    def write_policy(self, offset: int) -> Policy:
        """The policy of a write at ``offset``: posted only if every register there allows it."""
        here = [
            register
            for register in self.registers
            if register.access.writable
            and register.offset <= offset < register.offset + register.width
        ]
        if here and all(register.policy is Policy.POSTED for register in here):
            return Policy.POSTED
        return Policy.FINISH
