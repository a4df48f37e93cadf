"""``devserver vm``, ``client`` and ``server``: managing VMs from the server's side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devserver.panel.default_registry import REGISTRY_VARIABLE
from devserver.protocol.names import check_name

if TYPE_CHECKING:
    from devserver.rpc import Peer

#: Where the server is, unless the command line says so.
SERVER_VARIABLE = "KVMSHIM_SERVER"

_ORDERS = {
    "shutdown": "end a VM's run",
    "kill": "end it, whatever it does",
    "pause": "have it stand still",
    "suspend": "take its state from its client, to be resumed",
    "resume": "have a suspended or paused VM go on",
    "start": "run a registered VM",
    "remove": "forget a VM that does not run",
}


class CommandError(Exception):
    """A command that failed; the message says why."""


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the subcommands."""
    vm = commands.add_parser("vm", help="launch, list and manage VMs")
    orders = vm.add_subparsers(required=True, metavar="ORDER")
    launch = _order(orders, "launch", "run a VM on a client platform", _launch)
    launch.add_argument("what", metavar="IMAGE|MACHINE.toml")
    launch.add_argument("--name", help="what the VM is called (default: the image's name)")
    launch.add_argument("--client", help="where to run it (default: where the fewest run)")
    register = _order(orders, "register", "keep a VM with its image, to be started", _register)
    register.add_argument("what", metavar="IMAGE|MACHINE.toml")
    register.add_argument("--name", help="what the VM is called (default: the image's name)")
    _order(orders, "list", "list all VMs", _list)
    _order(orders, "show", "show a VM with its devices", _show).add_argument("vm")
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
    orders = device.add_subparsers(required=True, metavar="ORDER")
    _order(orders, "list", "list a VM's devices", _list_devices).add_argument("vm")
    move = _order(orders, "move", "have a device run somewhere else, as it is", _move_device)
    move.add_argument("vm")
    move.add_argument("device")
    move.add_argument("target", help="a server's name, or local: in the client")

    for noun, text in (("client", "client platforms"), ("server", "servers")):
        parser = commands.add_parser(noun, help=f"list {text}")
        orders = parser.add_subparsers(required=True, metavar="ORDER")
        run = _list_clients if noun == "client" else _list_servers
        _order(orders, "list", f"list the {text} that the server knows", run)
        if noun == "client":
            _order(orders, "show", "show a client platform", _show_client).add_argument("client")
            register = _order(orders, "register", "make one known in advance", _register_client)
            register.add_argument("client")

    registry = commands.add_parser("registry", help="look after a control panel's database")
    orders = registry.add_subparsers(required=True, metavar="ORDER")
    upgrade = orders.add_parser("upgrade", help="bring it to the schema of this program")
    known = os.environ.get(REGISTRY_VARIABLE)
    upgrade.add_argument("--registry", required=known is None, default=known, metavar="URL")
    upgrade.set_defaults(run=_upgrade)


Work = Callable[["Peer", argparse.Namespace], Awaitable[int]]


