"""A real server process, and clients that say what a test likes. Every wait is bounded."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar

from devserver.protocol.address import TcpAddress, UnixAddress, parse_address
from devserver.protocol.connection import Connection, Role, blank
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import (
    Attach,
    Attached,
    Clock,
    Direction,
    Error,
    Feedback,
    Hello,
    Hypervisor,
    Message,
    Request,
    WantedDevice,
    Welcome,
)

ROOT = Path(__file__).resolve().parents[2]
TRIAL_FILE = ROOT / "tests" / "support" / "trial_device.py"
#: For what takes milliseconds: a test that meets it has failed.
AT_MOST_S = 20.0

M = TypeVar("M", bound=Message)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs ``devserver`` to its end."""
    return subprocess.run(
        _command(*arguments),
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        env=_environment(),
    )


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "devserver", *map(str, arguments)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Server:
    """A running ``devserver serve``; a context manager that ends it."""

    def __init__(self, *arguments: object, listen: str) -> None:
        self.process = subprocess.Popen(
            _command("serve", "--listen", listen, "--log", "error", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self.address = self._listening()

    def _listening(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], AT_MOST_S)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line.startswith("devserver: listening on "), line
        return line.split()[-1]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ends the server by a signal; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(AT_MOST_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def errors(self) -> str:
        """What the server, which has ended, has said on standard error."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


def memory_of(server: Server) -> int:
    """Bytes of memory that the server's process has."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class IoHost(Server):
    """A running ``devserver host``."""

    def __init__(self, owner: Server, name: str, *arguments: object, listen: str) -> None:
        where = ("--join", owner.address, "--listen", listen, "--name", name)
        self.process = subprocess.Popen(
            _command("host", *where, "--log", "error", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        self.address = self._listening()

    def _listening(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], AT_MOST_S)
        line = self.process.stdout.readline().decode() if ready else ""
        assert " listening on " in line, line
        return line.split(" listening on ")[1].split(",")[0]


class Peer:
    """A client of a live server; a context manager that closes its socket."""

    def __init__(self, server: Server) -> None:
        where = parse_address(server.address)
        if isinstance(where, TcpAddress):
            self.sock = socket.create_connection((where.host, where.port), AT_MOST_S)
        else:
            assert isinstance(where, UnixAddress)
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(AT_MOST_S)
            self.sock.connect(where.path)
        self.connection = Connection(Role.CLIENT)
        self._heard: list[Message] = []

    def say(self, *messages: Message) -> None:
        self.sock.sendall(self.connection.send(*messages))

    def hear(self) -> Message:
        """The next message of the server; fails if it closes the connection instead."""
        while not self._heard:
            data = self.sock.recv(65536)
            assert data, "the server closed the connection"
            self._heard += self.connection.receive(data)
        return self._heard.pop(0)

    def expect(self, cls: type[M]) -> M:
        """The next message, which must be of a class."""
        message = self.hear()
        assert isinstance(message, cls), message
        return message

    def refused(self) -> ErrorCode:
        """The code of the ERROR that the server says, after which it closes the connection."""
        error = self.expect(Error)
        self.closed()
        return ErrorCode(error.code)

    def closed(self) -> bytes:
        """Waits until the server closes the connection; returns what it sent until then."""
        rest = b""
        try:
            while data := self.sock.recv(65536):
                rest += data
        except ConnectionResetError:  # it closed before it had read all
            pass
        return rest

    def attach(self, *devices: WantedDevice, server_id: int = 0) -> Attached:
        """The handshake, with VM time running from 0."""
        self.say(Hello(server_id=server_id))
        self.expect(Welcome)
        self.say(Attach(Hypervisor.KVM, devices=list(devices)))
        attached = self.expect(Attached)
        self.say(blank(Clock, running=1, time_ns=0))
        return attached

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


LATCH = 0xE0
LATCH_DEVICE = WantedDevice("test", "testdev", {"latch": LATCH})
TRIAL = 0x100
TRIAL_DEVICE = WantedDevice("trial", "session-trial", {"io": TRIAL}, {"irq": 5})


def read(address: int, size: int = 1, **fields: Any) -> Request:
    """An IN of device 1."""
    one = blank(Request, device_id=1, address=address, size=size, elements=1, data=b"")
    return one._replace(direction=Direction.IN, **fields)


def write(address: int, value: int, size: int = 1) -> Request:
    """An OUT to device 1."""
    data = value.to_bytes(size, "little")
    return read(address, size, data=data)._replace(direction=Direction.OUT)


def works(peer: Peer, value: int = 0x12345678) -> bool:
    """Whether an attached peer's latch device answers."""
    peer.say(write(LATCH, value, 4), read(LATCH, 4))
    while not isinstance(answer := peer.hear(), Feedback):
        pass
    return answer.data == value.to_bytes(4, "little")
