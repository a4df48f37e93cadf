"""Network namespaces that are all on one bridge, as machines on one switch."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBERS = itertools.count(1)


class Switch:
    """A bridge in a namespace of its own, and namespaces that are wired to it."""

    def __init__(self) -> None:
        self._prefix = f"kvmshim-test-{os.getpid()}-{next(_NUMBERS)}"
        self._hosts: list[str] = []
        self._ip("netns", "add", self._prefix)
        self._inside(self._prefix, "link", "add", "bridge", "type", "bridge")
        self._inside(self._prefix, "link", "set", "bridge", "up")

    def host(self, name: str) -> tuple[list[str], str]:
        """A further machine: what a command line begins with to run there, and its address."""
        space = f"{self._prefix}-{name}"
        self._hosts.append(space)
        address = f"10.78.0.{len(self._hosts)}"
        self._ip("netns", "add", space)
        end = f"port{len(self._hosts)}"
        peer = ("peer", "name", "eth0", "netns", space)
        self._inside(self._prefix, "link", "add", end, "type", "veth", *peer)
        self._inside(self._prefix, "link", "set", end, "master", "bridge", "up")
        self._inside(space, "addr", "add", f"{address}/24", "dev", "eth0")
        for interface in ("eth0", "lo"):
            self._inside(space, "link", "set", interface, "up")
        return ["ip", "netns", "exec", space], address

    def close(self) -> None:
        for space in (*self._hosts, self._prefix):
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)

    def _inside(self, space: str, *arguments: str) -> None:
        self._ip("-n", space, *arguments)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)


@contextmanager
def switch() -> Iterator[Switch]:
    """A switch, taken down at the end."""
    made = Switch()
    try:
        yield made
    finally:
        made.close()
