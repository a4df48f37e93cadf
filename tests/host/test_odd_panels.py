"""Commands about VMs against servers that are none, that are full, hang, or go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from commandline import AT_MOST_S, command, devserver, environment

from devserver.protocol import codec
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Busy, Error, Welcome
from devserver.rpc import RpcError, connect_panel

pytestmark = pytest.mark.process

COMMANDS = ("vm list", "vm show one", "client list", "server list --json", "vm shutdown one")


def framed(message: object) -> bytes:
    data: bytes = msgpack.packb(message)
    return struct.pack(">I", len(data)) + data


WELCOME = framed({"op": "welcome", "arguments": {}})


def as_host(message: Busy | Error | Welcome) -> bytes:
    return codec.frame(codec.encode(message))


@contextlib.contextmanager
def saying(*answers: bytes | Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says the next of these whenever something comes, and closes then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                with sock:
                    for answer in answers:
                        sock.recv(65536)
                        sock.sendall(answer) if isinstance(answer, bytes) else answer(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(AT_MOST_S)


def reset(sock: socket.socket) -> None:
    """Has the kernel answer with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def refused(server: str, words: str) -> str:
    done = subprocess.run(
        command(*words.split(), "--server", server, program="devserver"),
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        env=environment(),
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert done.stderr.startswith("devserver: ")
    return done.stderr


STRANGERS: dict[str, tuple[tuple[bytes | Callable[[socket.socket], None], ...], str]] = {
    "http": ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "does not speak our protocol"),
    "ssh": ((b"SSH-2.0-OpenSSH_9.2\r\n",), "does not speak our protocol"),
    "nothing": ((), "closed the connection"),
    "empty": ((b"",), "closed the connection"),
    "reset": ((reset,), "closed the connection"),
    "half a frame": ((WELCOME[:5],), "closed the connection"),
    "no msgpack": ((b"\0\0\0\1\xc1",), "does not speak our protocol"),
    "deep msgpack": ((b"\0\0\x10\0" + b"\x91" * 4096,), "does not speak our protocol"),
    "a number": ((framed(7),), "does not speak our protocol"),
    "no text": ((framed({"op": "sorry", "arguments": {"why": 7}}),), "does not speak our"),
    "another server": ((as_host(Welcome(1, 1, 1, 1)),), "does not speak our protocol"),
    "full": ((as_host(Busy("too many clients")),), "refuses: too many clients"),
    "error": ((as_host(Error(ErrorCode.STATE, "not now")),), "refuses: not now"),
    "sorry": ((framed({"op": "sorry", "arguments": {"why": "no disk"}}),), "no disk"),
    "gone": ((WELCOME, b""), "the connection was lost"),
    "cut": ((WELCOME, reset), "the connection was lost"),
    "babble": ((WELCOME, b"\0\0\0\1\7"), "does not speak the panel's language"),
    "no answer": ((WELCOME, framed({"answer": 1, "result": 7})), "does not understand"),
    "no fields": ((WELCOME, framed({"answer": 1, "result": [{}]})), "does not understand"),
    "no": ((WELCOME, framed({"answer": 1, "error": "no such VM"})), "no such VM"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_an_unexpected_peer_is_one_line(stranger: str) -> None:
    answers, why = STRANGERS[stranger]
    with saying(*answers) as address:
        assert why in refused(address, "vm list")


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_says_so(words: str) -> None:
    for stranger in ("http", "cut", "no answer"):
        answers, why = STRANGERS[stranger]
        if words == "server list --json" or stranger != "no answer":
            with saying(*answers) as address:
                assert why in refused(address, words)


def test_one_that_hangs_is_given_up() -> None:
    async def call(address: str) -> None:
        await connect_panel(address, "operator", "", patience_s=0.05)

    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        port = silent.getsockname()[1]
        with pytest.raises(RpcError, match=r"does not answer; is it a devserver\?"):
            asyncio.run(call(f"tcp://127.0.0.1:{port}"))


def test_a_registry_that_can_not_be_opened_is_one_line(tmp_path: Path) -> None:
    """The server listens where its registry's folder then turns out to be a file."""
    listen = f"unix:{tmp_path}/server"
    home = tmp_path / "state"
    home.write_text("no folder")
    with devserver(listen, around={"XDG_STATE_HOME": str(home)}):
        assert "can't be opened" in refused(listen, "vm list")
