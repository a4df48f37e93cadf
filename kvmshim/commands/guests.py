"""``kvmshim guests``: lists the bundled guests."""

from __future__ import annotations

import argparse
from typing import Any

from devserver.commandline.tables import print_json


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser("guests", help="list the bundled guests")
    parser.add_json()
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints one line per guest."""
    from kvmshim.bundled import guests

    known = guests().values()
    if options.json:
        print_json(
            [{"name": g.name, "description": g.description, "path": str(g.path)} for g in known]
        )
        return 0
    for guest in known:
        print(f"{guest.name:14} {guest.description}")
    return 0
