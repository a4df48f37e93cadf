"""``kvmshim lab``: runs a command in a network of its own, with a server far away."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from importlib.util import find_spec
from typing import Any

from devserver.commandline.progress import Progress
from kvmshim.errors import HostError, InputError

_EPILOG = """\
COMMAND finds the first server's address in KVMSHIM_SERVER, which 'kvmshim run' looks at, and all of
them in KVMSHIM_SERVER_1 and so on. Options of COMMAND come after --.
exit status: the command's own, or 128 and the number of the signal that ended it; 113 bad input;
114 the host lacks something; 130 and 143 stopped by a signal.
"""


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "lab",
        help="run a command in a small network with device servers",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rtt", default="0", metavar="TIME", help="such as 100us or 1ms")
    parser.add_argument("--loss", default="0%", metavar="PERCENT", help="such as 0.1%%")
    parser.add_argument(
        "--servers", type=int, default=1, metavar="N", help="device servers to start (default: 1)"
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="make this file's device models known to the servers",
    )
    parser.add_argument(
        "--json", action="store_true", help="describe the lab as a JSON object on standard error"
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after --")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command in a lab; returns its exit status."""
    from kvmshim.lab.quantities import parse_duration_ns, parse_share

    rtt_ns, loss = parse_duration_ns(options.rtt), parse_share(options.loss)
    if find_spec("pyroute2") is None:
        raise HostError("kvmshim lab needs pyroute2; install it with: pip install 'kvmshim[lab]'")
    if os.geteuid() != 0:
        raise HostError("kvmshim lab builds network namespaces and needs root; run it with sudo")
    from kvmshim.lab.network import MAX_SERVERS
    from kvmshim.lab.run import Lab, check_command, run_in_lab

    if not 1 <= options.servers <= MAX_SERVERS:
        raise InputError(f"--servers {options.servers}: give a number from 1 to {MAX_SERVERS}")
    check_command(options.command)
    with contextlib.ExitStack() as stack:
        with Progress(f"building a lab with {options.servers} servers"):
            lab = stack.enter_context(Lab(rtt_ns, loss, options.servers, options.model))
        about = lab.conditions
        said = about.as_json() if options.json else f"kvmshim: {about.in_words()}"
        print(said, file=sys.stderr, flush=True)
        return run_in_lab(lab, options.command)
