"""``kvmshim doctor``."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser("doctor", help="doctor")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    raise NotImplementedError
