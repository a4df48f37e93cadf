"""The commands that list and show: what the control panel knows, as tables or as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from devserver.commandline.errors import CommandError
from devserver.commandline.parser import nearest
from devserver.commandline.tables import print_json, print_table

if TYPE_CHECKING:
    from devserver.rpc import Peer

_SERVER_KEYS = ("server_id", "name", "kind", "up", "owner", "address")


async def list_vms(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver vm list``."""
    vms = await peer.call("vms")
    if options.json:
        print_json(vms)
        return 0
    rows = [
        (
            vm["vm_id"],
            vm["name"],
            vm["state"],
            vm["client"] or "-",
            vm["server"],
            _size(vm),
            _status(vm),
            vm["why"],
        )
        for vm in vms
    ]
    print_table(("id", "name", "state", "client", "server", "memory", "status", "why"), rows)
    return 0


async def show_vm(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver vm show``."""
    vm = await peer.call("show", vm=options.vm)
    if options.json:
        print_json(vm)
        return 0
    for key in ("vm_id", "name", "state", "why", "client", "server", "hypervisor"):
        print(f"{key:12} {vm[key]}")
    print(f"{'memory':12} {_size(vm)}")
    print(f"{'status':12} {_status(vm)}")
    _device_table(vm)
    return 0


async def list_devices(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver device list``."""
    vm = await peer.call("show", vm=options.vm)
    if options.json:
        print_json(vm["devices"])
    else:
        _device_table(vm)
    return 0


def _status(vm: Mapping[str, Any]) -> str:
    """The exit status of a VM that has ended."""
    return "-" if vm["exit_status"] is None else str(vm["exit_status"])


def _device_table(vm: Mapping[str, Any]) -> None:
    rows = [(d["name"], d["kind"], d["version"], d["place"]) for d in vm["devices"]]
    print_table(("device", "kind", "version", "where"), rows)


async def list_clients(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver client list``."""
    clients = await peer.call("clients")
    if options.json:
        print_json(clients)
        return 0
    rows = [
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
    ]
    print_table(("id", "name", "host", "state", "hypervisors", "server", "VMs"), rows)
    return 0


async def show_client(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver client show``."""
    clients = {str(c[key]): c for c in await peer.call("clients") for key in ("client_id", "name")}
    if options.client not in clients:
        hint = nearest(options.client, clients) or "see 'devserver client list'"
        raise CommandError(f"no client '{options.client}' is known; {hint}")
    client = clients[options.client]
    if options.json:
        print_json(client)
        return 0
    for key in ("client_id", "name", "hostname", "server"):
        print(f"{key:12} {client[key]}")
    print(f"{'registered':12} {'yes' if client['registered'] else 'no'}")
    print(f"{'VMs':12} {', '.join(client['vms'])}")
    for hypervisor in client["hypervisors"]:
        print(f"{'hypervisor':12} {hypervisor['kind']} {hypervisor['version']}")
        for name, value in sorted(hypervisor["capabilities"].items()):
            print(f"{'':12} {name} {value}")
    return 0


async def list_servers(peer: Peer, options: argparse.Namespace) -> int:
    """``devserver server list``."""
    answer = await peer.call("servers")
    if options.json:
        servers = [{key: server[key] for key in _SERVER_KEYS} for server in answer["servers"]]
        print_json({"servers": servers, "refused": answer["refused"]})
        return 0
    rows = [
        (
            s["server_id"],
            s["name"],
            s["kind"],
            "up" if s["up"] else "down",
            s["owner"] or "-",
            s["address"],
        )
        for s in answer["servers"]
    ]
    print_table(("id", "name", "kind", "state", "owner", "address"), rows)
    if answer["refused"]:
        counts = ", ".join(f"{code} {count}" for code, count in answer["refused"].items())
        print(f"messages refused by the owner: {counts}")
    return 0


def _size(vm: Mapping[str, Any]) -> str:
    return f"{vm['memory_bytes'] >> 20}M" if vm["memory_bytes"] else ""
