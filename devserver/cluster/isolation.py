"""A device host of its own for each file of device models (``devserver serve --isolate``).

A model that takes its process down then takes down the VMs that use its file, and nobody else's.
The host is started again when it has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from devserver.cluster.workers import GRACE_S, start_host
from devserver.models import catalog

log = logging.getLogger("devserver.host")

_PAUSE_S = 0.5


def homes_of(files: list[str], name: str) -> dict[str, tuple[str, str]]:
    """Each file's kinds, with the name of the host that is to serve them and the file.

    Raises :class:`UnknownModel`.
    """
    homes: dict[str, tuple[str, str]] = {}
    for number, file in enumerate(files, start=1):
        for model in catalog.load_file(file):
            homes[model.kind] = f"{name}-{Path(file).stem}-{number}", file
    return homes


@contextlib.contextmanager
def isolated_hosts(
    homes: Mapping[str, tuple[str, str]],
    first: int,
    listener: socket.socket,
    options: argparse.Namespace,
) -> Iterator[None]:
    """Runs them, numbered from ``first`` on, beside the owner that listens on ``listener``."""
    wanted = list(dict.fromkeys(homes.values()))
    hosts = [
        _Host(number, name, file, listener, options)
        for number, (name, file) in enumerate(wanted, start=first)
    ]
    try:
        yield
    finally:
        for host in hosts:
            host.close()


class _Host:
    """One of them: a process, and a thread that starts it again."""

    def __init__(
        self,
        number: int,
        name: str,
        file: str,
        listener: socket.socket,
        options: argparse.Namespace,
    ) -> None:
        self._name = name
        self._start = partial(start_host, number, name, [file], listener, options)
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"host {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the process."""
        self._closing.set()
        self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            status = self._process.wait()
            if self._closing.wait(_PAUSE_S):
                return
            log.error(
                "device host '%s' has ended (status %d); starting another", self._name, status
            )
            self._process = self._start()
