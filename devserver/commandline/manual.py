"""``help``: the manuals, as pages of text, and each command's own help."""

from __future__ import annotations

import argparse
import pydoc
import sys
from pathlib import Path

from devserver.commandline.errors import InputError
from devserver.commandline.parser import Parser, nearest

_HERE = Path(__file__).resolve().parent


def folder() -> Path:
    """Where the manuals are: inside an installed package, beside it in a source tree."""
    installed = _HERE.parent / "_docs"
    return installed if installed.is_dir() else _HERE.parents[1] / "docs"


def topics() -> dict[str, str]:
    """The manuals by name, each with its title."""
    return {
        page.stem: page.read_text("utf-8").partition("\n")[0].lstrip("# ")
        for page in sorted(folder().glob("*.md"))
    }


def add_help(program: Parser, commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the command ``help``."""
    parser = commands.add_parser("help", help="show a manual, or a command's own help")
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help="a manual or a command")
    parser.set_defaults(run=lambda options: _help(program, options.topic))


def _help(program: Parser, words: list[str]) -> int:
    known = topics()
    if not words:
        program.print_help()
        print(f"\nmanuals, for '{program.prog} help TOPIC':")
        for name, title in known.items():
            print(f"  {name:14} {title}")
        return 0
    if words[0] in known and len(words) == 1:
        _show(folder().joinpath(f"{words[0]}.md").read_text("utf-8"))
        return 0
    child = program.child(words)
    if child is None:
        hint = nearest(" ".join(words), [*known, *program.children()])
        hint = hint or f"'{program.prog} help' lists them"
        raise InputError(f"there is no manual and no command '{' '.join(words)}'; {hint}")
    child.print_help()
    return 0


def _show(text: str) -> None:
    if sys.stdout.isatty():
        pydoc.pager(text)
    else:
        print(text, end="")
