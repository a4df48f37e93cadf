"""A line on standard error, if that is a terminal, for what takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

#: What is quicker says nothing.
_QUIET_S = 2.0
_TICK_S = 1.0


class Progress:
    """Says what is being done and for how long, as long as it is entered; then the line is gone."""

    def __init__(
        self, text: str = "", *, stream: TextIO | None = None, quiet_s: float = _QUIET_S
    ) -> None:
        self._stream = stream or sys.stderr
        self._text = text
        self._quiet_s = quiet_s
        self._began_s = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._drawn = False

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._erase()

    def show(self, text: str) -> None:
        """What is being done from now on."""
        with self._lock:
            self._text, self._began_s = text, time.monotonic()
        if self._drawn:
            self._draw()

    def note(self, line: str) -> None:
        """A line that stays, terminal or not."""
        self._erase()
        print(line, file=self._stream, flush=True)

    def _tick(self) -> None:
        wait_s = self._quiet_s
        while not self._over.wait(wait_s):
            self._draw()
            wait_s = _TICK_S

    def _draw(self) -> None:
        with self._lock:
            took_s = int(time.monotonic() - self._began_s)
            self._drawn = True
            said = f"\r\033[K{self._text}" + (f" ({took_s} s)" if took_s else "")
            self._stream.write(said)
            self._stream.flush()

    def _erase(self) -> None:
        with self._lock:
            if self._drawn:
                self._drawn = False
                self._stream.write("\r\033[K")
                self._stream.flush()
