"""Both ends of a conversation, brought to where a test wants them, and a message of each type."""

from __future__ import annotations

from typing import Any

from devserver.protocol import limits
from devserver.protocol.connection import Connection, Role, State, blank
from devserver.protocol.messages import (
    FIELDS,
    FIXED_CLASSES,
    TYPE_OF,
    Attach,
    Attached,
    Busy,
    Detach,
    Error,
    FieldKind,
    Hello,
    Join,
    Message,
    MessageType,
    Panel,
    Welcome,
)

SERVER_ID, CLIENT_ID, VM_ID, HYPERVISOR = 7, 8, 9, 1

HANDSHAKE: list[tuple[Role, Message]] = [
    (Role.CLIENT, Hello()),
    (Role.SERVER, Welcome(limits.PROTOCOL_VERSION, SERVER_ID, CLIENT_ID, epoch=1)),
    (Role.CLIENT, Attach(HYPERVISOR)),
    (Role.SERVER, Attached(VM_ID)),
    (Role.CLIENT, blank(Detach)),
]
JOINING: list[tuple[Role, Message]] = [
    (Role.CLIENT, Join(limits.PROTOCOL_VERSION, "other", "unix:/other")),
    (Role.SERVER, Welcome(limits.PROTOCOL_VERSION, SERVER_ID, 0, epoch=1)),
]
PANEL = (Role.CLIENT, Panel(limits.PROTOCOL_VERSION, "operator"))
#: The states that the handshake leads through, one message after the other.
ROAD = [
    State.OPENING,
    State.GREETING,
    State.READY,
    State.ATTACHING,
    State.ATTACHED,
    State.DETACHED,
]

EMPTY: dict[FieldKind, Any] = {
    FieldKind.BIN: b"",
    FieldKind.STR: "",
    FieldKind.WRITES: (),
    FieldKind.TERMS: (),
}


def sample(kind: MessageType) -> Any:
    """Some message of a type."""
    if kind in FIELDS:
        tails = {name: EMPTY[width] for name, width in FIELDS[kind].items() if width.is_tail}
        return blank(FIXED_CLASSES[kind], **tails)
    greetings = [Error("state", "no"), Busy("full")]
    greetings += [message for _, message in (*HANDSHAKE, JOINING[0], PANEL)]
    return {TYPE_OF[type(message)]: message for message in greetings}[kind]


def other(role: Role) -> Role:
    return Role.SERVER if role is Role.CLIENT else Role.CLIENT


def pair(state: State) -> dict[Role, Connection]:
    """Both ends of a conversation that stands at ``state``."""
    ends = {role: Connection(role) for role in Role}
    if state is State.CLOSED:
        steps = [(Role.CLIENT, Error("state", ""))]
    elif state is State.PANEL:
        steps = [PANEL]
    elif state in ROAD:
        steps = HANDSHAKE[: ROAD.index(state)]
    else:
        steps = JOINING[: 1 if state is State.JOINING else 2]
    for sender, message in steps:
        ends[other(sender)].receive(ends[sender].send(message))
    assert {end.state for end in ends.values()} == {state}
    return ends
