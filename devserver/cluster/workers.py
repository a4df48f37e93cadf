"""Further device hosts of one server: processes of this machine that join it."""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from devserver.protocol.address import TcpAddress
from devserver.transport import bound_address

GRACE_S = 3.0
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
def workers(count: int, listener: socket.socket, options: argparse.Namespace) -> Iterator[None]:
    """Runs ``count`` hosts beside the one that listens on ``listener``, called NAME-2 and so on.

    Each ends when this process does, however that is.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(2, count + 2):
            processes.append(
                start_host(number, f"{options.name}-{number}", options.model, listener, options)
            )
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_host(
    number: int,
    name: str,
    models: Sequence[str],
    listener: socket.socket,
    options: argparse.Namespace,
) -> subprocess.Popen[bytes]:
    """Starts a host that joins the owner which listens on ``listener``, and ends with it."""
    owner = bound_address(listener)
    listen = f"{owner}.{number}"
    if isinstance(owner, TcpAddress):
        listen = str(TcpAddress(owner.host, 0))
    command = [sys.executable, "-m", "devserver", "host", "--with-owner"]
    command += ["--join", str(owner), "--listen", listen, "--name", name]
    for shared in _SHARED:
        command += [f"--{shared.replace('_', '-')}", str(getattr(options, shared))]
    for path in models:
        command += ["--model", path]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)
