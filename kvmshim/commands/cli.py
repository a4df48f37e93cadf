"""The ``kvmshim`` command: finds the subcommand, turns errors into one line and a status."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from devserver.commandline.parser import Parser
from devserver.commandline.program import run_program
from kvmshim.commands import agent, bench, doctor, guests, lab, resume, run
from kvmshim.commands.reporting import Terminated, status_of
from kvmshim.vmm import outcome

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)


def _on_terminate(number: int, frame: FrameType | None) -> NoReturn:
    for other in _TERMINATING:  # a second one must not cut the tidying short
        signal.signal(other, signal.SIG_IGN)
    raise Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        return run_program("kvmshim", lambda: _work(arguments), _explain)
    except Terminated:
        return outcome.EXIT_TERMINATED


def _work(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    for number in _TERMINATING:
        signal.signal(number, _on_terminate)
    status: int = options.run(options)
    return status


def parser() -> Parser:
    """The whole command line."""
    made = Parser(
        prog="kvmshim",
        description="Runs small x86 guests on KVM whose devices live somewhere else.",
    )
    made.add_version()
    commands = made.commands()
    for command in (run, resume, agent, doctor, bench, lab, guests):
        command.add_parser(commands)
    return made


def _explain(error: Exception) -> tuple[str, int] | None:
    status = status_of(error)
    return None if status is None else (str(error), status)
