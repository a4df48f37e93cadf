"""The server in one network namespace, the guest in another, a cable between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from commandline import DevServer, devserver, kvmshim
from pyroute2 import IPRoute, NetNS, netns

pytestmark = [pytest.mark.kvm, pytest.mark.netns]

#: TEST-NET-1 (RFC 5737).
SERVER, CLIENT, PREFIX = "192.0.2.1", "192.0.2.2", 24


class Cable:
    """Two namespaces joined by a pair of virtual Ethernet devices."""

    def __init__(self) -> None:
        mark = f"kvmshim-{os.getpid()}"
        self.server, self.client = f"{mark}-server", f"{mark}-client"
        self._ends = (f"kve{os.getpid()}s", f"kve{os.getpid()}c")

    def __enter__(self) -> Cable:
        with ExitStack() as undo:
            for name in (self.server, self.client):
                netns.create(name)
                undo.callback(netns.remove, name)
            with IPRoute() as host:
                host.link("add", ifname=self._ends[0], kind="veth", peer={"ifname": self._ends[1]})
                undo.callback(self._remove_cable)
                for end, space in zip(self._ends, (self.server, self.client), strict=True):
                    (index,) = host.link_lookup(ifname=end)
                    host.link("set", index=index, net_ns_fd=space)
            self._bring_up(self.server, self._ends[0], SERVER)
            self._bring_up(self.client, self._ends[1], CLIENT)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _remove_cable(self) -> None:
        """Takes away an end that a failed set-up left here; inside, they go with a namespace."""
        with IPRoute() as host:
            for index in host.link_lookup(ifname=self._ends[0]):
                host.link("del", index=index)

    @staticmethod
    def _bring_up(space: str, end: str, address: str) -> None:
        with NetNS(space) as inside:
            for device in (end, "lo"):
                (index,) = inside.link_lookup(ifname=device)
                inside.link("set", index=index, state="up")
            (index,) = inside.link_lookup(ifname=end)
            inside.addr("add", index=index, address=address, prefixlen=PREFIX)


def inside(space: str) -> tuple[str, ...]:
    """What stands before a command that is to run in a namespace."""
    return ("ip", "netns", "exec", space)


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    with Cable() as made:
        yield made


@pytest.fixture(scope="module")
def server(cable: Cable) -> Iterator[DevServer]:
    with devserver(f"tcp://{SERVER}:0", before=inside(cable.server)) as made:
        yield made


@pytest.mark.parametrize(
    ("guest", "given", "output"),
    [
        ("hello", b"", b"Hello from a real CPU; my devices are somewhere else.\r\n"),
        ("echo", b"across a cable\x04", b"ready\r\nacross a cable"),
    ],
)
def test_a_guest_finds_its_devices_across_a_network(
    guest: str, given: bytes, output: bytes, cable: Cable, server: DevServer
) -> None:
    run = ("run", guest, "--server", server.address, "--timeout", "40")
    result = kvmshim(*run, given=given, before=inside(cable.client))
    assert (result.returncode, result.stdout, result.stderr) == (0, output, b"")


def test_interrupts_come_across_a_network_and_none_is_lost(cable: Cable, server: DevServer) -> None:
    run = ("run", "storm", "--server", server.address, "--timeout", "40")
    result = kvmshim(*run, before=inside(cable.client))
    assert result.stdout.endswith(b"\r\nnothing was lost\r\n")


def test_the_server_is_out_of_reach_from_anywhere_else(server: DevServer) -> None:
    """Only the cable leads there: what the other tests saw did cross it."""
    port = server.address.rpartition(":")[2]
    result = kvmshim("run", "hello", "--server", f"tcp://127.0.0.1:{port}")
    assert result.returncode == 115


def test_an_address_where_nobody_is_is_told_soon(cable: Cable) -> None:
    nobody = f"tcp://{SERVER}:9"
    result = kvmshim("run", "hello", "--server", nobody, before=inside(cable.client))
    assert result.returncode == 115
    assert f"can't reach the device server at {nobody}".encode() in result.stderr
