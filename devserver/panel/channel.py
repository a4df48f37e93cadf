"""The stream between a device host and its panel: messages of any length, and open connections.

A message is a length and so many bytes, as everywhere. One that brings a connection says so, and
the descriptor travels with its first byte. Neither end ever blocks: what can't be sent yet waits,
up to a bound, and nothing is cut or lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

_HEADER = struct.Struct(">I")
_READ_BYTES = 64 * 1024
#: So much may wait to be sent; then no more is taken.
MAX_WAITING_BYTES = 1 << 20
#: Descriptors that one receive may bring.
_DESCRIPTORS = 16


class Waiting(NamedTuple):
    """What has not been sent yet; a connection goes with the first byte."""

    data: memoryview
    sock: socket.socket | None


class Arrived(NamedTuple):
    """A message, and the connection that came with it."""

    message: dict[str, Any]
    sock: socket.socket | None


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        """Owns the socket from now on."""
        sock.setblocking(False)
        self._sock = sock
        self._out: deque[Waiting] = deque()
        self._out_bytes = 0
        self._in = bytearray()
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Closes it, and the connections that are still on their way."""
        self._sock.close()
        for waiting in self._out:
            if waiting.sock is not None:
                waiting.sock.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._out.clear()
        self._descriptors.clear()

    @property
    def is_clear(self) -> bool:
        """Whether all has been sent."""
        return not self._out

    def put(self, message: dict[str, Any], sock: socket.socket | None = None) -> bool:
        """Sends a message, and a connection, which is this end's no longer; later, if need be.

        False, and nothing is sent, if too much waits already. Raises OSError if the other end is
        gone.
        """
        if self._out_bytes > MAX_WAITING_BYTES:
            return False
        payload: bytes = msgpack.packb({**message, "brings": sock is not None})
        data = _HEADER.pack(len(payload)) + payload
        self._out.append(Waiting(memoryview(data), sock))
        self._out_bytes += len(data)
        self.flush()
        return True

    def flush(self) -> None:
        """Sends what waits, as far as that can be. Raises OSError if the other end is gone."""
        with contextlib.suppress(BlockingIOError):
            while self._out:
                data, sock = self._out[0]
                if sock is None:
                    sent = self._sock.send(data)
                else:
                    sent = socket.send_fds(self._sock, [data], [sock.fileno()])
                    sock.close()
                self._out_bytes -= sent
                if sent < len(data):
                    self._out[0] = Waiting(data[sent:], None)
                else:
                    self._out.popleft()

    def take(self) -> Iterator[Arrived]:
        """What has come. Raises OSError or EOFError if the other end is gone."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._sock, _READ_BYTES, _DESCRIPTORS)
                for descriptor in descriptors:
                    os.set_inheritable(descriptor, False)
                self._descriptors += descriptors
                if not data:
                    raise EOFError
                self._in += data
                yield from self._messages()

    def _messages(self) -> Iterator[Arrived]:
        while len(self._in) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._in)
            end = _HEADER.size + length
            if len(self._in) < end:
                return
            message = msgpack.unpackb(bytes(self._in[_HEADER.size : end]))
            del self._in[:end]
            sock = None
            if message.pop("brings"):
                sock = socket.socket(fileno=self._descriptors.popleft())
            yield Arrived(message, sock)
