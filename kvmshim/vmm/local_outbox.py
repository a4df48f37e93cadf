"""What local devices say to the world, until the machine's loop takes it.

The loop hands it on to whoever reads, and may be held up there for as long as nobody does. So what
waits here is bounded: while it is too much, whoever is about to call a model waits. A call that has
begun is not held up, as it has the lock and a limit of its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque

#: What local devices say to the world: (device id, channel, data).
Emission = tuple[int, int, bytes]

#: While so much waits, no model is called.
HIGH_BYTES = 1024 * 1024
#: An emission takes so much beside its bytes.
_EACH_BYTES = 128


class Outbox:
    """Emissions in their order; ``fd`` is readable while there may be some."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._emissions: deque[Emission] = deque()
        self._bytes = 0
        self._open = False
        self._changed = threading.Condition()

    def put(self, emission: Emission) -> None:
        """Adds one; never waits."""
        with self._changed:
            self._emissions.append(emission)
            self._bytes += _EACH_BYTES + len(emission[2])
        self.wake()

    def wake(self) -> None:
        """Makes ``fd`` readable."""
        os.eventfd_write(self.fd, 1)

    def take(self) -> list[Emission]:
        """What was put since the last call."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        with self._changed:
            taken = list(self._emissions)
            self._emissions.clear()
            self._bytes = 0
            self._changed.notify_all()
        return taken

    def wait_for_room(self) -> None:
        """Waits while too much is here, unless the run ends."""
        if self._bytes >= HIGH_BYTES:
            with self._changed:
                self._changed.wait_for(lambda: self._open or self._bytes < HIGH_BYTES)

    def let_all_in(self, yes: bool) -> None:
        """Whether nobody waits for room any more, as the run is to end or to stand still."""
        with self._changed:
            self._open = yes
            self._changed.notify_all()

    def close(self) -> None:
        """There is no world any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
