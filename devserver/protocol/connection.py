"""The rules of a conversation, for either end, with no I/O.

The conversation is one state machine that both ends watch: whoever sends a message and whoever
receives it make the same step. A step that the table does not have is a mistake of the sender::

            HELLO >            < WELCOME           ATTACH >          < ATTACHED
    OPENING ------> GREETING ------------> READY ----------> ATTACHING ------> ATTACHED
                                                                               |    ^ | numbered
    OPENING -- JOIN > --> JOINING -- < WELCOME --> JOINED;  OPENING -- PANEL > --> PANEL

    ERROR (either way) and < BUSY lead from anywhere to CLOSED       DETACH >  |    '-' messages
                                                                               v
                                                                            DETACHED

PING, PONG and ACK may pass from READY on and change nothing.

An end calls :meth:`Connection.send` for the bytes to write, and :meth:`Connection.receive` with
the bytes it read. Numbered messages are numbered and acknowledged here; their identifiers are
checked against those that the handshake settled.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from enum import Enum, auto
from typing import Any, TypeVar

from devserver.protocol import codec, limits
from devserver.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from devserver.protocol.messages import (
    FIELDS,
    TYPE_OF,
    Ack,
    Attach,
    Attached,
    Hello,
    Join,
    Message,
    MessageType,
    Panel,
    Pong,
    SessionMessage,
    Welcome,
)


class Role(Enum):
    """Which end of a connection this is."""

    CLIENT = auto()
    SERVER = auto()


class State(Enum):
    """Where a conversation stands."""

    OPENING = auto()
    GREETING = auto()
    READY = auto()
    ATTACHING = auto()
    ATTACHED = auto()
    DETACHED = auto()
    JOINING = auto()
    JOINED = auto()
    PANEL = auto()
    CLOSED = auto()


_NUMBERED = {
    Role.CLIENT: {kind for kind, fields in FIELDS.items() if "server_id" in fields},
    Role.SERVER: {kind for kind, fields in FIELDS.items() if "applied" in fields},
}
_OPENING = (State.OPENING, State.GREETING, State.READY, State.ATTACHING, State.JOINING)
_ALIVE = (State.READY, State.ATTACHING, State.ATTACHED, State.DETACHED, State.JOINED)


def _steps(sender: Role) -> dict[tuple[State, MessageType], State]:
    """Every step that a message of ``sender`` can make."""
    table = {(state, MessageType.ERROR): State.CLOSED for state in State}
    for kind in (MessageType.PING, MessageType.PONG, MessageType.ACK):
        table |= {(state, kind): state for state in _ALIVE}
    table |= {(State.ATTACHED, kind): State.ATTACHED for kind in _NUMBERED[sender]}
    if sender is Role.CLIENT:
        table[State.OPENING, MessageType.HELLO] = State.GREETING
        table[State.OPENING, MessageType.JOIN] = State.JOINING
        table[State.OPENING, MessageType.PANEL] = State.PANEL
        table[State.READY, MessageType.ATTACH] = State.ATTACHING
        table[State.ATTACHED, MessageType.DETACH] = State.DETACHED
    else:
        # what was under way when the client detached
        table |= {(State.DETACHED, kind): State.DETACHED for kind in _NUMBERED[sender]}
        table |= {(state, MessageType.BUSY): State.CLOSED for state in State}
        table[State.GREETING, MessageType.WELCOME] = State.READY
        table[State.JOINING, MessageType.WELCOME] = State.JOINED
        table[State.ATTACHING, MessageType.ATTACHED] = State.ATTACHED
    return table


_STEPS = {role: _steps(role) for role in Role}
_SESSION_STEPS = frozenset(
    {
        MessageType.HELLO,
        MessageType.WELCOME,
        MessageType.ATTACH,
        MessageType.ATTACHED,
        MessageType.ERROR,
        MessageType.BUSY,
        MessageType.JOIN,
        MessageType.PANEL,
    }
)

M = TypeVar("M", bound=Any)

#: What :attr:`Connection.counters` counts, by index; ``struct serve_counters`` has the same.
COUNTERS = (
    "sent",
    "received",
    "acknowledged",
    "posted",
    "confirmed",
    "window_start",
    "unacknowledged",
)
_SENT, _RECEIVED, _ACKNOWLEDGED, _POSTED, _CONFIRMED, _WINDOW_START, _UNACKNOWLEDGED = range(
    len(COUNTERS)
)


class Connection:
    """One end of a conversation.

    ``counters`` may be replaced by another sequence of the same numbers, which something else
    counts on as well (the data loop in C does). Beside the sequence numbers these are, at a server:
    writes ``posted`` to it, those that it has ``confirmed`` and that it had confirmed when it last
    spoke (where the window starts), and those ``unacknowledged`` since its last ACK.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self.state = State.OPENING
        self.counters: MutableSequence[int] = [0] * len(COUNTERS)
        self.window = 0
        self.server_id = 0
        self.client_id = 0
        self.vm_id = 0
        self.hypervisor = 0
        self._frames = codec.FrameReader()

    @property
    def sent(self) -> int:
        """The sequence number of the last message sent."""
        return self.counters[_SENT]

    @property
    def received(self) -> int:
        """The sequence number of the last message received."""
        return self.counters[_RECEIVED]

    @property
    def acknowledged(self) -> int:
        """The highest number of one's own that the peer has confirmed."""
        return self.counters[_ACKNOWLEDGED]

    # -- sending ------------------------------------------------------------------------------

    def send(self, *messages: Message) -> bytes:
        """The frame that carries ``messages``.

        Numbered messages are stamped with their sequence number, the acknowledgement and the
        identifiers (whatever these fields held). Raises :class:`LocalProtocolError`.
        """
        return codec.frame(b"".join([codec.encode(self.stamp(message)) for message in messages]))

    def stamp(self, message: M) -> M:
        """Makes the step that sending ``message`` is, and numbers it if it is numbered."""
        kind = TYPE_OF[type(message)]
        following = _STEPS[self.role].get((self.state, kind))
        if following is None:
            raise LocalProtocolError(
                ErrorCode.STATE, f"{kind.name} can't be sent while {self.state.name}"
            )
        if kind in _NUMBERED[self.role]:
            self.counters[_SENT] += 1
            self.counters[_CONFIRMED] = self.counters[_POSTED]
            message = message._replace(seq=self.sent, **self._identity())
        elif kind in _SESSION_STEPS:
            self._learn(message)
        self.state = following
        return message

    def encode(self, kind: MessageType, *own: int, tail: bytes | None = None) -> bytes:
        """A numbered message by its own fields (those behind the identifiers), encoded.

        The quick way for a server that says much: no message object is made. Raises
        :class:`LocalProtocolError` where :meth:`send` would.
        """
        if self.state is not State.ATTACHED and (self.state, kind) not in _STEPS[self.role]:
            raise LocalProtocolError(
                ErrorCode.STATE, f"{kind.name} can't be sent while {self.state.name}"
            )
        counters = self.counters
        counters[_SENT] = sent = counters[_SENT] + 1
        counters[_CONFIRMED] = counters[_POSTED]
        values = (sent, counters[_RECEIVED], self.vm_id, self.hypervisor, self.client_id, *own)
        if tail is None:
            return codec.LAYOUTS[kind].pack(*values)
        return codec.LAYOUTS[kind].pack(*values, len(tail)) + tail

    def acknowledgement(self) -> Ack:
        """An ACK of everything received so far."""
        self.counters[_CONFIRMED] = self.counters[_POSTED]
        self.counters[_UNACKNOWLEDGED] = 0
        return Ack(self.received)

    def pong(self, token: int) -> Pong:
        """The answer to a PING."""
        self.counters[_CONFIRMED] = self.counters[_POSTED]
        return Pong(token, self.received)

    def has_spoken(self) -> None:
        """What was said so far is on its way to the peer: its window starts behind it."""
        self.counters[_WINDOW_START] = self.counters[_CONFIRMED]

    def unacknowledged_writes(self) -> int:
        """Writes posted since the last :meth:`acknowledgement`."""
        return self.counters[_UNACKNOWLEDGED]

    # -- receiving ----------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Message]:
        """The messages that ``data`` completes; raises as :meth:`incoming` does."""
        return list(self.incoming(data))

    def incoming(self, data: bytes) -> Iterator[Message]:
        """The messages that ``data`` completes, each taken in turn: what is sent while one is dealt
        with acknowledges it, and none of those behind it.

        Raises :class:`RemoteProtocolError` at the first mistake of the peer, and closes.
        """
        try:
            for payload in self._frames.payloads(data):
                for message in codec.iterate(payload):
                    self._accept(message)
                    yield message
                    if self.state is State.CLOSED:
                        return  # whatever follows the last message is of no interest
        except RemoteProtocolError:
            self.state = State.CLOSED
            raise

    def put_off(self, message: Message) -> None:
        """A message is not dealt with yet: what is said meanwhile must not say that it is."""
        if TYPE_OF[type(message)] in _NUMBERED[self.peer]:
            self.counters[_RECEIVED] -= 1

    def go_on_with(self, message: Message) -> None:
        """A message that was :meth:`put_off` is dealt with now."""
        if TYPE_OF[type(message)] in _NUMBERED[self.peer]:
            self.counters[_RECEIVED] += 1

    def is_opening(self) -> bool:
        """Whether the handshake is not over."""
        return self.state in _OPENING

    def is_between_frames(self) -> bool:
        """Whether everything received so far made whole frames."""
        return self._frames.is_empty()

    def rest(self) -> bytes:
        """Bytes received that do not make a whole frame yet."""
        return self._frames.rest()

    # -- inner workings -----------------------------------------------------------------------

    def _accept(self, message: Any) -> None:
        kind = TYPE_OF[type(message)]
        following = _STEPS[self.peer].get((self.state, kind))
        if following is None:
            raise RemoteProtocolError(
                ErrorCode.STATE, f"{kind.name} received while {self.state.name}"
            )
        if kind in _NUMBERED[self.peer]:
            self._accept_numbered(kind, message)
        elif kind in _SESSION_STEPS:
            self._learn(message)
        elif kind is not MessageType.PING:
            self._acknowledge(message.ack)
        self.state = following

    def _accept_numbered(self, kind: MessageType, message: Any) -> None:
        if message.seq != self.received + 1:
            raise RemoteProtocolError(
                ErrorCode.SEQUENCE,
                f"{kind.name} has sequence number {message.seq}; expected {self.received + 1}",
            )
        for name in ("server_id", "vm_id", "hypervisor", "client_id"):
            named = getattr(message, name, None)
            if named is not None and named != getattr(self, name):
                raise RemoteProtocolError(
                    ErrorCode.IDENTITY,
                    f"{kind.name} names {name} {named}; this stream is of {getattr(self, name)}",
                )
        self._acknowledge(message.ack if self.peer is Role.CLIENT else message.applied)
        if kind is MessageType.BATCH:
            self._accept_posted(len(message.writes))
        self.counters[_RECEIVED] = message.seq

    def _accept_posted(self, count: int) -> None:
        """Holds the client to its window. What it was told in this turn it can't know yet."""
        counters = self.counters
        under_way = counters[_POSTED] + count - counters[_WINDOW_START]
        if under_way > self.window:
            raise RemoteProtocolError(
                ErrorCode.WINDOW,
                f"{under_way} posted writes are not acknowledged; the window is {self.window}",
            )
        counters[_POSTED] += count
        counters[_UNACKNOWLEDGED] += count

    def _acknowledge(self, number: int) -> None:
        if number > self.sent:
            raise RemoteProtocolError(
                ErrorCode.SEQUENCE,
                f"number {number} is acknowledged, but only {self.sent} were sent",
            )
        if number > self.counters[_ACKNOWLEDGED]:
            self.counters[_ACKNOWLEDGED] = number

    def _identity(self) -> dict[str, int]:
        stamp = {
            "vm_id": self.vm_id,
            "hypervisor": self.hypervisor,
            "client_id": self.client_id,
        }
        if self.role is Role.CLIENT:
            return {**stamp, "server_id": self.server_id, "ack": self.received}
        return {**stamp, "applied": self.received}

    def _learn(self, message: SessionMessage) -> None:
        """Takes the identities from the handshake."""
        if isinstance(message, Hello | Join | Panel) and message.version != limits.PROTOCOL_VERSION:
            if self.role is Role.SERVER:
                raise RemoteProtocolError(
                    ErrorCode.VERSION,
                    f"the client speaks version {message.version} of the protocol, "
                    f"this server version {limits.PROTOCOL_VERSION}",
                )
        elif isinstance(message, Welcome):
            if message.version != limits.PROTOCOL_VERSION:
                raise RemoteProtocolError(
                    ErrorCode.VERSION,
                    f"the server speaks version {message.version} of the protocol, "
                    f"this client version {limits.PROTOCOL_VERSION}",
                )
            self.server_id, self.client_id = message.server_id, message.client_id
        elif isinstance(message, Attach):
            self.hypervisor = message.hypervisor
        elif isinstance(message, Attached):
            self.vm_id, self.window = message.vm_id, message.window


def blank(cls: type[M], **fields: Any) -> M:
    """A numbered message with its own fields; :meth:`Connection.stamp` fills in the others."""
    message: M = cls(**{**dict.fromkeys(FIELDS[TYPE_OF[cls]], 0), **fields})
    return message
