"""The embedded server: a ``devserver`` process of this VM's own, over a pair of Unix sockets.

It ends when its socket does, so that it can't outlive the client, however that ends.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence

from devserver.waiting import MODEL_TIMEOUT_S
from kvmshim import termination
from kvmshim.errors import ServerError

#: A server whose model does not return does not see that its socket is closed.
_SOON_S = 1.0
_GRACE_S = 3.0


class ServerProcess:
    """A running embedded server. ``sock`` is the client's end; whoever takes it closes it."""

    def __init__(
        self,
        models: Sequence[str] = (),
        wait: str = "adaptive",
        model_timeout_s: float = MODEL_TIMEOUT_S,
    ) -> None:
        """``models`` are Python files with further device models. Raises ServerError."""
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-m", "devserver", "serve", "--fd", str(theirs.fileno())]
        command += ["--log", "error", "--wait", wait, "--model-timeout", str(model_timeout_s)]
        for path in models:
            command += ["--model", path]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # the terminal's Ctrl-C is for the client alone
            )
        except OSError as error:
            self.sock.close()
            raise ServerError(
                f"can't start the embedded device server ({command[0]}): {error.strerror}"
            ) from error
        finally:
            theirs.close()
        # With a model that holds Python's lock, a server sees neither signals nor a closed socket.
        self._ends_with_us = contextlib.ExitStack()
        self._ends_with_us.enter_context(termination.at_last(self._process.kill))

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def close(self) -> None:
        """Waits for the server to end, which it does when its socket is closed."""
        with contextlib.suppress(OSError):
            self.sock.close()
        with self._ends_with_us:
            for ask, wait_s in ((self._process.terminate, _SOON_S), (self._process.kill, _GRACE_S)):
                try:
                    self._process.wait(wait_s)
                    return
                except subprocess.TimeoutExpired:
                    ask()
            self._process.wait()
