"""What VMs have to say, on its way from their threads to the panel."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from devserver.rpc import Peer, RpcError

#: So much output may wait for the panel; what is printed beyond it is left out there.
MAX_OUTPUT_BYTES = 1 << 20


class Notes:
    """A queue that any thread may put into, and that never holds a VM up."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._output_bytes = 0

    def begin(self) -> None:
        """They are passed on in the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    def changed(self, arguments: dict[str, Any]) -> None:
        """A VM is in another state."""
        self._put("changed", arguments)

    def output(self, arguments: dict[str, Any]) -> None:
        """A VM's console has printed something that somebody looks at."""
        size = len(arguments["data"])
        with self._lock:
            if self._output_bytes + size > MAX_OUTPUT_BYTES:
                return  # the count of what was printed tells whoever looks
            self._output_bytes += size
        self._put("output", arguments)

    def forget_output(self) -> None:
        """Nobody looks any more."""
        kept = []
        while not self._queue.empty():
            op, arguments = self._taken(self._queue.get_nowait())
            if op != "output":
                kept.append((op, arguments))
        for note in kept:
            self._queue.put_nowait(note)

    async def tell(self, peer: Peer) -> None:
        """Passes them on, in order, for as long as the panel is there."""
        while True:
            op, arguments = self._taken(await self._queue.get())
            with contextlib.suppress(RpcError, OSError):
                await peer.note(op, **arguments)

    async def flush(self, peer: Peer | None) -> None:
        """Tells what is to be told so far, before an answer that may depend on it."""
        while peer is not None and not self._queue.empty():
            op, arguments = self._taken(self._queue.get_nowait())
            with contextlib.suppress(RpcError, OSError):
                await peer.note(op, **arguments)

    def _put(self, op: str, arguments: dict[str, Any]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._queue.put_nowait, (op, arguments))

    def _taken(self, note: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        if note[0] == "output":
            with self._lock:
                self._output_bytes -= len(note[1]["data"])
        return note
