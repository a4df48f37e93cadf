"""``devserver vm``, ``client`` and ``server``: managing VMs from the server's side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from devserver.commandline.errors import CommandError, InputError
from devserver.commandline.parser import Parser
from devserver.commandline.server import SERVER_VARIABLE, server_of
from devserver.commands import looking
from devserver.commands.images import brought
from devserver.panel.default_registry import REGISTRY_VARIABLE
from devserver.protocol.names import check_name

if TYPE_CHECKING:
    from devserver.rpc import Peer

_WHAT = "a bundled guest's name, an image, or a machine file (.toml)"
_ORDERS = {
    "shutdown": "end a VM's run",
    "kill": "end it, whatever it does",
    "pause": "have it stand still",
    "suspend": "take its state from its client, to be resumed",
    "resume": "have a suspended or paused VM go on",
    "start": "run a registered VM",
    "remove": "forget a VM that does not run",
}


def add_parser(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommands."""
    orders = commands.add_parser("vm", help="launch, list and manage VMs").commands("ORDER")
    launch = _order(orders, "launch", "run a VM on a client platform", _launch)
    launch.add_argument("what", metavar="GUEST", help=_WHAT)
    launch.add_argument("--name", help="what the VM is called (default: the image's name)")
    launch.add_argument("--client", help="where to run it (default: where the fewest run)")
    launch.add_argument(
        "--wait", action="store_true", help="wait for its end, and exit with its status"
    )
    wait = _order(orders, "wait", "wait for a VM's end, and exit with its status", _wait)
    wait.add_argument("vm")
    register = _order(orders, "register", "keep a VM with its image, to be started", _register)
    register.add_argument("what", metavar="GUEST", help=_WHAT)
    register.add_argument("--name", help="what the VM is called (default: the image's name)")
    _order(orders, "list", "list all VMs", looking.list_vms).add_json()
    show = _order(orders, "show", "show a VM with its devices", looking.show_vm)
    show.add_argument("vm")
    show.add_json()
    for order, text in _ORDERS.items():
        parser = _order(orders, order, text, _give_order)
        parser.add_argument("vm")
        parser.set_defaults(order=order)
        if order in ("resume", "start"):
            parser.add_argument("--client", help="where it runs (default: where the fewest run)")
    migrate = _order(orders, "migrate", "have a running VM go on at another client", _migrate)
    migrate.add_argument("vm")
    migrate.add_argument("--client", help="where it goes (default: where the fewest run)")
    console = _order(orders, "console", "show a VM's console, and type on it", _console)
    console.add_argument("vm")
    console.add_argument("-r", "--read-only", action="store_true", help="only look")

    device = commands.add_parser("device", help="list and move the devices of a VM")
    orders = device.commands("ORDER")
    devices = _order(orders, "list", "list a VM's devices", looking.list_devices)
    devices.add_argument("vm")
    devices.add_json()
    move = _order(orders, "move", "have a device run somewhere else, as it is", _move_device)
    move.add_argument("vm")
    move.add_argument("device")
    move.add_argument("target", help="a server's name; server: the owner; local: in the client")

    orders = commands.add_parser("client", help="list client platforms").commands("ORDER")
    _order(orders, "list", "list those that the server knows", looking.list_clients).add_json()
    show = _order(orders, "show", "show a client platform", looking.show_client)
    show.add_argument("client")
    show.add_json()
    register = _order(orders, "register", "make one known in advance", _register_client)
    register.add_argument("client")

    orders = commands.add_parser("server", help="list servers").commands("ORDER")
    _order(orders, "list", "list those that the server knows", looking.list_servers).add_json()

    registry = commands.add_parser("registry", help="look after a control panel's database")
    upgrade = registry.commands("ORDER").add_parser(
        "upgrade", help="bring it to the schema of this program"
    )
    known = os.environ.get(REGISTRY_VARIABLE)
    upgrade.add_argument("--registry", required=known is None, default=known, metavar="URL")
    upgrade.set_defaults(run=_upgrade)


Work = Callable[["Peer", argparse.Namespace], Awaitable[int]]


