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
#: A call is answered within this time, unless its caller says otherwise; and one that moves a VM.
CALL_S, LONG_S = 60.0, 600.0
#: Another program that says nothing for so long, though it is asked, is given up.
SILENCE_S = 20.0
#: Above this, nothing more is read from who does not read what is said to it.
HIGH_OUT_BYTES = 1 << 20
#: So much may wait for the other end to read; then it is given up.
MAX_OUT_BYTES = 8 << 20
#: So many calls are worked on at once; the next ones wait unread.
MAX_CALLS = 16
#: The same while an answer is awaited from the other end, which must be read; more are refused.
MAX_CALLS_AWAITING = 1024
#: Parcels that have come and nobody has taken.
MAX_PARCELS = 1024
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


class Unanswered(RpcError):
    """The answer did not come in time."""


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
        *,
        silence_s: float | None = SILENCE_S,
    ) -> None:
        """``silence_s``: see :data:`SILENCE_S`; None: it may be silent for as long as it likes."""
        _end_when_silent(writer)
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._numbers = itertools.count(1)
        self._awaited: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._why = "the connection was lost"
        self._silence_s = silence_s
        self._frames = 0
        self._stalled = False
        self.parcels = Parcels()
        #: Set when the connection has ended.
        self.gone = asyncio.Event()

    async def call(self, op: str, patience_s: float = CALL_S, /, **arguments: Any) -> Any:
        """Has the other end do something; its answer. Raises :class:`RpcError`."""
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._awaited[number] = future
        try:
            async with asyncio.timeout(patience_s):
                await self._send({"call": number, "op": op, "arguments": arguments})
                return await future
        except TimeoutError:
            raise Unanswered(f"'{op}' was not answered within {patience_s:g} s") from None
        finally:
            self._awaited.pop(number, None)

    async def note(self, op: str, **arguments: Any) -> None:
        """Tells the other end something; nobody answers."""
        await self._send({"op": op, "arguments": arguments})

    def post(self, op: str, **arguments: Any) -> bool:
        """The same, without waiting; False if too much waits for the other end to read already."""
        if self._unread_bytes() > HIGH_OUT_BYTES:
            return False
        self._write({"op": op, "arguments": arguments})
        return True

    def post_last(self, op: str, **arguments: Any) -> None:
        """Tells the other end of the end of something, without waiting."""
        with contextlib.suppress(RpcError):
            self._write({"op": op, "arguments": arguments})

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
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            while True:
                await self._make_room()
                message = await _read_frame(self._reader)
                self._frames += 1
                self._take(message)
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        except (ValueError, TypeError, KeyError) as error:
            log.warning("not the panel's language: %s", error)
            self._why = f"the other end does not speak the panel's language ({error})"
        finally:
            watching.cancel()
            self.close()

    def close(self) -> None:
        """Ends the connection; whoever waits for an answer gets :class:`Gone`.

        What the other end has asked for comes to its end.
        """
        self.gone.set()
        self._writer.close()
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(Gone(self._why))
        self.parcels.close()

    def _give_up(self, why: str) -> None:
        log.warning("a connection of the panel's is given up: %s", why)
        self._why = f"the connection was lost: {why}"
        self._writer.transport.abort()  # what waits for it would hold the connection open
        self.close()

    async def _watch(self) -> None:
        """Asks a silent other end for a sign of life, and gives it up if it shows none.

        Looks are counted, not time: this process may have been stopped itself.
        """
        frames, unread, looks = self._frames, 0, 0
        while True:
            await asyncio.sleep((self._silence_s or SILENCE_S) / 4)
            if self._stalled:  # it has something to read first
                alive = self._unread_bytes() < unread or not self._unread_bytes()
            else:
                alive = self._silence_s is None or self._frames != frames
            frames, unread = self._frames, self._unread_bytes()
            looks = 0 if alive else looks + 1
            if looks == 4:
                self._give_up("it does not answer")
            elif looks and not self._stalled:
                self._write({"call": next(self._numbers), "op": "ping", "arguments": {}})

    async def _make_room(self) -> None:
        """Who asks for more than it reads has to wait; not who is awaited itself."""
        try:
            while not self._awaited and (
                len(self._tasks) >= MAX_CALLS or self._unread_bytes() > HIGH_OUT_BYTES
            ):
                self._stalled = True
                if self._tasks:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await self._writer.drain()
        finally:
            self._stalled = False

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
        if len(self._tasks) >= MAX_CALLS_AWAITING:
            refusal = f"more than {MAX_CALLS_AWAITING} calls at once; try again"
            self._write({"answer": message.get("call"), "error": refusal})
            return
        work = self._answer(message.get("call"), str(message["op"]), dict(message["arguments"]))
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int | None, op: str, arguments: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answer": number}
        own: dict[str, Handler] = {"parcel": self.parcels.take, "ping": _pong}
        handler = own.get(op) or self._handlers.get(op)
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
        self._write(message)
        await self._writer.drain()

    def _unread_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def _write(self, message: dict[str, Any]) -> None:
        data: bytes = msgpack.packb(message)
        if len(data) > MAX_FRAME_BYTES:
            raise RpcError(f"a message of {len(data)} bytes is too long")
        if self._writer.is_closing():
            raise Gone(self._why)
        if self._unread_bytes() > MAX_OUT_BYTES:
            self._give_up(f"more than {MAX_OUT_BYTES} bytes wait for it to read")
            raise Gone(self._why)
        self._writer.write(_HEADER.pack(len(data)) + data)


async def _pong() -> None:
    """That it is answered is all that was asked for."""


class Parcels:
    """Files that come in parts; each waits for the call that takes it."""

    def __init__(self) -> None:
        self._files: dict[int, Any] = {}
        self._whole: set[int] = set()

    async def take(self, parcel: int, part: bytes) -> None:
        """The next part; an empty one is the last."""
        if parcel not in self._files and len(self._files) >= MAX_PARCELS:
            raise RpcError(f"more than {MAX_PARCELS} parcels are waiting already")
        try:
            self._take(parcel, part)
        except OSError as error:
            raise RpcError(
                f"a parcel can't be kept in {tempfile.gettempdir()}: {error.strerror}"
            ) from None

    def _take(self, parcel: int, part: bytes) -> None:
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
