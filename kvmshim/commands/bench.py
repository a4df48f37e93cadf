"""``kvmshim bench``: measures what accesses cost, beside the floors of the same run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

_TRANSPORTS = ("unix", "tcp")
_WAITS = ("spin", "block", "adaptive")


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "bench", help="measure what accesses cost, beside what they can't be cheaper than"
    )
    parser.add_argument("--transport", choices=_TRANSPORTS, action="append")
    parser.add_argument("--wait", choices=_WAITS, action="append")
    parser.add_argument("--count", type=_count, default=3000, help="accesses per figure")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table or the JSON object; progress goes to standard error."""
    from kvmshim.bench.rows import as_object, as_table
    from kvmshim.bench.suite import describe_host, rows

    measured = []
    for row in rows(
        options.transport or ["unix"], options.wait or ["spin", "block"], options.count
    ):
        measured.append(row)
        if sys.stderr.isatty():
            print(f"\r\033[K{row.name} {row.transport} {row.wait}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if options.json:
        print(json.dumps(as_object(describe_host(), measured), indent=2))
    else:
        print("\n".join(as_table(measured)))
    return 0


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 10 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 10 and 1000000")
    return value