def _order(orders: Any, name: str, text: str, work: Work) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = orders.add_parser(name, help=text)
    parser.add_argument(
        "--server", default=os.environ.get(SERVER_VARIABLE), metavar="ADDRESS", help="the owner"
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

    from devserver.protocol.address import parse_address

    if options.server is None:
        raise CommandError(f"say which server: --server ADDRESS, or {SERVER_VARIABLE}=ADDRESS")
    parse_address(options.server)
    return asyncio.run(_visit(options))


async def _visit(options: argparse.Namespace) -> int:
    import asyncio

    from devserver.rpc import Peer, RpcError, connect_panel

    try:
        reader, writer = await connect_panel(options.server, "operator", "")
    except OSError as error:
        raise CommandError(
            f"can't reach the server at {options.server}: {error.strerror or error}; "
            f"is 'devserver serve --listen {options.server}' running there?"
        ) from None
    options.handlers = {}
    peer = Peer(reader, writer, options.handlers)
    serving = asyncio.get_running_loop().create_task(peer.serve())
    try:
        status: int = await options.work(peer, options)
        return status
    except RpcError as error:
        raise CommandError(str(error)) from None
    finally:
        peer.close()
        serving.cancel()


# -- looking ----------------------------------------------------------------------------------


async def _list(peer: Peer, options: argparse.Namespace) -> int:
    vms = await peer.call("vms")
    rows = [
        (vm["vm_id"], vm["name"], vm["state"], vm["client"] or "-", vm["server"], _size(vm))
        for vm in vms
    ]
    why = [vm["why"] for vm in vms]
    heads = ("id", "name", "state", "client", "server", "memory", "why")
    _table(heads, [(*row, reason) for row, reason in zip(rows, why, strict=True)])
    return 0


async def _show(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("show", vm=options.vm)
    for key in ("vm_id", "name", "state", "why", "client", "server", "hypervisor"):
        print(f"{key:12} {vm[key]}")
    print(f"{'memory':12} {_size(vm)}")
    _device_table(vm)
    return 0


async def _list_devices(peer: Peer, options: argparse.Namespace) -> int:
    _device_table(await peer.call("show", vm=options.vm))
    return 0


async def _move_device(peer: Peer, options: argparse.Namespace) -> int:
    await peer.call("move_device", vm=options.vm, device=options.device, target=options.target)
    print(f"device '{options.device}' of VM '{options.vm}' runs on '{options.target}'")
    return 0


def _device_table(vm: dict[str, Any]) -> None:
    rows = [(d["name"], d["kind"], d["version"], d["place"]) for d in vm["devices"]]
    _table(("device", "kind", "version", "where"), rows)


async def _list_clients(peer: Peer, options: argparse.Namespace) -> int:
    clients = await peer.call("clients")
    _table(
        ("id", "name", "host", "state", "hypervisors", "server", "VMs"),
        [
            (
                client["client_id"],
                client["name"],
                client["hostname"],
                "online" if client["online"] else "offline",
                ",".join(one["kind"] for one in client["hypervisors"]),
                client["server"],
                len(client["vms"]),
            )
            for client in clients
        ],
    )
    return 0


async def _show_client(peer: Peer, options: argparse.Namespace) -> int:
    clients = {str(c[key]): c for c in await peer.call("clients") for key in ("client_id", "name")}
    if options.client not in clients:
        raise CommandError(f"no client '{options.client}' is known; see 'devserver client list'")
    client = clients[options.client]
    for key in ("client_id", "name", "hostname", "server"):
        print(f"{key:12} {client[key]}")
    print(f"{'registered':12} {'yes' if client['registered'] else 'no'}")
    print(f"{'VMs':12} {', '.join(client['vms'])}")
    for hypervisor in client["hypervisors"]:
        print(f"{'hypervisor':12} {hypervisor['kind']} {hypervisor['version']}")
        for name, value in sorted(hypervisor["capabilities"].items()):
            print(f"{'':12} {name} {value}")
    return 0


async def _register_client(peer: Peer, options: argparse.Namespace) -> int:
    number = await peer.call("register_client", name=options.client)
    print(f"client {number} '{options.client}' is registered")
    return 0


async def _list_servers(peer: Peer, options: argparse.Namespace) -> int:
    answer = await peer.call("servers")
    rows = [
        (s["server_id"], s["name"], s["kind"], "up" if s["up"] else "down", s["owner"] or "-")
        for s in answer["servers"]
    ]
    addresses = [s["address"] for s in answer["servers"]]
    heads = ("id", "name", "kind", "state", "owner", "address")
    _table(heads, [(*row, where) for row, where in zip(rows, addresses, strict=True)])
    if answer["refused"]:
        counts = ", ".join(f"{code} {count}" for code, count in answer["refused"].items())
        print(f"messages refused by the owner: {counts}")
    return 0


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _size(vm: dict[str, Any]) -> str:
    return f"{vm['memory_bytes'] >> 20}M" if vm["memory_bytes"] else ""


# -- orders -----------------------------------------------------------------------------------


async def _launch(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("launch", client=options.client, **await _brought(peer, options))
    print(f"VM {vm['vm_id']} '{vm['name']}' runs on client '{vm['client']}'")
    return 0


async def _register(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("register", **await _brought(peer, options))
    name = vm["name"]
    print(f"VM {vm['vm_id']} '{name}' is registered; 'devserver vm start {name}' runs it")
    return 0


async def _brought(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    """A machine and its image, which is sent."""
    what = Path(options.what)
    name = check_name("a VM", options.name or what.stem)
    machine, image = "", what
    if what.suffix == ".toml":
        machine = _read(what).decode(errors="replace")
        image = _image_of(what, machine)
    _read(image)
    return {
        "name": name,
        "machine": machine,
        "image": await peer.send_parcel(image),
        "image_name": image.name,
    }


def _image_of(path: Path, machine: str) -> Path:
    import tomllib

    try:
        image = tomllib.loads(machine)["image"]["path"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CommandError(f"machine file {path}: no [image] with a path: {error}") from None
    return path.parent / str(image)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"can't read {path}: {error.strerror}") from None


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
