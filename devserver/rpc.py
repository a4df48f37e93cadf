"""Calls and notes between two programs over a stream: how the control panel is talked to.

Frames as in docs/protocol.md; each holds one msgpack map (docs/panel.md, The conversation). Either
end may call the other. What is larger than a frame goes as a *parcel*: a file, in parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack

from devserver.protocol.address import TcpAddress, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.limits import MAX_FRAME_BYTES, PROTOCOL_VERSION
from devserver.protocol.messages import Panel

log = logging.getLogger("devserver.rpc")

_HEADER = struct.Struct(">I")
#: A parcel's part.
PART_BYTES = 256 * 1024
_ANSWER_S = 30.0
#: A silent connection is asked for a sign of life after 10 s, every 5 s, and given up after 30 s.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 30_000,
}
#: Longest parcel: a VM's memory and then some.
MAX_PARCEL_BYTES = 4 << 30

#: Answers a call: its arguments in, plain data out.
Handler = Callable[..., Awaitable[Any]]


class RpcError(Exception):
    """The other end refuses, or is gone; the message is for people."""


class Gone(RpcError):
    """The connection ended before the answer came."""


class Unable(RpcError):
    """The other end can't do it; another one of its kind may."""


async def connect_panel(
    address: str, role: str, name: str, patience_s: float = _ANSWER_S
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to the panel of the server at ``address``. Raises OSError, :class:`RpcError`."""
    try:  # nothing more may be said before the panel has taken over from the device host
        async with asyncio.timeout(patience_s):
            return await _greet(address, role, name)
    except TimeoutError:
        raise Gone(f"the server at {address} does not answer; is it a devserver?") from None


async def _greet(
    address: str, role: str, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = parse_address(address)
    if isinstance(where, TcpAddress):
        reader, writer = await asyncio.open_connection(where.host, where.port)
    else:
        reader, writer = await asyncio.open_unix_connection(where.path)
    try:
        writer.write(Connection(Role.CLIENT).send(Panel(PROTOCOL_VERSION, role, name)))
        await writer.drain()
        _check_welcome(address, await _read_frame(reader))
    except BaseException as error:
        writer.close()
        if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
            why = "closed the connection; see its log"
            raise Gone(f"the server at {address} {why}") from None
        if isinstance(error, ValueError):
            raise RpcError(_stranger(address)) from None
        raise
    return reader, writer


async def _read_frame(reader: asyncio.StreamReader) -> Any:
    """The next message. Raises ValueError for what is none, and what reading raises."""
    (length,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if not 0 < length <= MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    try:
        return msgpack.unpackb(await reader.readexactly(length))
    except msgpack.UnpackException as error:
        raise ValueError(f"a frame that is not msgpack: {error}") from None


def _check_welcome(address: str, answer: Any) -> None:
    """Raises :class:`RpcError` unless this is a panel's first note."""
    match answer:
        case {"op": "welcome"}:
            return
        case {"op": "sorry", "arguments": {"why": str(why)}}:
            raise RpcError(why)
        case [int(), {"message": str(why)}]:  # an ERROR or BUSY of the device host
            raise RpcError(f"the server at {address} refuses: {why}")
    raise RpcError(_stranger(address))


def _stranger(address: str) -> str:
    return f"the server at {address} does not speak our protocol; is it a devserver?"


def _end_when_silent(writer: asyncio.StreamWriter) -> None:
    """Has the kernel end a TCP connection whose other end has vanished without a word."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Peer:
    """One end of a conversation. ``handlers`` maps names of operations to what answers them."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handlers: Mapping[str, Handler],
    ) -> None:
        _end_when_silent(writer)
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._awaited: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._why = "the connection was lost"
        self.parcels = Parcels()
        #: Set when the connection has ended.
        self.gone = asyncio.Event()

    async def call(self, op: str, **arguments: Any) -> Any:
        """Has the other end do something; its answer. Raises :class:`RpcError`."""
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._awaited[number] = future
        try:
            await self._send({"call": number, "op": op, "arguments": arguments})
            return await future
        finally:
            self._awaited.pop(number, None)

    async def note(self, op: str, **arguments: Any) -> None:
        """Tells the other end something; nobody answers."""
        await self._send({"op": op, "arguments": arguments})

    async def is_there(self, patience_s: float) -> bool:
        """Whether the other end answers anything at all within this time."""
        try:
            async with asyncio.timeout(patience_s):
                await self.call("ping")
        except (TimeoutError, Gone, OSError):
            return False
        except RpcError:  # an answer, if only that it does not know the question
            pass
        return True

    async def send_parcel(self, path: Path) -> int:
        """Sends a file; the number by which a later call may name it."""
        parcel = next(self._numbers)
        with path.open("rb") as file:
            while True:
                part = file.read(PART_BYTES)
                await self.call("parcel", parcel=parcel, part=part)
                if not part:
                    return parcel

    async def serve(self) -> None:
        """Reads until the connection ends."""
        try:
            while True:
                self._take(await _read_frame(self._reader))
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        except (ValueError, TypeError, KeyError) as error:
            log.warning("not the panel's language: %s", error)
            self._why = f"the other end does not speak the panel's language ({error})"
        finally:
            self.close()

    def close(self) -> None:
        """Ends the connection; whoever waits for an answer gets :class:`Gone`."""
        self.gone.set()
        self._writer.close()
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(Gone(self._why))
        for task in self._tasks:
            task.cancel()
        self.parcels.close()

    # -- inner workings -----------------------------------------------------------------------

    def _take(self, message: dict[str, Any]) -> None:
        if "answer" in message:
            future = self._awaited.get(message["answer"])
            if future is None or future.done():
                return
            if message.get("error") is not None:
                kind = Unable if message.get("unable") else RpcError
                future.set_exception(kind(str(message["error"])))
            else:
                future.set_result(message.get("result"))
            return
        work = self._answer(message.get("call"), str(message["op"]), dict(message["arguments"]))
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int | None, op: str, arguments: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answer": number}
        handler = self.parcels.take if op == "parcel" else self._handlers.get(op)
        try:
            if handler is None:
                raise RpcError(f"there is no operation '{op}' here")
            answer["result"] = await handler(**arguments)
        except RpcError as error:
            answer["error"], answer["unable"] = str(error), isinstance(error, Unable)
        except Exception as error:
            log.exception("operation '%s' failed", op)
            answer["error"] = f"'{op}' failed: {type(error).__name__}: {error}"
        if number is not None:
            with contextlib.suppress(ConnectionError, OSError, RpcError):
                await self._send(answer)

    async def _send(self, message: dict[str, Any]) -> None:
        data: bytes = msgpack.packb(message)
        if len(data) > MAX_FRAME_BYTES:
            raise RpcError(f"a message of {len(data)} bytes is too long")
        if self._writer.is_closing():
            raise Gone(self._why)
        self._writer.write(_HEADER.pack(len(data)) + data)
        await self._writer.drain()


class Parcels:
    """Files that come in parts; each waits for the call that takes it."""

    def __init__(self) -> None:
        self._files: dict[int, Any] = {}
        self._whole: set[int] = set()

    async def take(self, parcel: int, part: bytes) -> None:
        """The next part; an empty one is the last."""
        if parcel not in self._files:
            self._files[parcel] = tempfile.NamedTemporaryFile(  # noqa: SIM115 - who takes the parcel closes it
                prefix="kvmshim-parcel-"
            )
        file = self._files[parcel]
        if not part:
            file.flush()
            self._whole.add(parcel)
        elif file.tell() + len(part) > MAX_PARCEL_BYTES:
            raise RpcError(f"a parcel of more than {MAX_PARCEL_BYTES >> 30} GiB")
        else:
            file.write(part)

    def open(self, parcel: int) -> Any:
        """A parcel that has come, as a named temporary file; who takes it closes it.

        Raises :class:`RpcError`.
        """
        if parcel not in self._whole:
            raise RpcError(f"parcel {parcel} has not come")
        self._whole.discard(parcel)
        return self._files.pop(parcel)

    def close(self) -> None:
        """Drops what nobody took."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._whole.clear()
