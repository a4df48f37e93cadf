"""Who an owner knows, and where it sends a client for a device. No sockets."""

from __future__ import annotations

import pytest

from devserver.cluster.directory import Directory, IoServer, can_reach
from devserver.identity import Identity
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.limits import PROTOCOL_VERSION
from devserver.protocol.messages import Join, WantedDevice

NEAR, FAR = "client-7", "tcp://10.0.0.9:1234"


def joins(name: str, address: str = "tcp://10.0.0.1:4000", server_id: int = 0) -> Join:
    return Join(PROTOCOL_VERSION, name, address, server_id)


def directory(*names: str, route: str = "auto") -> Directory:
    made = Directory(Identity(server_id=1, name="owner"), route)
    for name in names:
        made.join(joins(name))
    return made


def wanted(*places: str) -> list[WantedDevice]:
    return [WantedDevice(f"dev{n}", "kind", placement=place) for n, place in enumerate(places)]


def refused(made: Directory, join: Join) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        made.join(join)
    assert caught.value.code in (ErrorCode.IDENTITY, ErrorCode.MALFORMED)
    return str(caught.value)


def test_servers_get_identifiers_that_no_other_has() -> None:
    made = directory("a", "b")
    assert [server.server_id for server in made.servers()] == [2, 3]
    made.leave(2)
    assert made.join(joins("c")).server_id == 2


def test_a_server_that_comes_back_keeps_its_identifier() -> None:
    made = directory("a", "b")
    made.leave(3)
    assert made.join(joins("b", server_id=3)).server_id == 3


@pytest.mark.parametrize("name", ["owner", "a", "auto", ""])
def test_a_name_stands_for_one_server(name: str) -> None:
    assert f"'{name}'" in refused(directory("a"), joins(name))


@pytest.mark.parametrize("server_id", [1, 2])
def test_an_identifier_stands_for_one_server(server_id: int) -> None:
    why = refused(directory("a"), joins("b", server_id=server_id))
    assert f"server {server_id} is here already" in why


def test_an_address_must_be_one() -> None:
    assert "JOIN" in refused(directory(), joins("a", "somewhere"))


def test_devices_go_to_the_server_that_they_name() -> None:
    own, elsewhere = directory("a", "b").share_out(wanted("", "a", "owner", "b", "a"), FAR)
    assert [device.name for device in own] == ["dev0", "dev2"]
    assert [(other.name, other.devices) for other in elsewhere] == [
        ("a", ["dev1", "dev4"]),
        ("b", ["dev3"]),
    ]


def test_those_that_may_go_anywhere_are_spread() -> None:
    own, elsewhere = directory("a", "b").share_out(wanted(*["auto"] * 9), FAR)
    assert sorted([len(own), *(len(other.devices) for other in elsewhere)]) == [3, 3, 3]


def test_a_name_that_is_no_server_s_is_told_with_the_nearest() -> None:
    with pytest.raises(RemoteProtocolError, match="did you mean 'rack'") as caught:
        directory("rack").share_out(wanted("rakc"), FAR)
    assert caught.value.code is ErrorCode.MACHINE


def test_a_server_that_has_left_is_no_place() -> None:
    made = directory("a")
    made.leave(2)
    with pytest.raises(RemoteProtocolError, match="there are: owner"):
        made.share_out(wanted("a"), FAR)


@pytest.mark.parametrize(("route", "told"), [("relay", ""), ("redirect", "unix:/x"), ("auto", "")])
def test_the_route_says_whether_clients_are_told_the_address(route: str, told: str) -> None:
    made = Directory(Identity(), route)
    made.join(joins("a", "unix:/x"))
    _, (other,) = made.share_out(wanted("a"), FAR)
    assert other.address == told


@pytest.mark.parametrize(
    ("address", "peer", "reachable"),
    [
        ("unix:/x", NEAR, True),
        ("unix:/x", FAR, False),
        ("unix:/x", "tcp://127.0.0.1:99", True),
        ("tcp://127.0.0.1:4000", FAR, False),
        ("tcp://127.0.0.1:4000", NEAR, True),
        ("tcp://localhost:4000", FAR, False),
        ("tcp://10.0.0.1:4000", FAR, True),
        ("tcp://10.0.0.1:4000", NEAR, True),
    ],
)
def test_an_address_of_one_machine_is_good_for_its_own_clients(
    address: str, peer: str, reachable: bool
) -> None:
    assert can_reach(IoServer(2, "a", address), peer) is reachable
