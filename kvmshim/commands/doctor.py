"""``kvmshim doctor``: says what this host offers for running guests."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from kvmshim import outcome

_EPILOG = """\
exit status: 0 if guests can run here, 114 if they can't.
Colours appear on a terminal only, and not with NO_COLOR set.
"""


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what this host offers for running guests, and what to do about each lack",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (docs/doctor.md)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table or the JSON object; returns the exit status."""
    from kvmshim.doctor import ThisHost, as_table, examine

    report = examine(ThisHost())
    if options.json:
        print(json.dumps(report.as_object(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(as_table(report, colour=_wants_colour())))
    return 0 if report.ok else outcome.EXIT_HOST


def _wants_colour() -> bool:
    """Whether standard output is a terminal that shows colours and nobody objects."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain
