"""How a model declares its registers: once, for dispatch, reset, policy and documentation."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum


class Space(IntEnum):
    """The address space that a region lies in (x86: I/O ports and memory are separate).

    ``BUS`` is no guest's: in it the client platform does what goes over the wires between processor
    and interrupt controllers.
    """

    PORT = 0
    MEMORY = 1
    BUS = 2


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
    """How a write to a register travels, from the strictest on.

    ``FINISH``: the guest waits until the model has applied the write (the strict mode).
    ``POSTED``: the write is queued and the guest goes on; later reads still see it applied.
    ``COALESCED``: posted, and where the hypervisor can collect writes by itself the guest does not
    even leave its processor. The model sees such a write up to a millisecond late, but in its turn.
    """

    FINISH = "finish"
    POSTED = "posted"
    COALESCED = "coalesced"

    @property
    def freedom(self) -> int:
        """How much the policy allows; higher is freer."""
        return _FREEDOM.index(self)


_FREEDOM = (Policy.FINISH, Policy.POSTED, Policy.COALESCED)


@dataclass(frozen=True, kw_only=True)
class Register:
    """One register as the datasheet has it.

    ``offset`` is in bytes from the region's base, ``width`` in bytes (1, 2, 4 or 8). ``bank`` names
    a set of registers that shares offsets with another set; the model's ``bank()`` says which is
    selected, and a register with no bank is there in all of them. ``storage`` names the ``State``
    field that a plain register lives in: it then needs no ``read_…``/``write_…`` method. ``policy``
    says how writes travel. ``leased``: reads may be answered by the client, for as long as the
    model's ``lease_…`` gives a lease; a plain register of one byte needs no such method. ``source``
    is the datasheet and section that the declaration follows.
    """

    offset: int
    name: str
    access: Access = Access.RW
    reset: int = 0
    width: int = 1
    bank: str = ""
    policy: Policy = Policy.FINISH
    leased: bool = False
    storage: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", _caller())

    @property
    def place(self) -> tuple[str, int]:
        """The file and the line where it is declared."""
        place: tuple[str, int] = self._place  # type: ignore[attr-defined]
        return place


@dataclass(frozen=True, kw_only=True)
class Region:
    """A contiguous range of ``size`` bytes in one address space, with the registers in it."""

    name: str
    size: int
    registers: tuple[Register, ...]
    space: Space = Space.PORT

    def write_policy(self, offset: int) -> Policy:
        """The policy of a write at ``offset``: the strictest of the registers there."""
        here = [r.policy for r in self._at(offset) if r.access.writable]
        return min(here, key=lambda policy: policy.freedom, default=Policy.FINISH)

    def may_be_leased(self, offset: int) -> bool:
        """Whether a read of the byte at ``offset`` may be leased, in one bank at least."""
        return any(r.leased for r in self._at(offset) if r.access.readable)

    def _at(self, offset: int) -> Iterator[Register]:
        for register in self.registers:
            if register.offset <= offset < register.offset + register.width:
                yield register


def _caller() -> tuple[str, int]:
    """The file and the line that are making a dataclass of this module."""
    frame = sys._getframe(2)  # behind __post_init__
    inner = (__file__, dataclasses.__file__, "<string>")
    while frame.f_code.co_filename in inner and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
