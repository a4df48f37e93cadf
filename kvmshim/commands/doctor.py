"""``kvmshim doctor``: says what this host offers for running guests."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from devserver.commandline.progress import Progress
from kvmshim.vmm import outcome

if TYPE_CHECKING:
    from kvmshim.doctor import Host

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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, host: Host | None = None) -> int:
    """Prints the table or the JSON object; returns the exit status. ``host`` is this one."""
    from kvmshim.doctor import ThisHost, as_table, examine

    with Progress("looking at this host"):
        report = examine(host or ThisHost())
    if options.json:
        print(json.dumps(report.as_object(), indent=2))
    else:
        print("\n".join(as_table(report, colour=wants_colour(sys.stdout, os.environ))))
    return 0 if report.ok else outcome.EXIT_HOST


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether ``stream`` is a terminal that shows colours and nobody objects (no-color.org)."""
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb"
    return stream.isatty() and not plain
