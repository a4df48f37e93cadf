"""A lab: a network, a server in each server's namespace, and a command in the client's."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import IO

from kvmshim import termination
from kvmshim.errors import HostError, InputError
from kvmshim.lab.network import Network, remove_leftovers
from kvmshim.lab.quantities import format_duration, format_share
from kvmshim.lab.relay import READY

PORT = 7000
#: Where a server listens if a relay has its port.
_PORT_BEHIND_RELAY = 7001
_START_TIMEOUT_S = 20.0
_GRACE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Emulation(StrEnum):
    """What makes the way between client and servers longer."""

    NONE = "none"
    NETEM = "netem"
    RELAY = "relay"


_WORDS = {
    Emulation.NETEM: "in the kernel (netem)",
    Emulation.RELAY: "by a relay in user space",
}


@dataclass(frozen=True)
class Conditions:
    """What a lab is like. ``loss`` is a share of 1, in each direction."""

    rtt_ns: int
    loss: float
    emulation: Emulation
    servers: tuple[str, ...]

    def as_json(self) -> str:
        """One line with one object."""
        return json.dumps(asdict(self))

    def in_words(self) -> str:
        """One line for people."""
        number = len(self.servers)
        text = f"lab with {number} server{'' if number == 1 else 's'}"
        if self.emulation is Emulation.NONE:
            return f"{text}, no delay, no loss"
        text += f", RTT {format_duration(self.rtt_ns)}"
        if self.loss:
            modelled = ", modelled as delay" if self.emulation is Emulation.RELAY else ""
            text += f", loss {format_share(self.loss)}{modelled}"
        return f"{text}, {_WORDS[self.emulation]}"


class Lab:
    """A context manager: the lab is there within its block and gone, whatever happens, after it."""

    def __init__(self, rtt_ns: int, loss: float, servers: int, models: Sequence[str] = ()) -> None:
        """``models`` are Python files with further device models, for the servers."""
        self._models = tuple(models)
        self._rtt_ns = rtt_ns
        self._loss = loss
        self._network = Network(servers)
        self._children: list[subprocess.Popen[bytes]] = []
        self.conditions = Conditions(rtt_ns, loss, Emulation.NONE, ())

    def __enter__(self) -> Lab:
        try:
            remove_leftovers()
            self._network.build()
            self._start_servers(self._emulate())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all that runs in the lab and removes it. Signals have to wait for that."""
        with _uninterrupted():
            for process in self._children:  # perhaps one that isn't in its namespace yet
                process.kill()
            self._network.close()
            for process in self._children:
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def start(
        self, command: Sequence[str], *, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a command in the client's namespace, with this process's standard streams.

        ``stdout`` as in :class:`subprocess.Popen`.
        """
        process = subprocess.Popen(
            _inside(self._network.client, command),
            env={**os.environ, **self._environment()},
            stdout=stdout,
        )
        self._children.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        first, *_ = servers = self.conditions.servers
        numbered = {f"KVMSHIM_SERVER_{n}": address for n, address in enumerate(servers, 1)}
        return {
            "KVMSHIM_SERVER": first,
            "KVMSHIM_LAB": self.conditions.as_json(),
            **numbered,
        }

    def _emulate(self) -> Emulation:
        if not self._rtt_ns and not self._loss:
            return Emulation.NONE
        shaped = self._network.shape(self._rtt_ns, self._loss)
        return Emulation.NETEM if shaped else Emulation.RELAY

    def _start_servers(self, emulation: Emulation) -> None:
        relayed = emulation is Emulation.RELAY
        starting = []
        for number, name in enumerate(self._network.servers):
            host = Network.host_of(number)
            port = _PORT_BEHIND_RELAY if relayed else PORT
            models = (part for path in self._models for part in ("--model", path))
            where = ("--listen", f"tcp://{host}:{port}", "--log", "error")
            serve = ("devserver", "serve", *where, *models)
            starting.append(self._start_module(name, serve, "the device server"))
            if relayed:
                way = (host, PORT, host, port, self._rtt_ns, self._loss)
                relay = ("kvmshim.lab.relay", *map(str, way))
                starting.append(self._start_module(name, relay, "the delay relay"))
        for process, what in starting:
            assert process.stdout is not None
            _await_ready(process.stdout, what)
        hosts = map(Network.host_of, range(len(self._network.servers)))
        addresses = tuple(f"tcp://{host}:{PORT}" for host in hosts)
        self.conditions = Conditions(self._rtt_ns, self._loss, emulation, addresses)

    def _start_module(
        self, name: str, arguments: Sequence[str], what: str
    ) -> tuple[subprocess.Popen[bytes], str]:
        process = subprocess.Popen(
            _inside(name, [sys.executable, "-m", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # the terminal's Ctrl-C is for the command
        )
        self._children.append(process)
        return process, what


def run_in_lab(lab: Lab, command: Sequence[str]) -> int:
    """Runs a command in a lab to its end; its exit status, as a shell has it."""
    started: list[subprocess.Popen[bytes]] = []
    with _interrupts_are_for(started):
        process = lab.start(command)
        started.append(process)
        return _status_of(process)


def _status_of(process: subprocess.Popen[bytes]) -> int:
    try:
        status = process.wait()
    except BaseException:
        with _uninterrupted():
            _end(process)
        raise
    return status if status >= 0 else 128 - status


def check_command(command: Sequence[str]) -> None:
    """Raises InputError if there is no such program."""
    if shutil.which(command[0]) is None:
        raise InputError(f"there is no program '{command[0]}' to run in the lab")


def _inside(name: str, command: Sequence[str]) -> list[str]:
    """The command line that becomes ``command`` in a namespace."""
    enter = shutil.which("nsenter")
    if enter is None:
        raise HostError("the lab needs the command nsenter; install util-linux")
    return [enter, f"--net=/run/netns/{name}", "--", *command]


def _await_ready(stream: IO[bytes], what: str) -> None:
    """Waits for the line that says that clients can come."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    said = b""
    while not said.endswith(b"\n"):
        left_s = max(0.0, deadline - time.monotonic())
        part = os.read(stream.fileno(), 4096) if select.select([stream], [], [], left_s)[0] else b""
        if not part:
            raise HostError(f"{what} of the lab did not start")
        said += part
    if READY not in said.decode(errors="replace"):
        raise HostError(f"{what} of the lab said {said!r:.80} when it started")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _interrupts_are_for(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """SIGINT is the command's affair: a terminal has sent it there already, others have not.

    Also in the moment in which the command runs and ``started`` does not have it yet.
    """

    def pass_on() -> None:
        if not _in_foreground():
            for process in started:
                process.send_signal(signal.SIGINT)

    with termination.calling(signal.SIGINT, pass_on):
        yield


def _in_foreground() -> bool:
    """Whether Ctrl-C on a terminal goes to this process, and so to its children as well."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
