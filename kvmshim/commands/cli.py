"""The ``kvmshim`` command: finds the subcommand, turns errors into one line and a status."""

from __future__ import annotations

from collections.abc import Sequence

from devserver.commandline.completion import add_completion
from devserver.commandline.manual import add_help
from devserver.commandline.parser import Parser
from devserver.commandline.program import run_program
from kvmshim import termination
from kvmshim.commands import agent, bench, doctor, guests, lab, resume, run
from kvmshim.commands.reporting import status_of
from kvmshim.vmm import outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        return run_program("kvmshim", lambda: _work(arguments), _explain)
    except termination.Terminated:
        return outcome.EXIT_TERMINATED


def _work(arguments: Sequence[str] | None) -> int:
    termination.watch()
    options = parser().parse_args(arguments)
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
    add_help(made, commands)
    add_completion(made, commands)
    return made


def _explain(error: Exception) -> tuple[str, int] | None:
    status = status_of(error)
    return None if status is None else (str(error), status)
