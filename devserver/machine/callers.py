"""Who is at work: the call of a model that a thread's stack is in, and whose device it is.

What models print is told apart by that: it goes to standard error with the device's name, wherever
the program's own output goes.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from types import FrameType
from typing import Any, NamedTuple, TextIO

_MACHINE = os.path.dirname(__file__) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_MODELS = os.path.join(_PACKAGE, "models") + os.sep


class ModelCall(NamedTuple):
    """A call of a model's code: its frame, which no other call has, and the device."""

    frame: FrameType
    device: str


def model_call(frame: FrameType | None) -> ModelCall | None:
    """The model's call that a stack is in, if it is in one."""
    call: FrameType | None = None
    while frame is not None:
        caller = frame.f_back
        if caller is not None and _is_machine(caller) and _is_models(frame):
            call = frame
        frame = caller
    return None if call is None else ModelCall(call, _device(call.f_back))


def place_in(frame: FrameType | None) -> str:
    """The file and the line, nearest to where a stack is, that are not this package's."""
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    if frame is None:
        return ""
    return f", in {frame.f_code.co_name} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _is_machine(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_MACHINE)


def _is_models(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_MODELS) or not file.startswith(_PACKAGE)


def _device(frame: FrameType | None) -> str:
    """The name and the kind of the device that the machine's code is working for."""
    while frame is not None and _is_machine(frame):
        names = frame.f_locals
        for slot in (names.get("slot"), names.get("self"), getattr(names.get("self"), "_slot", 0)):
            wiring: Any = getattr(slot, "wiring", None)
            if wiring is not None:
                return f"device '{wiring.name}' ({wiring.kind})"
        frame = frame.f_back
    return "a device"


class ModelOutput(io.TextIOBase):
    """A standard output that hands what models print to standard error, line by line."""

    def __init__(self, own: TextIO) -> None:
        """``own``: where everything else goes."""
        self._own = own
        self._begun: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._own.fileno()

    def isatty(self) -> bool:
        return self._own.isatty()

    def flush(self) -> None:
        self._own.flush()

    def write(self, text: str) -> int:
        call = model_call(sys._getframe(1))
        if call is None:
            return self._own.write(text)
        *lines, rest = (self._begun.pop(call.device, "") + text).split("\n")
        for line in lines:
            sys.stderr.write(f"{call.device}: {line}\n")
        if rest:
            self._begun[call.device] = rest
        sys.stderr.flush()
        return len(text)


class _Hosting:
    """Tells the output of models apart for as long as somebody in this process hosts some."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._hosts = 0
        self._before: TextIO | None = None
        self._output: ModelOutput | None = None

    def begin(self) -> None:
        """Somebody hosts models from now on; others may do already."""
        with self._mutex:
            self._hosts += 1
            if self._hosts == 1 and sys.stdout is not None:
                self._before = sys.stdout
                sys.stdout = self._output = ModelOutput(self._before)

    def end(self) -> None:
        """Behind each :meth:`begin`, once."""
        with self._mutex:
            self._hosts -= 1
            if self._hosts:
                return
            # If another output was put in its place, it is its owner's to put the old one back.
            if self._before is not None and sys.stdout is self._output:
                sys.stdout = self._before
            self._before = self._output = None


hosting = _Hosting()
