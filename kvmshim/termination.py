"""How signals end this process: what runs is asked to end, and the process ends if it does not.

A signal handler that raises does so wherever the main thread is. Inside an event loop, a callback
or a finalizer the exception is swallowed, and the process runs on. So while somebody has said how
to ask them (:func:`asking`), the handlers do nothing. The interpreter writes the number of every
signal into a pipe, whatever the main thread does (``signal.set_wakeup_fd``). A thread reads it
there, asks, and ends the process if it is still there after a grace.

While nobody has, nothing runs that could swallow an exception: the handlers raise, and what was
begun is tidied up on the way out. The grace holds then as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

#: After so long a process that was asked to end is ended.
GRACE_S = 3.5
#: Last words may take so long.
_WORDS_S = 0.5
_TERMINATING = (signal.SIGTERM, signal.SIGHUP)
_WATCHED = (signal.SIGINT, *_TERMINATING)
#: Exit statuses: as a shell has them for SIGINT and SIGTERM.
STATUSES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}

Work = Callable[[], None]


class Terminated(BaseException):
    """SIGTERM or SIGHUP came."""


class _Watch:
    """The signals of this process."""

    def __init__(self) -> None:
        self.came: signal.Signals | None = None
        self.asked: list[Work] = []
        self.last: list[Work] = []
        #: What other signals ask for.
        self.calls: dict[int, Work] = {}
        #: Somebody was asked, and what comes now must not cut the tidying short.
        self._tidying = False
        self._guard = threading.Lock()
        self._reader = -1
        self._mask: set[int] = set()

    def begin(self) -> None:
        """Watches from now on; to be called in the main thread, any number of times."""
        self.listen()
        for number in _WATCHED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def listen(self) -> None:
        """Has a thread hear of signals; to be called in the main thread, any number of times."""
        if self._reader < 0:
            self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            os.set_blocking(self._reader, True)
            signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
            threading.Thread(target=self._listen, name="signals", daemon=True).start()
            os.register_at_fork(
                before=self._hold, after_in_parent=self._release, after_in_child=self._forget
            )

    # A child that is forked (pyroute2 does that) has the pipe and the handlers too, and what is
    # sent to it would be heard here. No signal may come to it before it has got rid of them.

    def _hold(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _forget(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (*_WATCHED, *self.calls):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        self._release()

    def add(self, ask: Work) -> None:
        with self._guard:
            self.asked.append(ask)
            late = self.came is not None
            self._tidying = self._tidying or late
        if late:
            ask()

    def remove(self, ask: Work) -> None:
        with self._guard:
            self.asked.remove(ask)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked or self._tidying:
            return
        for other in _TERMINATING:  # a second one must not cut the tidying short
            signal.signal(other, signal.SIG_IGN)
        raise _meaning(number)

    def _listen(self) -> None:
        while True:
            for number in os.read(self._reader, 1):
                if (call := self.calls.get(number)) is not None:
                    call()
                # Somebody may have put a handler of his own in the place of this one for a while.
                if self.came is None and signal.getsignal(number) == self._handle:
                    self._end(signal.Signals(number))

    def _end(self, number: signal.Signals) -> None:
        with self._guard:
            self.came = number
            asked = list(self.asked)
            self._tidying = bool(asked)
        threading.Thread(target=self._insist, name="grace", daemon=True).start()
        for ask in asked:
            with contextlib.suppress(Exception):
                ask()

    def _insist(self) -> None:
        time.sleep(GRACE_S)
        assert self.came is not None
        for work in reversed(self.last):
            with contextlib.suppress(Exception):
                work()
        os._exit(STATUSES[self.came])


_watch = _Watch()


def watch() -> None:
    """Watches the signals that end processes; to be called in the main thread."""
    _watch.begin()


@contextlib.contextmanager
def asking(ask: Work) -> Iterator[None]:
    """While it lasts, signals make nothing raise: ``ask`` is called, in another thread.

    At once, if a signal has come already.
    """
    _watch.add(ask)
    try:
        yield
    finally:
        _watch.remove(ask)


@contextlib.contextmanager
def calling(number: signal.Signals, work: Work) -> Iterator[None]:
    """While it lasts, a signal that is not about ending has ``work`` done, in another thread.

    A handler of the interpreter's would have to wait for the main thread to come back from a system
    call, which a signal that came just before that call does not cut short.
    """
    _watch.listen()
    _watch.calls[number] = work
    before = signal.signal(number, lambda *_: None)  # the number goes into the pipe
    try:
        yield
    finally:
        signal.signal(number, before)
        del _watch.calls[number]


@contextlib.contextmanager
def at_last(work: Work) -> Iterator[None]:
    """While it lasts, ``work`` is done should the process be ended without tidying up."""
    _watch.last.append(work)
    try:
        yield
    finally:
        _watch.last.remove(work)


@contextlib.contextmanager
def at_latest(after_s: float, status: int, words: str) -> Iterator[None]:
    """Ends the process with this status if this lasts longer, with words on standard error.

    For what nobody can be asked to end: code that does not return, a stream that nobody reads.
    """
    over = threading.Event()

    def wait() -> None:
        if over.wait(after_s):
            return
        for work in reversed(_watch.last):
            with contextlib.suppress(Exception):
                work()
        # Standard error may be what nobody reads.
        line = f"{words}\n".encode(errors="replace")
        saying = threading.Thread(target=lambda: os.write(2, line), daemon=True)
        saying.start()
        saying.join(_WORDS_S)
        os._exit(status)

    threading.Thread(target=wait, name="clock", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def check() -> None:
    """Raises what the signal that has come stands for: KeyboardInterrupt, or :class:`Terminated`.

    For whoever has come to an end because it was asked to.
    """
    if _watch.came is not None:
        raise _meaning(_watch.came)


def is_interrupted() -> bool:
    """Whether Ctrl-C has come."""
    return _watch.came is signal.SIGINT


def _meaning(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()
