"""``devserver vm``, ``client`` and ``server``: managing VMs from the server's side."""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    _order(orders, "list", "list all VMs", _list)
    _order(orders, "show", "show a VM with its devices", _show).add_argument("vm")
    for order, text in _ORDERS.items():
        parser = _order(orders, order, text, _give_order)
        parser.add_argument("vm")
        parser.set_defaults(order=order)
        if order == "resume":
            parser.add_argument("--client", help="where it goes on (default: where the fewest run)")
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


Work = Callable[["Peer", argparse.Namespace], Awaitable[int]]


def _order(orders: Any, name: str, text: str, work: Work) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = orders.add_parser(name, help=text)
    parser.add_argument(
        "--server", default=os.environ.get(SERVER_VARIABLE), metavar="ADDRESS", help="the owner"
    )
    parser.set_defaults(run=_run, work=work)
    return parser


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
    _table(
        ("id", "name", "state", "client", "memory", "why"),
        [(vm["vm_id"], vm["name"], vm["state"], vm["client"], _size(vm), vm["why"]) for vm in vms],
    )
    return 0


async def _show(peer: Peer, options: argparse.Namespace) -> int:
    vm = await peer.call("show", vm=options.vm)
    for key in ("vm_id", "name", "state", "why", "client", "hypervisor"):
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
        ("id", "name", "host", "state", "hypervisors", "VMs"),
        [
            (
                client["client_id"],
                client["name"],
                client["hostname"],
                "online" if client["online"] else "offline",
                ",".join(client["hypervisors"]),
                len(client["vms"]),
            )
            for client in clients
        ],
    )
    return 0


async def _list_servers(peer: Peer, options: argparse.Namespace) -> int:
    answer = await peer.call("servers")
    rows = [(s["server_id"], s["name"], s["kind"], s["address"]) for s in answer["servers"]]
    _table(("id", "name", "kind", "address"), rows)
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
    what = Path(options.what)
    machine, image = "", what
    if what.suffix == ".toml":
        machine = _read(what).decode(errors="replace")
        image = _image_of(what, machine)
    _read(image)
    vm = await peer.call(
        "launch",
        name=options.name or what.stem,
        machine=machine,
        image=await peer.send_parcel(image),
        image_name=image.name,
        client=options.client,
    )
    print(f"VM {vm['vm_id']} '{vm['name']}' runs on client '{vm['client']}'")
    return 0


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
    elif order == "resume":
        more = {"client": options.client}
    vm = await peer.call(order, vm=options.vm, **more)
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
    from devserver.console import show

    return await show(peer, options.handlers, options.vm, read_only=options.read_only)
