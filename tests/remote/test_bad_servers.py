"""Servers that are not there, are none, or go wrong: the guest ends, and the user is told why."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tinyguest
from commandline import (
    AT_MOST_S,
    command,
    devserver,
    environment,
    kvmshim,
    left_running,
    read_until,
    start,
    the_line,
)
from fakeserver import (
    Conversation,
    Giving,
    Reply,
    answers_a_request_with,
    chatters,
    fake_server,
    gives,
    greets_with,
    hangs_up,
    says,
    silence,
)

from devserver.protocol import codec, limits
from devserver.protocol.connection import COUNTERS, Connection, blank
from devserver.protocol.messages import (
    Attach,
    Attached,
    Busy,
    Error,
    Event,
    EventKind,
    Feedback,
    Finish,
    Interrupt,
    Message,
    PolicyRange,
    Request,
    Welcome,
)
from kvmshim.errors import ServerError
from kvmshim.remote.handshake import attach, connect

pytestmark = pytest.mark.kvm

UNREACHABLE, LOST = 115, 116


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A guest that reads a register of its serial line for ever."""
    path = tmp_path / "guest.bin"
    path.write_bytes(tinyguest.for_ever(tinyguest.read(tinyguest.LINE_STATUS)))
    return path


# -- before the guest starts --------------------------------------------------------------------


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_is_not_there_is_told_with_the_command_that_starts_it(
    kind: str, tmp_path: Path
) -> None:
    address = closed_port() if kind == "tcp" else f"unix:{tmp_path}/nothing"
    result = kvmshim("run", "hello", "--server", address)
    line = the_line(result)
    assert result.returncode == UNREACHABLE
    assert line.startswith(f"kvmshim: can't reach the device server at {address}: ")
    assert f"is 'devserver serve --listen {address}' running there?" in line


def test_a_server_whose_name_nobody_knows_is_told() -> None:
    result = kvmshim("run", "hello", "--server", "tcp://no-such-host.invalid:7000")
    assert result.returncode == UNREACHABLE
    assert "can't reach the device server at tcp://no-such-host.invalid:7000" in the_line(result)


HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("conversation", "why"),
    [
        (says(HTTP), "a frame of 1213486160 bytes; at most 1048576 are allowed; is it a devserver"),
        (says(codec.frame(b"\xc1")), "is it a devserver?"),
        (says(codec.frame(b"\x92\x7f\x80")), "unknown message type 127; is it a devserver?"),
        (hangs_up, "closed the connection during the handshake"),
        (greets_with(Busy("no room")), "is busy: no room"),
        (greets_with(Error("state", "no\n\x1b[31mway")), r"refuses: no\n\x1b[31mway"),
        (greets_with(Error("version", "too old")), "too old; install the same version on both"),
        (greets_with(Welcome(1, 1, 1, 1)), "version 1 of the protocol, this client version 3"),
    ],
)
def test_a_stranger_or_another_version_at_the_address_is_told(
    conversation: Conversation, why: str
) -> None:
    with fake_server(conversation) as address:
        result = kvmshim("run", "hello", "--server", address)
    line = the_line(result)
    assert why in line
    assert line.startswith("kvmshim: ")
    assert address in line
    assert result.returncode == UNREACHABLE


@pytest.mark.parametrize("conversation", [silence, chatters])
def test_a_stranger_is_not_waited_for_without_end(conversation: Conversation) -> None:
    with fake_server(conversation) as address:
        sock = connect(address)
        with pytest.raises(ServerError, match="does not answer"):
            attach(
                sock,
                address,
                [],
                vm_name="",
                vm_id=0,
                hypervisor=1,
                memory_bytes=0,
                epoch_ns=0,
                timeout_s=0.3,
            )


COM1 = 6  # its place on the PC's board


def device(giving: Attach, **changed: object) -> Attached:
    """What was asked for, with the first serial port changed."""
    given = gives(giving)
    given.devices[COM1] = replace(given.devices[COM1], **changed)
    return given


def region(giving: Attach, **changed: object) -> Attached:
    """What was asked for, with the serial port's region changed."""
    (own,) = gives(giving).devices[COM1].regions
    return device(giving, regions=[replace(own, **changed)])


@pytest.mark.parametrize(
    ("giving", "why"),
    [
        (lambda a: Attached(vm_id=3), "0 devices that are not the 12 of this machine"),
        (partial(device, name="com2"), "12 devices that are not the 12 of this machine"),
        (partial(device, device_id=1), "two devices with one number"),
        (partial(device, feeds=["x"] * 257), "device 'com1' with more than 256 channels"),
        (partial(region, base=0xFFFC), "device 'com1' with a region outside its address space"),
        (partial(region, space=7), "device 'com1' with a region outside its address space"),
        (partial(region, size=0), "device 'com1' with a region outside its address space"),
        (partial(region, size=1 << 63), "device 'com1' with a region outside its address space"),
        (
            partial(region, policies=[PolicyRange(4, 5, "posted")]),
            "device 'com1' with a policy outside its region",
        ),
    ],
)
def test_a_server_that_gives_what_was_not_asked_for_is_refused(giving: Giving, why: str) -> None:
    with fake_server(answers_a_request_with(raw(b""), giving=giving)) as address:
        result = kvmshim("run", "hello", "--server", address)
    assert the_line(result).startswith(
        f"kvmshim: the device server at {address} gave what was not asked for: {why}; "
    )
    assert result.returncode == UNREACHABLE


