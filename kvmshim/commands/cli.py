"""The ``kvmshim`` command: finds the subcommand, turns errors into one line and a status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from kvmshim.commands import agent, bench, doctor, guests, lab, resume, run
from kvmshim.errors import HostError, InputError, KvmError, KvmshimError, ServerError
from kvmshim.vmm import outcome

_TERMINATING = (signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(outcome.EXIT_BAD_INPUT, f"{self.prog}: {message}; see '{self.prog} --help'\n")


class _Terminated(BaseException):
    """SIGTERM or SIGHUP came."""


def _on_terminate(number: int, frame: FrameType | None) -> NoReturn:
    for other in _TERMINATING:  # a second one must not cut the tidying short
        signal.signal(other, signal.SIG_IGN)
    raise _Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        options = _parser().parse_args(arguments)
        for number in _TERMINATING:
            signal.signal(number, _on_terminate)
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KvmshimError as error:
        print(f"kvmshim: {error}", file=sys.stderr)
        return _status_of(error)
    except KeyboardInterrupt:
        return outcome.EXIT_INTERRUPTED
    except _Terminated:
        return outcome.EXIT_TERMINATED
    except BrokenPipeError:
        _forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _forget_output()
        print(f"kvmshim: {error}", file=sys.stderr)
        return outcome.EXIT_HOST


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kvmshim",
        description="Runs small x86 guests on KVM whose devices live somewhere else.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in (run, resume, agent, doctor, bench, lab, guests):
        command.add_parser(commands)
    return parser


def _forget_output() -> None:
    """Standard output takes no more: Python must not meet that again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status_of(error: KvmshimError) -> int:
    if isinstance(error, InputError):
        return outcome.EXIT_BAD_INPUT
    if isinstance(error, ServerError):
        return outcome.EXIT_SERVER_UNREACHABLE
    assert isinstance(error, HostError | KvmError)
    return outcome.EXIT_HOST
