"""Sockets from addresses: the one place where an address becomes a descriptor."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence

from devserver.protocol.address import (
    Address,
    AddressError,
    TcpAddress,
    UnixAddress,
    parse_address,
)


class ListenError(OSError):
    """An address can't be listened on; the message says why and what to do."""


def tune(sock: socket.socket) -> None:
    """Makes a connected socket fit for small messages that somebody waits for."""
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises :class:`ListenError`."""
    try:
        sock = _listen_tcp(address) if isinstance(address, TcpAddress) else _listen_unix(address)
    except OSError as error:
        raise ListenError(f"can't listen on {address}: {_reason(error)}") from error
    sock.setblocking(False)
    return sock


def listen_on(addresses: Sequence[str]) -> list[socket.socket]:
    """Listening sockets for addresses in text; all of them, or ListenError or AddressError."""
    sockets: list[socket.socket] = []
    try:
        for address in map(parse_address, addresses):
            sockets.append(listen(address))
    except (ListenError, AddressError):
        for sock in sockets:
            stop_listening(sock)
        raise
    return sockets


def _listen_tcp(address: TcpAddress) -> socket.socket:
    (family, *_, where), *_ = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return socket.create_server(where[:2], family=family, backlog=128)


def _listen_unix(address: UnixAddress) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path)
        sock.bind(address.path)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Removes a socket file that nobody listens on any more; leaves anything else alone."""
    try:
        there = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        there = False
        if not os.path.lexists(path):
            return
    if not there:
        raise FileExistsError(errno.EEXIST, "what is there is no socket; choose another path")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def stop_listening(sock: socket.socket) -> None:
    """Closes a listening socket and removes its file, if it has one."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else None
    sock.close()
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)


def bound_address(sock: socket.socket) -> Address:
    """The address that a listening socket has got (its port may have been 0)."""
    if sock.family == socket.AF_UNIX:
        return UnixAddress(sock.getsockname())
    host, port = sock.getsockname()[:2]
    return TcpAddress(host, port)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}; check the host name"
    if error.errno == errno.EADDRINUSE:
        return "another process listens there already (EADDRINUSE); choose another address"
    name = errno.errorcode.get(error.errno or 0, "error")
    return f"{error.strerror} ({name})"
