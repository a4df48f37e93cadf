"""``completion``: a script that has a shell complete a program's words."""

from __future__ import annotations

import argparse

from devserver.commandline.parser import Parser

_SHELLS = ("bash", "zsh", "tcsh")
#: What the value of an argument is, by what its metavariable or destination looks like.
_FILES = ("FILE", "FILE.py", "GUEST", "IMAGE|MACHINE.toml", "OLD.json")


def add_completion(program: Parser, commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command ``completion``."""
    parser = commands.add_parser("completion", help="print a script for a shell's completion")
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=lambda options: _print(program, options.shell))


def _print(program: Parser, shell: str) -> int:
    import shtab

    for parser in program.all():
        for action in parser._actions:
            if action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(program, shell))
    return 0
