"""A machine on its way here, while it still runs at another client platform.

What it is and needs is known at once; its memory comes in parts, some of them again and again; its
processor, its time and its devices come last, when it has stopped over there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from kvmshim.errors import InputError
from kvmshim.vmstate.state import Block, DetachedDevices, Header

#: So many parts may wait to be put into memory; then whoever brings them waits.
_ROOM = 16
#: One side waits for the other's next step for so long, then the machine does not come.
PATIENCE_S = 60.0


class MigrateIn:
    """What a :class:`kvmshim.vmm.machine.Machine` is restored from as it comes.

    It stands in for a ``MachineState``: :attr:`memory` lasts until the machine has stopped over
    there, and from then on :attr:`header` and :attr:`detached` are its last word. One thread brings
    parts, another goes through them.
    """

    def __init__(self, preliminary_header: Header, patience_s: float = PATIENCE_S) -> None:
        self.header = preliminary_header
        self.detached: tuple[DetachedDevices, ...] = ()
        self._parts: deque[Sequence[Block]] = deque()
        self._changed = threading.Condition()
        self._wanted = self._whole = False
        self._why = ""
        self._patience_s = patience_s

    @property
    def memory(self) -> Iterable[Block]:
        """Blocks as they come. Raises :class:`InputError` if the machine does not come."""
        return self._go_through()

    def await_wanted(self) -> None:
        """Waits until somebody goes through :attr:`memory`, or all has been given up."""
        with self._changed:
            self._await(lambda: self._wanted, "nobody has begun to take its memory in")

    def bring(self, blocks: Sequence[Block]) -> None:
        """A part of memory; waits while too much of it is on the way.

        Raises :class:`InputError` if it was given up.
        """
        with self._changed:
            self._await(lambda: len(self._parts) < _ROOM, "its memory is not taken in")
            if self._why:
                raise InputError(self._why)
            self._parts.append(blocks)
            self._changed.notify_all()

    def complete(self, header: Header, detached: Sequence[DetachedDevices]) -> None:
        """The machine has stopped over there, and all its memory has been brought."""
        with self._changed:
            self.header, self.detached = header, tuple(detached)
            self._whole = True
            self._changed.notify_all()

    def give_up(self, why: str) -> None:
        """The machine does not come, or is not wanted."""
        with self._changed:
            self._why = self._why or why
            self._changed.notify_all()

    def _await(self, step: Callable[[], object], late: str) -> None:
        """Waits for the other side's step; gives up if it does not come in time."""
        if not self._changed.wait_for(lambda: step() or self._why, self._patience_s):
            self.give_up(f"{late} within {self._patience_s:g} s")

    def _go_through(self) -> Iterator[Block]:
        while (blocks := self._next()) is not None:
            yield from blocks

    def _next(self) -> Sequence[Block] | None:
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._await(lambda: self._parts or self._whole, "no more of its memory comes")
            if self._why:
                raise InputError(self._why)
            part = self._parts.popleft() if self._parts else None
            self._changed.notify_all()
            return part
