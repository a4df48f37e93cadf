"""What a session says to its client: in order, numbered, put into frames.

What devices cause during a call of theirs is held until the call is over
(:meth:`Outbox.flush_effects`), so that something may be put before it, and numbered only then.
"""

from __future__ import annotations

from collections.abc import Callable

from devserver.machine.message_bus import MessageBus
from devserver.models.device import Signal
from devserver.protocol import codec, limits
from devserver.protocol.connection import Connection, State
from devserver.protocol.messages import EventKind, Message, MessageType

_EVENTS = {Signal.EXIT: EventKind.EXIT, Signal.RESET: EventKind.RESET}
_NOBODY = -1
#: So much is sent before a client's next message is dealt with.
HEAVY_BYTES = 1 << 20
#: What devices may say because of one message; a model that says more has failed.
MAX_CALL_MESSAGES = 1 << 16
MAX_CALL_BYTES = 4 << 20


class OutputError(RuntimeError):
    """A model says more because of one message than there is room for."""


def _nothing() -> None:
    pass


class Outbox:
    """Where the outputs of a bus go (its sink), and a session's answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Where the devices meet those of other VMs.
        self.message_bus = MessageBus()
        #: Encoded messages that wait to be sent; whoever sends them clears it.
        self.outgoing: list[bytes] = []
        #: Called when something is caused while nothing else was.
        self.on_effect: Callable[[], None] = _nothing
        #: Called by :meth:`flush_effects`, first of all; it may :meth:`send_numbered`.
        self.before_effects: Callable[[], None] = _nothing
        self._said_bytes = 0
        self._emitted_bytes = 0
        self._effects: list[tuple[MessageType, tuple[int, ...], bytes | bytearray | None]] = []
        self._line_numbers: dict[int, int] = {}
        # A device that prints emits byte after byte. What it emits in succession is put together.
        self._emitted = bytearray()
        self._emitter = self._channel = _NOBODY

    # -- what the bus calls -------------------------------------------------------------

    def line(self, line: int, level: bool) -> None:
        self._allow(0)
        number = self._line_numbers.get(line, 0) + 1
        self._line_numbers[line] = number
        self.queue_effect(MessageType.INTERRUPT, line, level, number)

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self._allow(len(data))
        if device_id != self._emitter or channel != self._channel:
            self._emitted = bytearray()
            self.queue_effect(MessageType.EMIT, device_id, channel, tail=self._emitted)
            self._emitter, self._channel = device_id, channel
        self._emitted += data

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        self.queue_effect(MessageType.CONSUMED, device_id, channel, total)

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        self._allow(0)
        self.queue_effect(MessageType.EVENT, device_id, _EVENTS[signal], value, tail=b"")

    def _allow(self, length: int) -> None:
        """Raises :class:`OutputError` where a model floods its own server."""
        self._emitted_bytes += length
        if self._emitted_bytes > MAX_CALL_BYTES or len(self._effects) >= MAX_CALL_MESSAGES:
            raise OutputError(
                f"more than {MAX_CALL_MESSAGES} messages or {MAX_CALL_BYTES} bytes for the client "
                f"because of one message"
            )

    # -- what the session calls ---------------------------------------------------------------

    def queue_effect(
        self, kind: MessageType, *own: int, tail: bytes | bytearray | None = None
    ) -> None:
        """Holds a message until :meth:`flush_effects`."""
        if not self._effects:
            self.on_effect()
        self._emitter = _NOBODY
        self._effects.append((kind, own, tail))

    def flush_effects(self) -> None:
        """The devices' call is over: says what it caused, once what they posted was heard."""
        if self.message_bus.rung:
            self.message_bus.deliver()
        self.before_effects()
        if not self._effects:
            return
        self._emitter = _NOBODY
        for kind, own, tail in self._effects:
            if kind is not MessageType.EMIT or tail is None:
                self.send_numbered(kind, *own, tail=None if tail is None else bytes(tail))
                continue
            for at in range(0, len(tail), limits.MAX_EMIT_BYTES):
                self.send_numbered(kind, *own, tail=bytes(tail[at : at + limits.MAX_EMIT_BYTES]))
        self._effects.clear()
        self._emitted_bytes = 0

    def take_line(self) -> tuple[int, ...] | None:
        """Line, level and number of an interrupt, if that is all that there is to say.

        Who takes it says it; no INTERRUPT is held any more then.
        """
        self.before_effects()
        if len(self._effects) != 1 or self.outgoing:
            return None
        kind, own, _ = self._effects[0]
        if kind is not MessageType.INTERRUPT or self._connection.state is not State.ATTACHED:
            return None
        self._effects.clear()
        return own

    def forget(self) -> None:
        """Drops what was caused: it is of no interest any more, or not yet."""
        self._emitter = _NOBODY
        self._effects.clear()
        self._emitted_bytes = 0

    def is_heavy(self) -> bool:
        """Whether so much waits to be sent that nothing more is to be asked before."""
        return self._said_bytes >= HEAVY_BYTES

    def send_numbered(self, kind: MessageType, *own: int, tail: bytes | None = None) -> None:
        """Says a numbered message, by its own fields; only to a client that is attached."""
        if self._connection.state is State.ATTACHED:
            self._put(self._connection.encode(kind, *own, tail=tail))

    def send(self, message: Message) -> None:
        """Says any message."""
        self._put(codec.encode(self._connection.stamp(message)))

    def _put(self, encoded: bytes) -> None:
        self.outgoing.append(encoded)
        self._said_bytes += len(encoded)

    def hand_over(self) -> list[bytes]:
        """Everything said since the last time, for somebody who puts it into frames."""
        said, self.outgoing, self._said_bytes = self.outgoing, [], 0
        return said

    def take_bytes(self) -> bytes:
        """Everything said since the last time, in as few frames as the bound allows."""
        self._connection.has_spoken()
        self._said_bytes = 0
        if len(self.outgoing) == 1:
            return codec.frame(self.outgoing.pop())
        frames: list[bytes] = []
        held: list[bytes] = []
        size = 0
        for message in self.outgoing:
            if size + len(message) > limits.MAX_FRAME_BYTES:
                frames.append(codec.frame(b"".join(held)))
                held, size = [], 0
            held.append(message)
            size += len(message)
        if held:
            frames.append(codec.frame(b"".join(held)))
        self.outgoing.clear()
        return b"".join(frames)
