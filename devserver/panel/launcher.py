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
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from devserver.cluster.directory import Directory
from devserver.panel.channel import Channel
from devserver.protocol.messages import Panel
from devserver.session.refusals import Refusals

log = logging.getLogger("devserver.host")

#: The panel has so long to write down what it knows when the host ends.
_GRACE_S = 3.0


class Piece(Protocol):
    """A part of what there is to say about the VMs that are attached."""

    @property
    def guests(self) -> list[dict[str, Any]]: ...
    @property
    def gone(self) -> list[int]: ...
    @property
    def more(self) -> bool: ...


class Roster(Protocol):
    """What one panel has been told of the VMs that are attached (:mod:`devserver.host.roster`)."""

    def begin(self) -> None: ...
    def piece(self) -> Piece: ...


class PanelLauncher:
    """Starts the panel's process, hands it connections, and answers its questions.

    It never blocks: an answer goes in pieces, and none is made before the last one is on its way.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """``arguments`` are those of ``devserver panel``, beside the descriptor.

        ``environment`` is added to this process's own; no other user can read it.
        """
        self._arguments = tuple(arguments)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._roster: Roster | None = None
        #: The number of the question that is being answered; 0: none.
        self._question = 0

    def fileno(self) -> int | None:
        """What to watch for questions of the panel; None while it does not run."""
        return None if self._channel is None else self._channel.fileno()

    @property
    def has_more(self) -> bool:
        """Whether :meth:`go_on` is to be called soon."""
        return self._channel is not None and (self._question != 0 or not self._channel.is_clear)

    def start(self, roster: Roster) -> None:
        """Starts the panel, which has been told nothing yet. Raises OSError."""
        assert self._channel is None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
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
        self._channel, self._roster, self._question = Channel(ours), roster, 0

    def hand_over(self, sock: socket.socket, peer: str, panel: Panel) -> bool:
        """Gives the panel a connection; False if too many wait for it already. Raises OSError."""
        assert self._channel is not None
        about = {"role": panel.role, "name": panel.name, "peer": peer}
        return self._channel.put(about, sock)

    def hear(self) -> bool:
        """Takes a question of the panel; False if it is gone."""
        assert self._channel is not None
        assert self._roster is not None
        try:
            for message, _ in self._channel.take():
                self._question = message["ask"]
                self._roster.begin()
            return True
        except EOFError:
            pass
        except OSError as error:
            log.error("the control panel's connection: %s", error.strerror)
        log.error("the control panel has ended; the next who asks for it starts it again")
        self.close()
        return False

    def go_on(self, directory: Directory, refusals: Refusals) -> None:
        """Sends what waits, and the next piece of an answer."""
        if self._channel is None or self._roster is None:
            return
        with contextlib.suppress(OSError):  # it is gone, as reading will tell
            self._channel.flush()
            if self._question and self._channel.is_clear:
                piece = self._roster.piece()
                answer: dict[str, Any] = {"guests": piece.guests, "gone": piece.gone}
                if not piece.more:
                    self._question = 0
                    answer |= {"servers": _servers(directory), "refused": refusals.counts()}
                self._channel.put(answer)

    def close(self) -> None:
        """Ends the panel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
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
