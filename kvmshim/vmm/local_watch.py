"""Ends calls of local models that do not return, whatever thread they are in.

Signals interrupt only the main thread, and a local model runs in others. So :class:`Overdue` is
raised in the calling thread by the interpreter, at its next instruction. A call that sleeps in the
kernel, or catches even that, can't be ended: then its devices are given up as *stuck*, the run ends
without that thread, and what it comes back to tells it to end.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from devserver.machine.callers import model_call, place_in
from devserver.machine.watchdog import HURRIED_S
from devserver.models.context import Overdue

_SAMPLES = 4


class LocalWatch:
    """The lock under which local models are called, one at a time; a context manager."""

    def __init__(self, limit_s: float, on_stuck: Callable[[str], None]) -> None:
        """``on_stuck`` is called, in a thread of its own, with whose call can't be ended."""
        self.lock = threading.Condition()
        self.stuck = False
        self._limit_s = limit_s
        self._on_stuck = on_stuck
        #: Guards the two below against the end of the call.
        self._mutex = threading.Lock()
        self._caller = 0
        self._fired = False
        self._calls = 0
        self._change = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watches from now on."""
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watches no more."""
        self._closed = True
        self._change.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def hurry(self) -> None:
        """The run is to end: a call is given no more than half a second from now on."""
        self._limit_s = min(self._limit_s, HURRIED_S)
        self._change.set()

    def __enter__(self) -> None:
        self.lock.acquire()
        self._leave_if_stuck()
        self._calls += 1
        self._caller = threading.get_ident()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._mutex:
            caller, self._caller = self._caller, 0
            if self._fired:  # it may not have been raised yet
                self._fired = False
                _raise_in(caller, None)
        self._leave_if_stuck()
        self.lock.release()

    def _leave_if_stuck(self) -> None:
        """Ends this thread if the run has ended without it: nothing is there any more."""
        if self.stuck:
            self.lock.release()
            raise SystemExit

    # -- the thread ---------------------------------------------------------------------------

    def _watch(self) -> None:
        seen, lasted_s = -1, 0.0
        while not self._closed:
            step_s = self._limit_s / _SAMPLES
            if self._change.wait(step_s):
                self._change.clear()
                continue
            if not self._caller or self._calls != seen:
                seen, lasted_s = self._calls, 0.0
                continue
            lasted_s += step_s
            if lasted_s >= 2 * self._limit_s:
                self._give_up()
                return
            if lasted_s >= self._limit_s:
                self._interrupt(seen)

    def _interrupt(self, call: int) -> None:
        limit_s = self._limit_s

        class Late(Overdue):
            def __init__(self) -> None:
                super().__init__(limit_s)

        with self._mutex:
            if self._caller and self._calls == call:
                self._fired = True
                _raise_in(self._caller, Late)

    def _give_up(self) -> None:
        frame = sys._current_frames().get(self._caller)
        call = model_call(frame)
        self.stuck = True
        device = "a local device" if call is None else call.device
        why = f"it did not return within {self._limit_s:g} s, and can't be interrupted"
        self._on_stuck(f"{device} failed: {why}{place_in(frame)}")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Has a thread raise an exception, or not after all."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
