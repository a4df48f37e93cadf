"""Servers that are none: each says one thing that it should not, or nothing at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tinyguest

from devserver.protocol import codec, limits
from devserver.protocol.connection import Connection, Role
from devserver.protocol.messages import (
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Hello,
    Message,
    Request,
    Welcome,
)

M = TypeVar("M")
Conversation = Callable[[socket.socket], None]
#: What a server says to the first request of a guest.
Reply = Callable[[Connection, Request], bytes]

SERVER_ID, CLIENT_ID, VM_ID, EPOCH = 1, 7, 3, 5
WELCOME = Welcome(
    version=limits.PROTOCOL_VERSION, server_id=SERVER_ID, client_id=CLIENT_ID, epoch=EPOCH
)
Giving = Callable[[Attach], Attached]


def gives(attach: Attach) -> Attached:
    """What was asked for; only the first serial port is anywhere, and every write to it waits."""
    where = {"com1": [AttachedRegion(name="io", space=0, base=tinyguest.COM1, size=8)]}
    return Attached(
        vm_id=VM_ID,
        devices=[
            AttachedDevice(number, wanted.name, wanted.kind, 1, where.get(wanted.name, []))
            for number, wanted in enumerate(attach.devices, start=1)
        ],
    )


@contextmanager
def fake_server(*conversations: Conversation) -> Iterator[str]:
    """A server on the loopback; its address. The n-th client gets the n-th conversation."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, conversations))
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that nobody connected to
            thread.join()


def _serve(listener: socket.socket, conversations: tuple[Conversation, ...]) -> None:
    for conversation in conversations:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(ConnectionError):
            conversation(client)


def _until_it_goes(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def silence(client: socket.socket) -> None:
    """Takes everything and says nothing."""
    _until_it_goes(client)


def says(text: bytes) -> Conversation:
    """Says ``text`` to whoever comes, and waits for them to go."""

    def converse(client: socket.socket) -> None:
        client.sendall(text)
        _until_it_goes(client)

    return converse


def hangs_up(client: socket.socket) -> None:
    """Takes a greeting and goes."""
    client.recv(65536)


def chatters(client: socket.socket) -> None:
    """Never stops saying what is right but not what is waited for."""
    connection = Connection(Role.SERVER)
    _hear(client, connection, Hello)
    client.sendall(connection.send(WELCOME))
    _hear(client, connection, Attach)
    ping = b"\x00\x00\x00\x0b\x92\x07\xcf" + bytes(8)
    while True:
        client.sendall(ping * 100)


def greets_with(answer: Message) -> Conversation:
    """Answers a greeting with ``answer``."""

    def converse(client: socket.socket) -> None:
        connection = Connection(Role.SERVER)
        _hear(client, connection, Hello)
        client.sendall(codec.frame(codec.encode(answer)))
        _until_it_goes(client)

    return converse


def answers_a_request_with(
    reply: Reply, *, stays: bool = True, giving: Giving = gives
) -> Conversation:
    """Is a good server until the guest's first request."""

    def converse(client: socket.socket) -> None:
        connection = Connection(Role.SERVER)
        _hear(client, connection, Hello)
        client.sendall(connection.send(WELCOME))
        client.sendall(connection.send(giving(_hear(client, connection, Attach))))
        client.sendall(reply(connection, _hear(client, connection, Request)))
        if stays:
            _until_it_goes(client)

    return converse


def _hear(client: socket.socket, connection: Connection, wanted: type[M]) -> M:
    """The next message of a kind; others are passed over."""
    while data := client.recv(65536):
        for message in connection.receive(data):
            if isinstance(message, wanted):
                return message
    raise ConnectionError("the client has gone")
