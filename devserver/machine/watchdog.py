"""Ends calls of models that do not return: a thread looks now and then at what another one does.

An access costs nothing for it. The thread takes a sample of the watched one's stack, a few times in
the length of the limit; a call of a model is known by its frame, so that the same frame seen again
is the same call. One that has lasted too long is interrupted: :class:`Overdue` is raised in it, by
a signal whose handler looks whether that very call is still under way. So a call that has just
returned is never mistaken for it, and one that sleeps in the kernel is woken.

A model may catch even that, or be where no signal reaches it. After a second limit the process
ends, with the device's name as its last word: nobody else in it could be served any more.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from devserver.machine.callers import ModelCall, model_call
from devserver.models.context import Overdue
from devserver.waiting import MODEL_TIMEOUT_S

log = logging.getLogger("devserver.host")

#: The same once the process has been asked to end.
HURRIED_S = 0.5
#: Samples in the length of a limit.
_SAMPLES = 4
#: The exit status of a process that had to be ended for a model.
EXIT_STUCK = 119

_SIGNAL = signal.SIGALRM


class Watchdog:
    """Watches the calls of models in the main thread."""

    def __init__(
        self, limit_s: float = MODEL_TIMEOUT_S, give_up: Callable[[int], None] = os._exit
    ) -> None:
        """``give_up`` ends the process; it is given the exit status."""
        self._limit_s = limit_s
        self._give_up = give_up
        self._stop = threading.Event()
        self._hurried = False
        self._ended = False
        self._seen: FrameType | None = None
        self._lasted_s = 0.0
        #: The call that is to be interrupted.
        self._overdue: FrameType | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches this thread, which is the main one: no other gets signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(_SIGNAL, self._interrupt)
        ident = threading.get_ident()
        thread = threading.Thread(target=self._watch, args=(ident,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended = True
            self._stop.set()
            thread.join()
            signal.signal(_SIGNAL, before)

    def hurry(self) -> None:
        """The process is to end: a call is given no more than half a second from now on."""
        self._hurried = True
        self._stop.set()

    # -- the thread ---------------------------------------------------------------------------

    def _watch(self, ident: int) -> None:
        while not self._ended:
            limit_s = min(self._limit_s, HURRIED_S) if self._hurried else self._limit_s
            if self._stop.wait(limit_s / _SAMPLES):
                self._stop.clear()
                continue
            call = model_call(sys._current_frames().get(ident))
            if call is None or call.frame is not self._seen:
                self._seen, self._lasted_s = None if call is None else call.frame, 0.0
                continue
            # Counted in samples, not by a clock: a process may have been stopped in between.
            self._lasted_s += limit_s / _SAMPLES
            if self._lasted_s >= 2 * limit_s:
                self._end(call, ident)
            elif self._lasted_s >= limit_s:
                self._overdue = call.frame
                signal.pthread_kill(ident, _SIGNAL)

    def _end(self, call: ModelCall, ident: int) -> None:
        stack = "".join(traceback.format_stack(sys._current_frames().get(ident)))
        why = f"{call.device} does not return, and can't be interrupted"
        log.critical("%s; this process ends, with all its VMs\n%s", why, stack)
        logging.shutdown()
        self._give_up(EXIT_STUCK)
        self._lasted_s = 0.0

    # -- in the main thread -------------------------------------------------------------------

    def _interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raises in the model's call, and only there."""
        overdue, self._overdue = self._overdue, None
        call = model_call(frame)
        if call is not None and call.frame is overdue:
            raise Overdue(min(self._limit_s, HURRIED_S) if self._hurried else self._limit_s)
