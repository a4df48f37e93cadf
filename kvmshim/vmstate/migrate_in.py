"""A machine on its way here, while it still runs at another client platform.

What it is and needs is known at once; its memory comes in parts, some of them again and again; its
processor, its time and its devices come last, when it has stopped over there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from kvmshim.errors import InputError
from kvmshim.vmstate.state import Block, DetachedDevices, Header

#: So many parts may wait to be put into memory; then whoever brings them waits.
_ROOM = 16


class MigrateIn:
    """What a :class:`kvmshim.vmm.machine.Machine` is restored from as it comes.

    It stands in for a ``MachineState``: :attr:`memory` lasts until the machine has stopped over
    there, and from then on :attr:`header` and :attr:`detached` are its last word. One thread brings
    parts, another goes through them.
    """

    def __init__(self, preliminary_header: Header) -> None:
        self.header = preliminary_header
        self.detached: tuple[DetachedDevices, ...] = ()
        self._parts: deque[Sequence[Block]] = deque()
        self._changed = threading.Condition()
        self._wanted = self._whole = False
        self._why = ""

    @property
    def memory(self) -> Iterable[Block]:
        """Blocks as they come. Raises :class:`InputError` if the machine does not come."""
        return self._go_through()

    def await_wanted(self) -> None:
        """Waits until somebody goes through :attr:`memory`, or all has been given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._why)

    def bring(self, blocks: Sequence[Block]) -> None:
        """A part of memory; waits while too much of it is on the way.

        Raises :class:`InputError` if it was given up.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._parts) < _ROOM or self._why)
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

    def _go_through(self) -> Iterator[Block]:
        while (blocks := self._next()) is not None:
            yield from blocks

    def _next(self) -> Sequence[Block] | None:
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._parts or self._whole or self._why)
            if self._why:
                raise InputError(self._why)
            part = self._parts.popleft() if self._parts else None
            self._changed.notify_all()
            return part
