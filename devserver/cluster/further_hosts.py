"""Further device hosts of one server: processes of this machine that join it."""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from devserver.protocol.address import TcpAddress
from devserver.transport import bound_address

_GRACE_S = 3.0
#: Options of ``devserver serve`` that its further hosts have as well.
_SHARED = (
    "max_clients",
    "heartbeat",
    "deadline",
    "window",
    "keep",
    "wait",
    "engine",
    "log",
    "model_timeout",
)


@contextlib.contextmanager
def further_hosts(
    count: int, listener: socket.socket, options: argparse.Namespace
) -> Iterator[None]:
    """Runs ``count`` hosts beside the one that listens on ``listener``, called NAME-2 and so on.

    Each ends when this process does, however that is.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(2, count + 2):
            processes.append(_start(number, listener, options))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(
    number: int, listener: socket.socket, options: argparse.Namespace
) -> subprocess.Popen[bytes]:
    owner = bound_address(listener)
    listen = f"{owner}.{number}"
    if isinstance(owner, TcpAddress):
        listen = str(TcpAddress(owner.host, 0))
    command = [sys.executable, "-m", "devserver", "host", "--with-owner"]
    command += ["--join", str(owner), "--listen", listen, "--name", f"{options.name}-{number}"]
    for name in _SHARED:
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    for path in options.model:
        command += ["--model", path]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)
