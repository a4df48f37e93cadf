"""Which servers there are beside this one, and which of them is to have a device.

This server is the *owner*: clients ask it for everything. Others have joined it (JOIN) and are
*I/O servers*; they are here for as long as their connection lasts. A device is placed by the name
of a server, or on whichever has been given the fewest so far (``auto``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from devserver.identity import Identity
from devserver.protocol.address import AddressError, TcpAddress, UnixAddress, parse_address
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.messages import Elsewhere, Join, WantedDevice
from devserver.protocol.names import BadName, check_server_name

#: Devices that may go to any server.
AUTO = "auto"
#: How clients come to the devices of other servers.
ROUTES = ("auto", "relay", "redirect")

_LOOPBACK = ("127.", "localhost", "::1", "[::1]")


@dataclass
class IoServer:
    """A server that has joined."""

    server_id: int
    name: str
    address: str
    #: Devices that it was given by this one.
    devices: int = 0


class Directory:
    """The servers that an owner knows."""

    def __init__(
        self, identity: Identity, route: str = "auto", homes: Mapping[str, str] | None = None
    ) -> None:
        """``route``: ``relay`` has clients reach the others through this server, ``redirect`` has
        them connect by themselves, ``auto`` the latter wherever the address can be reached."""
        self.identity = identity
        #: Kinds of devices that only one server has, with its name.
        self._homes = homes or {}
        self._route = route
        self._own_devices = 0
        self._servers: dict[int, IoServer] = {}

    def servers(self) -> list[IoServer]:
        """Those that have joined, by identifier."""
        return [self._servers[server_id] for server_id in sorted(self._servers)]

    def join(self, join: Join) -> IoServer:
        """A server offers itself; raises :class:`RemoteProtocolError`."""
        try:
            parse_address(join.address)
            check_server_name(join.name)
        except (AddressError, BadName) as error:
            raise RemoteProtocolError(ErrorCode.MALFORMED, f"JOIN: {error}") from None
        names = {server.name: server for server in self._servers.values()}
        if join.name in (self.identity.name, *names):
            raise RemoteProtocolError(
                ErrorCode.IDENTITY,
                f"a server named '{join.name}' is here already; give this one another --name",
            )
        server_id = join.server_id or self._free_id()
        if server_id == self.identity.server_id or server_id in self._servers:
            raise RemoteProtocolError(
                ErrorCode.IDENTITY, f"server {server_id} is here already; a server joins once"
            )
        server = self._servers[server_id] = IoServer(server_id, join.name, join.address)
        return server

    def leave(self, server_id: int) -> None:
        """A server's connection is gone."""
        self._servers.pop(server_id, None)

    def find(self, server_id: int) -> IoServer:
        """A server by its identifier; raises :class:`RemoteProtocolError`."""
        if server_id not in self._servers:
            raise RemoteProtocolError(
                ErrorCode.IDENTITY, f"no server {server_id} is known here (any more)"
            )
        return self._servers[server_id]

    def share_out(
        self, devices: Sequence[WantedDevice], peer: str
    ) -> tuple[list[WantedDevice], list[Elsewhere]]:
        """The devices that are this server's, and where the others are.

        ``peer`` is where the client comes from (the address of its socket). Raises
        :class:`RemoteProtocolError` if a device names a server that is not there.
        """
        own: list[WantedDevice] = []
        others: dict[int, list[str]] = {}
        for device in devices:
            server = self._server_for(device)
            if server is None:
                own.append(device)
                self._own_devices += 1
            else:
                server.devices += 1
                others.setdefault(server.server_id, []).append(device.name)
        return own, [
            Elsewhere(
                server_id=server_id,
                name=self._servers[server_id].name,
                devices=names,
                address=self._address_for(self._servers[server_id], peer),
            )
            for server_id, names in others.items()
        ]

    def _server_for(self, device: WantedDevice) -> IoServer | None:
        wanted = device.placement
        if wanted in ("", AUTO, self.identity.name):
            wanted = self._homes.get(device.kind, wanted)
        if wanted in ("", self.identity.name):
            return None
        if wanted == AUTO:
            least = min(self.servers(), key=lambda server: server.devices, default=None)
            return least if least is not None and least.devices < self._own_devices else None
        for server in self._servers.values():
            if server.name == wanted:
                return server
        names = [self.identity.name, *(server.name for server in self.servers())]
        near = get_close_matches(wanted, names, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
        raise RemoteProtocolError(
            ErrorCode.MACHINE,
            f"device '{device.name}' is placed on '{wanted}', and no server of that name is "
            f"here; {hint}",
        )

    def _address_for(self, server: IoServer, peer: str) -> str:
        """Where a client goes for a server; empty: nowhere, it is handed on."""
        if self._route == "relay":
            return ""
        return server.address if self._route == "redirect" or can_reach(server, peer) else ""

    def _free_id(self) -> int:
        server_id = self.identity.server_id + 1
        while server_id in self._servers:
            server_id += 1
        return server_id


def can_reach(server: IoServer, peer: str) -> bool:
    """Whether a client at ``peer`` can be expected to reach the server's address itself.

    An address of this machine only (a Unix socket, the loopback) is good for its own clients.
    """
    address = parse_address(server.address)
    near = not peer.startswith("tcp://") or peer.removeprefix("tcp://").startswith(_LOOPBACK)
    if isinstance(address, UnixAddress):
        return near
    assert isinstance(address, TcpAddress)
    return near or not address.host.startswith(_LOOPBACK)
