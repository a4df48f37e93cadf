"""``kvmshim resume``: goes on with a guest that was suspended to a file."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from devserver.commandline.progress import Progress
from devserver.commandline.server import server_of
from kvmshim.commands import suspending
from kvmshim.commands.reporting import told
from kvmshim.commands.run import add_common, run_to_the_end
from kvmshim.remote.embedded_server import ServerProcess


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser("resume", help="go on with a guest that was suspended")
    parser.add_argument("file", metavar="FILE", help="what --suspend-to has written")
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="device server (default: KVMSHIM_SERVER if that is set, else one of this VM's own)",
    )
    parser.add_argument("--model", action="append", default=[], metavar="FILE.py")
    add_common(parser)
    suspending.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Goes on with the guest; returns the exit status."""
    return told(lambda: _go_on(options), as_json=options.json)


def _go_on(options: argparse.Namespace) -> int:
    options.server = server_of(options.server)
    suspending.check_options(options)
    from kvmshim.remote.link import WaitPolicy
    from kvmshim.vmm.machine import Machine
    from kvmshim.vmstate.file import read_state

    with contextlib.ExitStack() as stack:
        with Progress(f"reading {options.file}"):
            state = read_state(Path(options.file))
        process = None
        if options.server is None and any(
            device.placement != "local" for device in state.header.machine.devices
        ):
            process = ServerProcess(options.model, options.wait, options.model_timeout)
            stack.callback(process.close)
        machine = Machine.restored(
            state,
            server=options.server,
            models=options.model,
            wait=WaitPolicy(
                options.wait,
                options.cores,
                share=options.share,
                model_timeout_s=options.model_timeout,
            ),
            process=process,
        )
        return run_to_the_end(stack.enter_context(machine), options)
