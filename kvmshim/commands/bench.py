"""``kvmshim bench``: measures what accesses cost, beside the floors of the same run."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kvmshim.errors import InputError

if TYPE_CHECKING:
    from kvmshim.bench.rows import Row
    from kvmshim.bench.suite import Choice

_TRANSPORTS = ("unix", "tcp")
_WAITS = ("spin", "block", "adaptive")
_CORES = ("auto", "any", "same", "apart")


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "bench", help="measure what accesses cost, beside what they can't be cheaper than"
    )
    parser.add_argument("--transport", choices=_TRANSPORTS, action="append")
    parser.add_argument("--wait", choices=_WAITS, action="append")
    parser.add_argument(
        "--cores",
        choices=_CORES,
        default="auto",
        help="where both ends of a row and of its floor run (auto: on one core to block, else any)",
    )
    parser.add_argument("--count", type=_count, default=3000, help="accesses per figure")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="only these rows")
    parser.add_argument(
        "--server", metavar="ADDRESS", help="measure against this server instead of own ones"
    )
    parser.add_argument(
        "--compare", metavar="OLD.json", help="set the ratios beside those of an earlier --json"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table or the JSON object; progress goes to standard error."""
    from kvmshim.bench.compare import as_lines, compare, read_rows
    from kvmshim.bench.rows import as_object, as_table
    from kvmshim.bench.suite import describe_host

    before = read_rows(options.compare) if options.compare else None
    rows = _measure(_choice(options))
    if options.json:
        document = as_object(describe_host(), rows)
        if before is not None:
            document["compared"] = asdict(compare(before, rows))
        print(json.dumps(document, indent=2))
    elif before is None:
        print("\n".join(as_table(rows)))
    else:
        print("\n".join(as_lines(before, rows)))
    return 0


def _choice(options: argparse.Namespace) -> Choice:
    from kvmshim.bench.suite import NAMES, Choice

    for name in options.only:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(NAMES)}"
            raise InputError(f"--only {name}: there is no such row; {hint}")
    return Choice(
        transports=options.transport or ("unix",),
        waits=options.wait or ("spin", "block"),
        cores=options.cores,
        count=options.count,
        only=options.only,
        server=options.server,
    )


def _measure(choice: Choice) -> list[Row]:
    from kvmshim.bench.suite import Suite

    progress = _Progress()
    rows: list[Row] = []
    with Suite(choice, progress.note) as suite:
        steps = suite.steps()
        for number, step in enumerate(steps, 1):
            progress.show(f"{number}/{len(steps)} {step.title()}")
            rows += step.run()
    progress.show("")
    return [row for row in rows if not choice.only or row.name in choice.only]


class _Progress:
    """One line on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Replaces the line."""
        if self._shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays, terminal or not."""
        self.show("")
        print(f"kvmshim: {text}", file=sys.stderr)


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 10 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 10 and 1000000")
    return value