def test_a_full_server_says_so(tmp_path: Path) -> None:
    env = environment()
    with (
        devserver(f"unix:{tmp_path}/socket", arguments=("--max-clients", "1")) as server,
        start(command("run", "echo", "--server", server.address), env=env) as first,
    ):
        assert first.stdout is not None
        read_until(first.stdout, b"ready")
        result = kvmshim("run", "hello", "--server", server.address)
        first.communicate(b"\x04", timeout=AT_MOST_S)
    assert result.returncode == UNREACHABLE
    assert "is busy: all 1 places of this server are taken" in the_line(result)
    assert first.returncode == 0
    assert left_running(env) == []


# -- while the guest runs -----------------------------------------------------------------------


def feedback(request: Request, /, **changed: object) -> Feedback:
    """The right answer to a read of one byte, but for what is changed."""
    return blank(Feedback, **{"request": request.seq, "data": b"\x60", **changed})


def reply(make: Callable[[Request], Message], **odd: int) -> Reply:
    """A message of the server's, with some numbers of its connection off by so much."""

    def answer(connection: Connection, request: Request) -> bytes:
        for name, by in odd.items():
            if name in COUNTERS:
                connection.counters[COUNTERS.index(name)] += by
            else:
                setattr(connection, name, getattr(connection, name) + by)
        return connection.send(make(request))

    return answer


def raw(data: bytes) -> Reply:
    """These very bytes."""
    return lambda connection, request: data


def cut(connection: Connection, request: Request) -> bytes:
    """A good frame around a message that lacks its last bytes."""
    return codec.frame(connection.send(feedback(request))[limits.FRAME_HEADER_BYTES : -3])


def twice(connection: Connection, request: Request) -> bytes:
    """The same message, again."""
    return connection.send(feedback(request)) * 2


OVERSIZED = (limits.MAX_FRAME_BYTES + 1).to_bytes(4)

MISTAKES = {
    "random bytes": (raw(bytes(range(255, 155, -1))), "frame length"),
    "an oversized frame": (raw(OVERSIZED), "frame length: got 1048577, expected 1048576"),
    "an empty frame": (raw(bytes(4)), "frame length: got 0"),
    "no msgpack": (raw(codec.frame(b"\xc1\xc1\xc1")), "a message that can't be decoded"),
    "an unknown type": (raw(codec.frame(b"\x92\x7f\x80")), "(unknown type)"),
    "a message cut short": (cut, "a message that can't be decoded (cut short)"),
    "another VM": (reply(feedback, vm_id=1), "VM identifier: got 4, expected 3"),
    "another client": (reply(feedback, client_id=1), "client identifier: got 8, expected 7"),
    "another hypervisor": (reply(feedback, hypervisor=1), "hypervisor identifier: got 2"),
    "a gap": (reply(feedback, sent=5), "sequence number: got 6, expected 1"),
    "an acknowledgement of what was never sent": (
        reply(feedback, received=100),
        "acknowledged",
    ),
    "a repetition": (twice, "sequence number: got 1, expected 2"),
    "another request": (
        reply(lambda r: feedback(r, request=r.seq + 7)),
        "answer to a request that is not awaited",
    ),
    "too much data": (
        reply(lambda r: feedback(r, data=b"four")),
        "bytes in a feedback: got 4, expected 1",
    ),
    "no data": (reply(lambda r: feedback(r, data=b"")), "bytes in a feedback: got 0, expected 1"),
    "a finish of a read": (reply(lambda r: blank(Finish, request=r.seq)), "bytes in a feedback"),
    "a line that is not there": (
        reply(lambda r: blank(Interrupt, line=4000, level=1, number=1)),
        "interrupt line out of range: got 4000",
    ),
    "a client's message": (
        lambda connection, request: codec.frame(codec.encode(request)),
        "a message that only a client sends",
    ),
    "a second greeting": (
        lambda connection, request: codec.frame(codec.encode(Welcome(1, 1, 7, 5))),
        "a message that can't be decoded",
    ),
    "a farewell that is none": (
        raw(codec.frame(b"\x92\x05\x81\xa4code\x07")),
        "broke the protocol: ERROR",
    ),
    "an event that is no text": (
        lambda connection, request: connection.send(
            blank(Event, kind=EventKind.FAULT, text="xy")
        ).replace(b"xy", b"\xff\xfe"),
        "EVENT with text that is not UTF-8",
    ),
    "a farewell": (
        reply(lambda r: Error("shutdown", "good night")),
        "ended the session: good night",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_server_did_wrong_is_told(mistake: str, image: Path) -> None:
    answer, why = MISTAKES[mistake]
    with fake_server(answers_a_request_with(answer)) as address:
        result = kvmshim("run", image, "--server", address, "--timeout", "30")
    line = the_line(result)
    assert why in line
    assert f"the device server at {address}" in line
    assert result.returncode == LOST


@pytest.mark.parametrize("last_words", [b"", b"\0", b"\0\0\0\x40half a frame"])
def test_a_server_that_closes_its_connection_is_lost(last_words: bytes, image: Path) -> None:
    with fake_server(answers_a_request_with(raw(last_words), stays=False)) as address:
        result = kvmshim("run", image, "--server", address, "--timeout", "30")
    assert (result.returncode, result.stdout) == (LOST, b"")
    assert f"lost the device server at {address}: " in the_line(result)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_dies_is_noticed_at_once(number: signal.Signals, tmp_path: Path) -> None:
    env = environment()
    with (
        devserver(f"unix:{tmp_path}/socket") as server,
        start(command("run", "echo", "--server", server.address), env=env) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout, b"ready")
        before = time.monotonic()
        server.send(number)
        assert process.wait(AT_MOST_S) == LOST
        # Within a second, and not only when a heartbeat stays away (5 s); slow cores are no fault.
        assert time.monotonic() - before < 4
        (line,) = process.stderr.read().decode().splitlines()
        assert server.address in line
    assert left_running(env) == []
    assert os.path.exists(f"{tmp_path}/socket") == (number == signal.SIGKILL)
