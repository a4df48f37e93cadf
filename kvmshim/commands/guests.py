"""``kvmshim guests``: lists the bundled guests."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser("guests", help="list the bundled guests")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints one line per guest."""
    from kvmshim.bundled import guests

    for guest in guests().values():
        print(f"{guest.name:14} {guest.description}")
    return 0
