"""``kvmshim agent``: runs VMs for a server's control panel."""

from __future__ import annotations

import argparse
import shutil
import socket

from kvmshim import termination
from kvmshim.commands.run import add_model_timeout, add_sharing
from kvmshim.errors import InputError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("agent", help="run VMs for a server's control panel")
    parser.add_argument("--server", required=True, metavar="ADDRESS", help="the owner's address")
    parser.add_argument("--name", default=_host_name(), help="what this client is called")
    parser.add_argument(
        "--wait-for-server",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait for a server that is not there yet (default), or end at once",
    )
    parser.add_argument("--wait", choices=("adaptive", "spin", "block"), default="adaptive")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="make this file's device models known to devices that are placed here",
    )
    add_sharing(parser)
    add_model_timeout(parser)
    parser.set_defaults(run=run)


def _host_name() -> str:
    """This host's name; one that is a number (a container's may be) would be no name."""
    name = socket.gethostname()
    return f"host-{name}" if name.isnumeric() else name


def run(options: argparse.Namespace) -> int:
    """Serves the panel until it is interrupted."""
    import asyncio

    from devserver.protocol.address import AddressError, parse_address
    from devserver.protocol.names import BadName, check_name
    from devserver.temporary import own_folder
    from kvmshim.agent.abilities import hypervisors
    from kvmshim.agent.agent import Agent
    from kvmshim.hypervisor.kvm.system import System
    from kvmshim.remote.link import WaitPolicy
    from kvmshim.vmm.placement import load_models

    try:
        parse_address(options.server)
    except AddressError as error:
        raise InputError(f"--server: {error}") from None
    try:
        check_name("a client", options.name)
    except BadName as error:
        raise InputError(f"--name: {error}") from None
    load_models(options.model)
    kinds = [hypervisor["kind"] for hypervisor in hypervisors()]
    if not kinds or "kvm" in kinds:
        with System() as system:  # better now than at the first launch
            system.require()
    wait = WaitPolicy(options.wait, share=options.share, model_timeout_s=options.model_timeout)
    agent = Agent(options.server, options.name, wait, patient=options.wait_for_server)
    with (
        own_folder("kvmshim-agent-") as folder,
        termination.at_last(lambda: shutil.rmtree(folder, ignore_errors=True)),
        termination.asking(agent.end),
    ):
        try:
            asyncio.run(agent.run())
        finally:
            agent.close()
    termination.check()
    return 0
