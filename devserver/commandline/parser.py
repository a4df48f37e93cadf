"""The parser of both programs: a wrong command line gets one line with the nearest right word."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from devserver.version import __version__

#: The exit status for a wrong command line, and for anything given that can't be used.
EXIT_USAGE = 113

_NUMBER = re.compile(r"-\d|-\.\d")


class Parser(argparse.ArgumentParser):
    """An argument parser whose subcommands judge their own words."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._given: list[str] = []
        self._children: dict[str, Parser] = {}

    def commands(self, metavar: str = "COMMAND") -> argparse._SubParsersAction[Parser]:
        """Where subcommands are added."""
        commands = self.add_subparsers(required=True, metavar=metavar, parser_class=Parser)
        self._children = commands.choices
        return commands

    def child(self, words: Sequence[str]) -> Parser | None:
        """The parser of a subcommand (of a subcommand …); None if there is none."""
        found: Parser | None = self
        for word in words:
            found = found._children.get(word) if found else None
        return found

    def children(self) -> list[str]:
        """The names of the subcommands that help shows."""
        actions = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        return [shown.dest for action in actions for shown in action._choices_actions]

    def all(self) -> Iterator[Parser]:
        """This parser, and those of all its subcommands."""
        yield self
        yield from self._descendants()

    def add_version(self) -> None:
        """Adds ``--version``."""
        self.add_argument(
            "--version",
            action="version",
            version=f"%(prog)s {__version__}",
            help="print the version and exit",
        )

    def add_json(self, what: str = "print JSON instead of a table") -> None:
        """Adds ``--json``."""
        self.add_argument("--json", action="store_true", help=what)

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line, and the status of a wrong command line."""
        unknown = next(self._unknown(), None)
        if unknown is not None and not message.startswith("argument -"):
            # What argparse misses is most likely what was misspelt.
            message = f"unrecognized arguments: {unknown}{self._hint(unknown)}"
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see '{self.prog} --help'\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As inherited, but words that mean nothing are an error, here and now.

        argparse hands them up to the program's own parser, which then points at the wrong help.
        """
        self._given = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = isinstance(action, argparse._SubParsersAction)
        names = self.children() if known else [str(choice) for choice in action.choices]
        hint = nearest(str(value), names) or f"choose from {', '.join(names)}"
        raise argparse.ArgumentError(action, f"invalid choice: '{value}' ({hint})")

    def _unknown(self) -> Iterator[str]:
        """The options given that this parser does not have."""
        known = self._option_string_actions
        for word in self._given:
            if word == "--" or (self._children and not word.startswith("-")):
                return
            name = word.partition("=")[0]
            if name == "-" or not name.startswith("-") or _NUMBER.match(name):
                continue
            begins = name if name.startswith("--") else name[:2]
            if name not in known and not any(option.startswith(begins) for option in known):
                yield name

    def _descendants(self) -> Iterator[Parser]:
        for child in self._children.values():
            yield child
            yield from child._descendants()

    def _hint(self, unknown: str) -> str:
        for child in self._descendants():
            if unknown in child._option_string_actions:
                return f" (it is an option of '{child.prog}', and comes after that)"
        near = nearest(unknown, self._option_string_actions)
        return f" ({near})" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The question whether the nearest of these was meant; empty if none is near."""
    from difflib import get_close_matches  # only for who made a mistake: it takes its time to load

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""
