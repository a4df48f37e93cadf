"""The stream between a device host and its panel: nothing is cut, lost, or waited for."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devserver.panel.channel import MAX_WAITING_BYTES, Channel
from devserver.panel.hostlink import HostLink
from devserver.rpc import RpcError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    with closing(ours), closing(theirs):
        yield ours, theirs


def carry(ours: Channel, theirs: Channel) -> list[dict[str, Any]]:
    """All that was put in, as it comes out; the names that connections bring are read."""
    came = []
    while True:
        ours.flush()
        for message, sock in theirs.take():
            if sock is not None:
                with sock:
                    message["read"] = sock.recv(64).decode()
            came.append(message)
        if ours.is_clear:
            return came


def connection(said: str) -> socket.socket:
    """A connection at which somebody has said something already."""
    near, far = socket.socketpair()
    with far:
        far.sendall(said.encode())
    return near


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300_000)), max_size=8))
def test_messages_of_any_length_and_connections_come_whole_and_in_order(
    sent: list[tuple[bool, int]],
) -> None:
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    with closing(ours), closing(theirs):
        wanted = []
        for number, (brings, size) in enumerate(sent):
            message = {"n": number, "data": "x" * size}
            if ours.put(message, connection(str(number)) if brings else None):
                wanted.append({**message, "read": str(number)} if brings else message)
        assert carry(ours, theirs) == wanted


def test_what_is_not_read_is_bounded_and_nothing_waits_for_it(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    taken = 0
    while ours.put({"data": "x" * 65536}):
        taken += 1
    assert MAX_WAITING_BYTES < taken * 65536 < MAX_WAITING_BYTES + (1 << 20)
    assert len(carry(ours, theirs)) == taken
    assert ours.put({"data": ""})


def test_a_connection_that_was_not_sent_is_closed_with_the_channel() -> None:
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    while ours.put({"data": "x" * 65536}):
        pass
    theirs_end, sent = socket.socketpair()
    carry(ours, theirs)
    while ours.is_clear:
        ours.put({"data": "x" * 65536})
    assert ours.put({}, sent)
    ours.close()
    assert theirs_end.recv(1) == b""
    theirs_end.close()
    theirs.close()


def test_the_end_of_the_other_end_is_told(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.close()
    with pytest.raises(EOFError):
        list(ours.take())


# -- questions ------------------------------------------------------------------------------------

LAST = {"guests": [], "gone": [], "servers": [], "refused": {}}


def asking(play: Callable[[HostLink, Channel], Any], answer_s: float = 60.0) -> Any:
    """Plays the device host to a panel's end."""

    async def run() -> Any:
        near, far = socket.socketpair()
        link, host = HostLink(near, lambda sock, _: sock.close(), answer_s), Channel(far)
        link.begin()
        try:
            return await play(link, host)
        finally:
            link.close()
            host.close()

    return asyncio.run(run())


async def question(host: Channel) -> int:
    """The number of the next question."""
    while True:
        for message, _ in host.take():
            return int(message["ask"])
        await asyncio.sleep(0)


def test_an_answer_in_pieces_is_what_has_changed_since_the_last_one() -> None:
    async def play(link: HostLink, host: Channel) -> list[list[dict[str, Any]]]:
        seen = []
        for pieces in (
            [{"guests": [{"number": n, "vm": f"vm{n}"}], "gone": []} for n in range(3)],
            [{"guests": [{"number": 1, "vm": "changed"}], "gone": [0]}],
            [],
        ):
            asked = asyncio.ensure_future(link.ask())
            await question(host)
            for piece in (*pieces, LAST):
                host.put(piece)
            seen.append([guest["vm"] for guest in (await asked)["guests"]])
        return seen

    first, second, third = asking(play)
    assert first == ["vm0", "vm1", "vm2"]
    assert second == third == ["changed", "vm2"]


def test_a_host_that_does_not_answer_is_given_up_and_its_late_answer_is_good() -> None:
    async def play(link: HostLink, host: Channel) -> Any:
        with pytest.raises(RpcError, match=r"did not answer within 0\.2 s"):
            await link.ask()
        asked = asyncio.ensure_future(link.ask())
        await question(host)
        host.put({**LAST, "guests": [{"number": 1, "vm": "late"}, {"number": 2, "vm": "there"}]})
        await question(host)  # who asked later hears what was so later
        host.put({**LAST, "gone": [1]})
        return (await asked)["guests"]

    assert asking(play, answer_s=0.2) == [{"vm": "there"}]


def test_who_waits_is_told_when_the_host_ends() -> None:
    async def play(link: HostLink, host: Channel) -> None:
        asked = asyncio.ensure_future(link.ask())
        await question(host)
        host.close()
        with pytest.raises(RpcError, match="going down"):
            await asked
        with pytest.raises(RpcError, match="going down"):
            await link.ask()

    asking(play)


def test_descriptors_are_not_passed_on_to_further_programs(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.put({}, connection("x"))
    ((_, sock),) = list(theirs.take())
    assert sock is not None
    with sock:
        assert not os.get_inheritable(sock.fileno())
