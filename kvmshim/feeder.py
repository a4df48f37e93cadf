"""Bytes on their way to a device's input channel, no more of them than the device has room for."""

from __future__ import annotations

from collections.abc import Callable

from devserver.protocol.limits import FEED_WINDOW_BYTES, MAX_FEED_BYTES
from kvmshim.vmstate.state import PendingInput

#: Sends bytes stamped with a VM time; the flag says that they are the last.
SendFeed = Callable[[bytes, int, bool], None]


class Feeder:
    """Holds what the device's backlog has no room for, and sends it as the device takes more."""

    def __init__(self, send: SendFeed) -> None:
        self._send = send
        self._held = bytearray()
        self._sent = 0
        self._taken = 0
        self._end = False
        self._ended = False

    @property
    def waiting(self) -> int:
        """Bytes that were given and not sent yet."""
        return len(self._held)

    def give(self, data: bytes, time_ns: int, *, end: bool = False) -> None:
        """More bytes for the device; ``end``: the last ones."""
        self._held += data
        self._end = self._end or end
        self._pump(time_ns)

    def consumed(self, total: int, time_ns: int) -> None:
        """The device has taken ``total`` bytes so far."""
        self._taken = total
        self._pump(time_ns)

    def save(self, device: str, channel: int) -> PendingInput:
        """What is on its way to a device's channel; of a machine that is paused."""
        held = bytes(self._held)
        return PendingInput(device, channel, held, self._sent, self._taken, self._end, self._ended)

    def load(self, pending: PendingInput) -> None:
        """Restores what :meth:`save` gave."""
        self._held = bytearray(pending.held)
        self._sent, self._taken = pending.sent, pending.taken
        self._end, self._ended = pending.end, pending.ended

    def _pump(self, time_ns: int) -> None:
        while not self._ended:
            room = FEED_WINDOW_BYTES - (self._sent - self._taken)
            part = bytes(self._held[: min(room, MAX_FEED_BYTES)])
            del self._held[: len(part)]
            end = self._end and not self._held
            if not part and not end:
                return
            self._sent += len(part)
            self._ended = end
            self._send(part, time_ns, end)
