"""From a command's start to its exit status: streams, signals, and errors in one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from devserver.commandline import streams
from devserver.commandline.streams import OutputError

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_OUTPUT_GONE = 128 + signal.SIGPIPE

#: An error's line and exit status; None for one that is none of the command's.
Explain = Callable[[Exception], tuple[str, int] | None]


def run_program(name: str, work: Callable[[], int], explain: Explain) -> int:
    """Does a command's work; its exit status."""
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # see devserver/__main__.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        streams.prepare()
        return _flushed(work)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough
        streams.forget_output()
        return EXIT_OUTPUT_GONE
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        if isinstance(error, OutputError):
            streams.forget_output()
        message, status = explained
        print(f"{name}: {message}", file=sys.stderr)
        return status


def _flushed(work: Callable[[], int]) -> int:
    """What was printed is out, or the reason why not is told, however the work ends."""
    try:
        return work()
    finally:
        sys.stdout.flush()