def _order(orders: argparse._SubParsersAction[Parser], name: str, text: str, work: Work) -> Parser:
    parser = orders.add_parser(name, help=text)
    parser.add_argument(
        "--server", metavar="ADDRESS", help=f"the owner (default: {SERVER_VARIABLE})"
    )
    parser.set_defaults(run=_run, work=work)
    return parser


def _upgrade(options: argparse.Namespace) -> int:
    from devserver.panel.registry.registry import upgrade
    from devserver.rpc import RpcError

    try:
        print(f"the registry has schema {upgrade(options.registry)}")
    except RpcError as error:
        raise CommandError(str(error)) from None
    return 0


def _run(options: argparse.Namespace) -> int:
    import asyncio

    from devserver.commands.visiting import visit

    server = server_of(options.server)
    if server is None:
        raise InputError(f"say which server: --server ADDRESS, or {SERVER_VARIABLE}=ADDRESS")
    for name in ("vm", "client", "device", "target"):
        if not (said := getattr(options, name, None) or "").isprintable():
            raise InputError(f"{name} {said!r} can't be a name")
    return asyncio.run(visit(server, options))


async def _move_device(peer: Peer, options: argparse.Namespace) -> int:
    await peer.call("move_device", vm=options.vm, device=options.device, target=options.target)
    print(f"device '{options.device}' of VM '{options.vm}' runs on '{options.target}'")
    return 0


async def _register_client(peer: Peer, options: argparse.Namespace) -> int:
    number = await peer.call("register_client", name=check_name("a client", options.client))
    print(f"client {number} '{options.client}' is registered")
    return 0


async def _launch(peer: Peer, options: argparse.Namespace) -> int:
    from devserver.rpc import RpcError

    wanted = await brought(peer, options.what, options.name)
    try:
        vm = await peer.call("launch", client=options.client, **wanted)
    except RpcError as error:  # the client has a copy of the machine file, under another name
        raise CommandError(str(error).replace("machine.toml:", f"{options.what}:")) from None
    print(f"VM {vm['vm_id']} '{vm['name']}' runs on client '{vm['client']}'", flush=True)
    return await _end_of(peer, vm["vm_id"]) if options.wait else 0


async def _wait(peer: Peer, options: argparse.Namespace) -> int:
    return await _end_of(peer, options.vm)


async def _end_of(peer: Peer, vm: str | int) -> int:
    """Waits for a VM's end; the exit status that ``kvmshim run`` would have."""
    ended = await peer.call("wait", vm=str(vm))
    said = f"VM {ended['vm_id']} '{ended['name']}' is {ended['state']}: {ended['why']}"
    if ended["exit_status"] is None:
        raise CommandError(said.removesuffix(": "))
    print(said)
    return int(ended["exit_status"])


async def _register(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("register", **await brought(peer, options.what, options.name))
    name = vm["name"]
    print(f"VM {vm['vm_id']} '{name}' is registered; 'devserver vm start {name}' runs it")
    return 0


async def _give_order(peer: Peer, options: argparse.Namespace) -> int:
    order, more = options.order, {}
    if order in ("shutdown", "kill"):
        order, more = "shutdown", {"kill": order == "kill"}
    elif order in ("resume", "start"):
        more = {"client": options.client}
    vm = await peer.call(order, vm=options.vm, **more)
    if order == "remove":
        print(f"VM {vm['vm_id']} '{vm['name']}' is forgotten")
        return 0
    shown = await peer.call("show", vm=str(vm["vm_id"]))
    if order in ("resume", "start") and shown["state"] in ("failed", "lost", "unreachable"):
        raise CommandError(
            f"VM {shown['vm_id']} '{shown['name']}' is {shown['state']}: {shown['why']}"
        )
    print(f"VM {shown['vm_id']} '{shown['name']}' is {shown['state']}")
    return 0


async def _migrate(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("migrate", vm=options.vm, client=options.client)
    rounds = vm["rounds"]
    print(
        f"VM {vm['vm_id']} '{vm['name']}' is on client '{vm['client']}': {sum(rounds)} bytes in "
        f"{len(rounds)} rounds, downtime {vm['downtime_ns'] / 1e6:.1f} ms"
    )
    return 0


async def _console(peer: Peer, options: argparse.Namespace) -> int:
    from devserver.commands.console import show

    return await show(peer, options.handlers, options.vm, read_only=options.read_only)
