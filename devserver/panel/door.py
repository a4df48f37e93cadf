"""The device host's side of the control panel: connections for it are handed to its process.

The panel is a process of its own, so that nothing it does holds up an access. It is started when
somebody first asks for it, and ends with the host.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack

from devserver.cluster.directory import Directory
from devserver.protocol.messages import Panel
from devserver.session.refusals import Refusals

log = logging.getLogger("devserver.host")

_MESSAGE_BYTES = 64 * 1024
_GRACE_S = 3.0
#: So many VMs are told of in one message.
_GUESTS = 20


class PanelDoor:
    """Starts the panel's process and hands it connections."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """``arguments`` are those of ``devserver panel``, beside the descriptor.

        ``environment`` is added to this process's own; no other user can read it.
        """
        self._arguments = tuple(arguments)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None

    def fileno(self) -> int | None:
        """What to watch for questions of the panel; None while it does not run."""
        return None if self._sock is None else self._sock.fileno()

    def start(self) -> None:
        """Starts the panel, unless it runs. Raises OSError."""
        if self._sock is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "devserver", "panel", "--fd", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # the terminal's Ctrl-C is for the host alone, which ends it
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        self._sock = ours

    def hand_over(self, sock: socket.socket, peer: str, panel: Panel) -> None:
        """Gives the panel a connection. Raises OSError."""
        assert self._sock is not None
        about = {"role": panel.role, "name": panel.name, "peer": peer}
        with sock:
            socket.send_fds(self._sock, [msgpack.packb(about)], [sock.fileno()])

    def answer(
        self, directory: Directory, refusals: Refusals, guests: Iterable[dict[str, Any]]
    ) -> bool:
        """Answers a question of the panel; False if it is gone.

        ``guests``: the VMs that are attached, each with its devices.
        """
        assert self._sock is not None
        try:
            data = self._sock.recv(_MESSAGE_BYTES)
            if data:
                question = msgpack.unpackb(data)
                number, waiting = question["ask"], list(guests)
                while waiting:
                    part = {"part": number, "guests": waiting[:_GUESTS]}
                    del waiting[:_GUESTS]
                    self._sock.send(msgpack.packb(part))
                answer = {
                    "answer": number,
                    "servers": _servers(directory),
                    "refused": refusals.counts(),
                }
                self._sock.send(msgpack.packb(answer))
                return True
        except BlockingIOError:
            return True
        except OSError as error:
            log.error("the control panel's connection: %s", error.strerror)
        log.error("the control panel has ended; the next who asks for it starts it again")
        self.close()
        return False

    def close(self) -> None:
        """Ends the panel."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            self._process.kill()
            self._process.wait()
            self._process = None


def _servers(directory: Directory) -> list[dict[str, Any]]:
    own = directory.identity
    servers = [{"server_id": own.server_id, "name": own.name, "address": "", "kind": "owner"}]
    servers += [
        {"server_id": s.server_id, "name": s.name, "address": s.address, "kind": "io"}
        for s in directory.servers()
    ]
    return servers
