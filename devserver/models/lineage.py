"""Which of a model's optimisations hold for a class that is derived from it.

A lease, a run of writes or a write that nobody waits for stands for a *plain* method: what
``read_foo``, or ``write_foo``, one after the other, would have done. Whoever wrote it knew the
methods of that class. A class derived from it may define any of them anew, so an optimisation only
holds as far as nothing that it stands for is defined by a class that is further derived:

================================  =================================================================
a derived class defines           what it inherits
================================  =================================================================
``read_foo`` or ``lease_foo``     no lease of FOO, unless it defines both
``write_foo``                     no ``write_foo_run``; writes of FOO are waited for; a write of FOO
                                  changes every lease
``bank``, ``write``,              no runs; every write changes every lease
``set_line``, ``emit``,
``signal``
``deadline_ns``, ``advance``      no runs; leases end at the next deadline
``read``, or a helper method      no leases and no runs
================================  =================================================================

To say that an inherited one holds nevertheless, name it again: ``lease_lsr = Base.lease_lsr``, or
``regions = Base.regions`` for the policies of writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from types import MemberDescriptorType
from typing import Any

from devserver.models.dispatch import Lessor
from devserver.models.lease import LANES, Lease
from devserver.models.registers import Region, Register

_OF_A_REGISTER = re.compile(r"(read|write|lease)_\w+")
#: What may be defined anew without a change of what reads and writes do.
_APART = frozenset(
    (
        *("__init__", "__doc__", "__module__", "__qualname__", "__annotations__", "__dict__"),
        *("__weakref__", "__slots__", "__repr__", "__str__", "__init_subclass__"),
        *("State", "Options", "started", "reset", "save", "load"),
        *("feed", "feed_end", "heard", "room"),
        *("lease", "lessor", "can_lease", "plain_reader", "plain_writer"),
        *("run_writer", "has_run_writer", "write_policy", "moves_leases"),
    )
)
_TIME = frozenset(("deadline_ns", "advance"))
#: What may change any register on the way of a write of another one.
_WRITING = frozenset(("bank", "write", "set_line", "emit", "signal"))
_EVERY_LANE = -1


class Lineage:
    """The classes that a model is made of. Depths count them, from the model's own class at 0."""

    def __init__(self, model: type) -> None:
        self._classes = model.__mro__
        self._regions: tuple[Region, ...] = getattr(model, "regions", ())
        self._state: Any = getattr(model, "State", object)

    def depth(self, name: str) -> int | None:
        """Where a method is defined."""
        return next((at for at, cls in enumerate(self._classes) if name in vars(cls)), None)

    def defines(self, name: str) -> bool:
        """Whether it has a method of its own in the place of :class:`Device`'s."""
        depth = self.depth(name)
        return depth is not None and depth < len(self._classes) - 2  # Device and object come last

    def declared(self, region: Region, register: Register) -> list[int]:
        """The classes that declare a register just so, up to one that does it in another way."""
        found = []
        for at, cls in enumerate(self._classes):
            regions = vars(cls).get("regions")
            if regions is None:
                continue
            if not any(r.name == region.name and register in r.registers for r in regions):
                break
            found.append(at)
        return found

    # -- what holds ---------------------------------------------------------------------------

    def holds_policy(self, region: Region, register: Register) -> bool:
        """Whether the register's declared policy was meant for the method that takes writes."""
        method = self.depth(f"write_{register.name.lower()}")
        return method is None or min(self.declared(region, register), default=0) <= method

    def holds_lease(self, region: Region, register: Register) -> bool:
        """Whether the model's ``lease_foo`` was written for the read that there is."""
        name = register.name.lower()
        lease, read = self.depth(f"lease_{name}"), self.depth(f"read_{name}")
        if lease is None:
            return False
        together = lease == read if read is not None else lease in self.declared(region, register)
        return together and not self._beyond(lease, _WRITING | _TIME)

    def holds_run(self, region: Region, register: Register) -> bool:
        """Whether the model's ``write_foo_run`` was written for the write that there is."""
        name = register.name.lower()
        run, write = self.depth(f"write_{name}_run"), self.depth(f"write_{name}")
        if run is None:
            return False
        together = run == write if write is not None else run in self.declared(region, register)
        return together and not self._beyond(run, frozenset(("read",)))

    def is_said_in_leases(self) -> bool:
        """Whether ``leases_move_with_time = False`` was said of the class as it is."""
        said = self.depth("leases_move_with_time")
        return said is not None and not self._beyond(said, frozenset())

    def only_stores(self, storage: str) -> bool:
        """Whether a field of the state is just that, with no code behind it."""
        field = getattr(self._state, storage, None)
        return (
            not hasattr(type(field), "__set__") or isinstance(field, MemberDescriptorType)
        ) and self._state.__setattr__ is object.__setattr__

    def says_of_writes(self, register: Register) -> int:
        """The lanes of whose writes a lease says nothing true, one bit each; -1: of none."""
        lease = self.depth(f"lease_{register.name.lower()}")
        if lease is None:
            return 0
        if _WRITING & set(self._overridden(lease)):
            return _EVERY_LANE
        lanes, first = 0, 0
        for region in self._regions:
            for other in region.registers:
                write = self.depth(f"write_{other.name.lower()}")
                if write is not None and write < lease and other.access.writable:
                    lanes |= ((1 << other.width) - 1) << first + other.offset
            first += region.size
        return lanes & ((1 << LANES) - 1)

    def says_its_end(self, register: Register) -> bool:
        """Whether the end of a lease was said for the deadlines that there are."""
        lease = self.depth(f"lease_{register.name.lower()}")
        return lease is not None and not _TIME & set(self._overridden(lease))

    # -- inner workings -----------------------------------------------------------------------

    def _overridden(self, depth: int) -> Iterator[str]:
        """Methods of the class at a depth, or of those that it is derived from, defined anew."""
        for cls in self._classes[:depth]:
            for name in vars(cls):
                if any(_is_code(vars(base).get(name)) for base in self._classes[depth:]):
                    yield name

    def _beyond(self, depth: int, allowed: frozenset[str]) -> bool:
        """Whether anything is defined anew that an optimisation of that class can't know of."""
        return any(
            name not in allowed and name not in _APART and not _OF_A_REGISTER.fullmatch(name)
            for name in self._overridden(depth)
        )


def _is_code(value: Any) -> bool:
    """Whether something in a class is a method, a property or the like."""
    return callable(value) or hasattr(value, "__get__")


_known: dict[type, Lineage] = {}


def lineage(model: type) -> Lineage:
    """A model's; looked at once."""
    if model not in _known:
        _known[model] = Lineage(model)
    return _known[model]


def cautious(lessor: Lessor, lanes: int, deadline_ns: Any) -> Lessor:
    """A lease without what it says of writes to ``lanes``, and ending at the next deadline.

    ``deadline_ns`` gives that; None where the lease says its end itself.
    """

    def say(now_ns: int) -> Lease | None:
        lease = lessor(now_ns)
        if lease is None:
            return None
        due_ns = None if deadline_ns is None else deadline_ns()
        if due_ns is not None and due_ns <= now_ns:
            return None
        ends_ns = lease.until_ns if due_ns is None else min(lease.until_ns or due_ns, due_ns)
        hold = lease.hold
        if hold is not None and lanes >> hold.lane & 1:
            hold = None
        return replace(
            lease,
            until_ns=ends_ns,
            unaffected=lease.unaffected & ~lanes,
            steady=lease.steady & ~lanes,
            hold=hold,
        )

    return say
