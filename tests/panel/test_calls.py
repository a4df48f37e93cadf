"""Calls between programs: each has an end, and nobody fills another's memory."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest

from devserver.rpc import (
    HIGH_OUT_BYTES,
    MAX_CALLS,
    MAX_OUT_BYTES,
    Gone,
    Handler,
    Peer,
    RpcError,
    Unanswered,
)


class Other:
    """The other end, which says what it likes and reads when it likes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def say(self, *messages: dict[str, Any]) -> None:
        data = b"".join(struct.pack(">I", len(p)) + p for p in map(msgpack.packb, messages))
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hear(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", await self._exactly(4))
        message: dict[str, Any] = msgpack.unpackb(await self._exactly(length))
        return message

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await asyncio.get_running_loop().sock_recv(self.sock, size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def talk(
    play: Callable[[Peer, Other], Awaitable[Any]],
    handlers: dict[str, Handler] | None = None,
    **options: Any,
) -> Any:
    """Plays with a peer that has these handlers."""

    async def run() -> Any:
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        peer = Peer(reader, writer, handlers or {}, **options)
        serving = asyncio.create_task(peer.serve())
        try:
            async with asyncio.timeout(60):
                return await play(peer, Other(far))
        finally:
            peer.close()
            far.close()
            await serving

    return asyncio.run(run())


def test_a_call_that_is_not_answered_has_an_end() -> None:
    async def play(peer: Peer, other: Other) -> None:
        with pytest.raises(Unanswered, match=r"'sleep' was not answered within 0\.01 s"):
            await peer.call("sleep", 0.01)
        asked = await other.hear()
        await other.say({"answer": asked["call"], "result": "too late"})
        answered = asyncio.ensure_future(peer.call("again"))
        await other.say({"answer": (await other.hear())["call"], "result": "in time"})
        assert await answered == "in time"

    talk(play)


def test_a_silent_end_is_asked_and_then_given_up() -> None:
    async def play(peer: Peer, other: Other) -> None:
        with pytest.raises(Gone):
            await peer.call("anything")
        asked = [(await other.hear())["op"] for _ in range(2)]
        assert asked == ["anything", "ping"]

    talk(play, silence_s=0.2)


def test_one_that_shows_a_sign_of_life_is_not_given_up() -> None:
    async def play(peer: Peer, other: Other) -> None:
        for _ in range(12):  # three times the silence after which it would be
            asked = await other.hear()
            assert asked["op"] == "ping"
            await other.say({"answer": asked["call"]})
        assert not peer.gone.is_set()

    talk(play, silence_s=0.2)


def test_signs_of_life_are_shown_by_who_has_nothing_to_say() -> None:
    async def play(peer: Peer, other: Other) -> None:
        await other.say({"call": 7, "op": "ping", "arguments": {}})
        assert (await other.hear()) == {"answer": 7, "result": None}

    talk(play)


def test_who_asks_and_does_not_read_waits() -> None:
    """The sender is held up, and what it asked for is answered when it reads."""
    begun = 0

    async def big() -> bytes:
        nonlocal begun
        begun += 1
        return bytes(100_000)

    async def play(peer: Peer, other: Other) -> None:
        asks = [{"call": n, "op": "big", "arguments": {}} for n in range(1000)]
        sending = asyncio.ensure_future(other.say(*asks))
        before = -1
        while before != begun:
            before = begun
            await asyncio.sleep(0.05)
        assert begun * 100_000 < HIGH_OUT_BYTES + (MAX_CALLS + 10) * 100_000
        got = {(await other.hear())["answer"] for _ in range(1000)}
        assert got == set(range(1000))
        await sending

    talk(play, {"big": big})


def test_who_is_awaited_itself_is_read_however_much_it_asks() -> None:
    """Else each would wait for the other."""
    let_go = asyncio.Event()

    async def wait() -> None:
        await let_go.wait()

    async def play(peer: Peer, other: Other) -> None:
        answered = asyncio.ensure_future(peer.call("ours"))
        ours = (await other.hear())["call"]
        await other.say(*({"call": n, "op": "wait", "arguments": {}} for n in range(2 * MAX_CALLS)))
        await other.say({"answer": ours, "result": 1})
        assert await answered == 1
        let_go.set()

    talk(play, {"wait": wait})


def test_more_calls_than_can_be_worked_on_are_refused() -> None:
    let_go = asyncio.Event()

    async def wait() -> None:
        await let_go.wait()

    async def play(peer: Peer, other: Other) -> None:
        answered = asyncio.ensure_future(peer.call("ours"))
        ours = (await other.hear())["call"]
        await other.say(*({"call": n, "op": "wait", "arguments": {}} for n in range(1025)))
        refused = await other.hear()
        assert (refused["answer"], "more than 1024 calls" in refused["error"]) == (1024, True)
        await other.say({"answer": ours})
        await answered
        let_go.set()

    talk(play, {"wait": wait})


def test_what_is_posted_to_one_who_does_not_read_is_bounded() -> None:
    async def play(peer: Peer, other: Other) -> None:
        sent = next(n for n in itertools.count() if not peer.post("output", data=bytes(10_000)))
        assert sent * 10_000 < HIGH_OUT_BYTES + (1 << 20)
        peer.post_last("closed", why="too much")
        said = [await other.hear() for _ in range(sent + 1)]
        assert said[-1]["arguments"] == {"why": "too much"}

    talk(play)


def test_an_end_that_is_told_without_end_and_does_not_read_is_given_up() -> None:
    async def play(peer: Peer, other: Other) -> None:
        waiting = [
            asyncio.ensure_future(peer.note("news", data=bytes(1_000_000)))
            for _ in range(2 + MAX_OUT_BYTES // 1_000_000 + 2)
        ]
        await asyncio.wait(waiting)
        assert peer.gone.is_set()
        assert any(isinstance(one.exception(), RpcError) for one in waiting)

    talk(play)


def test_what_was_asked_for_comes_to_its_end_though_the_asker_goes() -> None:
    done = asyncio.Event()
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        for _ in range(10):
            await asyncio.sleep(0)
        done.set()

    async def play(peer: Peer, other: Other) -> None:
        await other.say({"call": 1, "op": "work", "arguments": {}})
        await begun.wait()
        other.sock.close()
        await peer.gone.wait()
        await done.wait()

    talk(play, {"work": work})
