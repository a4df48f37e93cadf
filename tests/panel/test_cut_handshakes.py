"""An agent's connection that ends at any step of its handshake leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from environment import Cluster, cluster
from hypothesis import given
from hypothesis import strategies as st

from devserver.protocol.address import TcpAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.limits import PROTOCOL_VERSION
from devserver.protocol.messages import Panel
from devserver.rpc import Peer, RpcError, connect_panel

pytestmark = pytest.mark.process

KVM = {"kind": "kvm", "version": "", "capabilities": {}}
_HEADER = struct.Struct(">I")
AT_MOST_S = 30.0


@pytest.fixture(scope="module", params=["unix", "tcp"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("site")
    where = f"unix:{folder}/socket" if request.param == "unix" else "tcp://127.0.0.1:0"
    registry = ("--registry", f"sqlite:///{folder}/registry.db")
    with cluster(where, arguments=registry) as made:
        yield made


def connected(address: str) -> socket.socket:
    where = parse_address(address)
    if isinstance(where, TcpAddress):
        return socket.create_connection((where.host, where.port), AT_MOST_S)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(AT_MOST_S)
    sock.connect(where.path)
    return sock


def received(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, "the panel closed the connection"
        data += part
    return data


def frame(sock: socket.socket) -> dict[str, Any]:
    (length,) = _HEADER.unpack(received(sock, 4))
    message: dict[str, Any] = msgpack.unpackb(received(sock, length))
    return message


class Handshake:
    """What an agent says until it is registered, step by step."""

    def __init__(self, name: str) -> None:
        self.panel = Connection(Role.CLIENT).send(Panel(PROTOCOL_VERSION, "agent", name))
        arguments = {"hostname": "nowhere", "hypervisors": [KVM], "vms": []}
        call = msgpack.packb({"call": 1, "op": "register", "arguments": arguments})
        self.register = _HEADER.pack(len(call)) + call

    def is_cut(self, address: str, *, sent: int, heard: bool, reset: bool) -> None:
        """Ends after so many bytes were sent, and (``heard``) what they are answered was read."""
        data = self.panel + self.register
        with connected(address) as sock:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first = data[: min(sent, len(self.panel))]
            sock.sendall(first)
            if len(first) == len(self.panel) and (heard or sent > len(first)):
                assert frame(sock)["op"] == "welcome"
            sock.sendall(data[len(first) : sent])
            if sent == len(data) and heard:
                assert "result" in frame(sock)


def steps(handshake: Handshake) -> list[tuple[int, bool]]:
    first, both = len(handshake.panel), len(handshake.panel) + len(handshake.register)
    middles = [(0, False), (1, False), (first // 2, False), (first, False), (first, True)]
    return [*middles, (first + 2, False), (both - 1, False), (both, False), (both, True)]


async def visit(address: str, name: str, act: Callable[[Peer], Any]) -> Any:
    """A healthy agent registers and does something."""
    reader, writer = await connect_panel(address, "agent", name)
    peer = Peer(reader, writer, {})
    serving = asyncio.create_task(peer.serve())
    try:
        await peer.call("register", hostname="here", hypervisors=[KVM], vms=[])
        return await act(peer)
    finally:
        peer.close()
        await serving


async def online(address: str) -> set[str]:
    """The clients that the panel takes for connected."""
    reader, writer = await connect_panel(address, "operator", "")
    peer = Peer(reader, writer, {})
    serving = asyncio.create_task(peer.serve())
    try:
        return {row["name"] for row in await peer.call("clients") if row["online"]}
    finally:
        peer.close()
        await serving


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("step", range(9))
def test_whoever_is_cut_off_in_the_handshake_leaves_the_name_free(
    site: Cluster, step: int, reset: bool
) -> None:
    name = f"cut-{step}-{reset}"
    handshake = Handshake(name)
    sent, heard = steps(handshake)[step]
    for _ in range(3):
        handshake.is_cut(site.address, sent=sent, heard=heard, reset=reset)

    async def act(_: Peer) -> set[str]:
        return await online(site.address)

    assert asyncio.run(visit(site.address, name, act)) == {name}


@given(data=st.data(), reset=st.booleans())
def test_a_cut_at_any_byte_leaves_the_name_free(
    site: Cluster, data: st.DataObject, reset: bool
) -> None:
    handshake = Handshake("any")
    whole = len(handshake.panel + handshake.register)
    sent = data.draw(st.integers(0, whole))
    handshake.is_cut(site.address, sent=sent, heard=False, reset=reset)

    async def act(_: Peer) -> set[str]:
        return await online(site.address)

    assert asyncio.run(visit(site.address, "any", act)) == {"any"}


def test_a_silent_agent_gives_its_name_to_one_that_answers(site: Cluster) -> None:
    """One whose host has lost its power is still connected, as far as anybody can see."""
    handshake = Handshake("mute")
    with connected(site.address) as sock:
        sock.sendall(handshake.panel)
        assert frame(sock)["op"] == "welcome"
        sock.sendall(handshake.register)
        assert "result" in frame(sock)

        async def act(_: Peer) -> set[str]:
            return await online(site.address)

        assert asyncio.run(visit(site.address, "mute", act)) == {"mute"}


def test_an_agent_that_answers_keeps_its_name(site: Cluster) -> None:
    async def act(_: Peer) -> str:
        async def never(_: Peer) -> None:
            raise AssertionError("two agents have one name")

        with pytest.raises(RpcError) as refused:
            await visit(site.address, "mine", never)
        return str(refused.value)

    assert "connected already" in asyncio.run(visit(site.address, "mine", act))


def test_a_launch_goes_to_another_client_if_the_first_one_vanishes(
    site: Cluster, tmp_path: Path
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(b"\xf4")
    site.fake_agent("a-dies", "launch", "die")
    site.fake_agent("b-stays", "suspend", "refuse")
    said = site.does("vm", "launch", image, "--name", "restless")
    assert "on client 'b-stays'" in said


def test_a_launch_on_a_client_that_was_named_is_tried_nowhere_else(
    site: Cluster, tmp_path: Path
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(b"\xf4")
    site.fake_agent("c-dies", "launch", "die")
    why = site.refuses("vm", "launch", image, "--name", "loyal", "--client", "c-dies")
    assert "VM 'loyal' can't be launched" in why
    assert site.state("loyal") == "lost"
