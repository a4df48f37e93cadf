"""Standard output as a guest's: written by a thread of its own, so that nobody who reads it slowly,
or not at all, holds up the guest's end."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kvmshim.errors import HostError

#: So much may wait for the reader; then whoever writes waits too.
ROOM_BYTES = 64 * 1024
#: A reader that takes nothing for so long when all is to end gets no more.
_PATIENCE_S = 0.5
_LOOK_S = 0.05


class Output:
    """What is written goes to standard output at once, in order and whole, until it gives up.

    ``gives_up`` says that all is to end; ``on_error`` is called when nothing can be written any
    more. :meth:`write` and :meth:`finish` raise BrokenPipeError when nobody reads any more, and
    HostError when it can't be written to.
    """

    def __init__(self, gives_up: Callable[[], bool], on_error: Callable[[], None]) -> None:
        self._fd = sys.stdout.fileno()
        self._gives_up, self._on_error = gives_up, on_error
        self._changed = threading.Condition()
        self._waiting = bytearray()
        self._written = 0
        self._closing = False
        #: What was written when it was given up; whoever reads again is waited for again.
        self._given_up_at: int | None = None
        self._error: Exception | None = None
        #: Bytes that were given up.
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def write(self, data: bytes) -> None:
        """Waits while there is no room; from another thread it can be made to give up."""
        with self._changed:
            if not self._wait(lambda: len(self._waiting) < ROOM_BYTES):
                self.lost += len(data)
                return
            self._waiting += data
            self._changed.notify_all()

    def finish(self) -> None:
        """Waits until all is written, or given up."""
        with self._changed:
            if not self._wait(lambda: not self._waiting):
                self.lost += len(self._waiting)

    def _wait(self, done: Callable[[], bool]) -> bool:
        """Waits for ``done``; False if there is nobody who would bring it about."""
        written, since_s = self._written, time.monotonic()
        while self._error is None and not done():
            if self._written == self._given_up_at:
                return False
            self._changed.wait(_LOOK_S)
            if self._written != written or not self._gives_up():
                written, since_s = self._written, time.monotonic()
            elif time.monotonic() - since_s > _PATIENCE_S:
                self._given_up_at = written
        if self._error is not None:
            raise self._error
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                data = bytes(self._waiting)
            if not data:
                return
            try:
                written = _write_some(self._fd, data)
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                self._on_error()
                return
            with self._changed:
                del self._waiting[:written]
                self._written += written
                self._changed.notify_all()


def _write_some(fd: int, data: bytes) -> int:
    """What was written of it."""
    try:
        return os.write(fd, data)
    except BlockingIOError:  # whoever shares this terminal or pipe has made it so
        select.select([], [fd], [])
        return 0
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that has hung up
            raise BrokenPipeError from error
        raise HostError(f"can't write to standard output: {error.strerror}") from error
