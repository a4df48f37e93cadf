"""Suspending a guest to a file: on a signal, or after a while."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devserver.commandline.progress import Progress
from kvmshim import termination
from kvmshim.errors import InputError

if TYPE_CHECKING:
    from kvmshim.vmm.machine import Machine
    from kvmshim.vmm.outcome import RunResult


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--suspend-to", metavar="FILE", help="on SIGUSR1, put the guest into a file and end"
    )
    parser.add_argument(
        "--suspend-after", type=float, metavar="SECONDS", help="the same, after so many seconds"
    )


def check_options(options: argparse.Namespace) -> None:
    """Raises :class:`InputError` for options that make no sense."""
    if options.suspend_after is not None and options.suspend_to is None:
        raise InputError("--suspend-after: say where to, with --suspend-to FILE")
    if options.suspend_after is not None and not 0 <= options.suspend_after < 1e9:
        raise InputError(f"--suspend-after: {options.suspend_after} is no number of seconds")


@contextlib.contextmanager
def pausing(machine: Machine, options: argparse.Namespace) -> Iterator[None]:
    """Has the machine pause when it is to be suspended."""
    if options.suspend_to is None:
        yield
        return
    timer = None
    if options.suspend_after is not None:
        timer = threading.Timer(options.suspend_after, machine.pause)
        timer.daemon = True
        timer.start()
    try:
        with termination.calling(signal.SIGUSR1, machine.pause):
            yield
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()


def suspended(machine: Machine, result: RunResult, path: str) -> RunResult:
    """Writes a machine to a file, if that is how its run ended. Raises :class:`HostError`."""
    from kvmshim.vmm.outcome import Outcome
    from kvmshim.vmstate.file import write_state

    if result.outcome is not Outcome.PAUSED:
        return result
    with Progress(f"writing {path}"):
        write_state(Path(path), machine.save())
    return replace(result, message=f"suspended; 'kvmshim resume {path}' goes on")
