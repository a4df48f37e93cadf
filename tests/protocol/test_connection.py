"""The rules of a conversation, played by both ends against each other."""

from __future__ import annotations

from itertools import product

import pytest
from conversation import CLIENT_ID, HANDSHAKE, HYPERVISOR, SERVER_ID, VM_ID, other, pair, sample
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from wire_strategies import fixed

from devserver.protocol import codec, limits
from devserver.protocol.connection import Connection, Role, State, blank
from devserver.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from devserver.protocol.messages import (
    FIELDS,
    TYPE_OF,
    Ack,
    Busy,
    Clock,
    Detach,
    Error,
    Feedback,
    Finish,
    Hello,
    Interrupt,
    Message,
    MessageType,
    Ping,
    Pong,
    Request,
    Welcome,
)

FROM_CLIENT = {
    MessageType.REQUEST,
    MessageType.BATCH,
    MessageType.FEED,
    MessageType.CLOCK,
    MessageType.DETACH,
    MessageType.SAVE,
    MessageType.ADD,
}
FROM_SERVER = {
    MessageType.FEEDBACK,
    MessageType.FINISH,
    MessageType.INTERRUPT,
    MessageType.EMIT,
    MessageType.CONSUMED,
    MessageType.EVENT,
    MessageType.LEASE,
    MessageType.STATE,
    MessageType.ADDED,
}
KEEPING_ALIVE = {MessageType.PING, MessageType.PONG, MessageType.ACK}

#: What each end may send in each state, beside ERROR (and BUSY, from the server).
ALLOWED: dict[tuple[Role, State], set[MessageType]] = {
    (Role.CLIENT, State.OPENING): {MessageType.HELLO, MessageType.JOIN},
    (Role.CLIENT, State.READY): {MessageType.ATTACH, *KEEPING_ALIVE},
    (Role.CLIENT, State.ATTACHING): KEEPING_ALIVE,
    (Role.CLIENT, State.ATTACHED): FROM_CLIENT | KEEPING_ALIVE,
    (Role.CLIENT, State.DETACHED): KEEPING_ALIVE,
    (Role.CLIENT, State.JOINED): KEEPING_ALIVE,
    (Role.SERVER, State.JOINING): {MessageType.WELCOME},
    (Role.SERVER, State.JOINED): KEEPING_ALIVE,
    (Role.SERVER, State.GREETING): {MessageType.WELCOME},
    (Role.SERVER, State.READY): KEEPING_ALIVE,
    (Role.SERVER, State.ATTACHING): {MessageType.ATTACHED, *KEEPING_ALIVE},
    (Role.SERVER, State.ATTACHED): FROM_SERVER | KEEPING_ALIVE,
    (Role.SERVER, State.DETACHED): FROM_SERVER | KEEPING_ALIVE,
}


def allowed(sender: Role, state: State) -> set[MessageType]:
    ends = {MessageType.ERROR} | ({MessageType.BUSY} if sender is Role.SERVER else set())
    return ALLOWED.get((sender, state), set()) | ends


def code_of(connection: Connection, message: Message) -> ErrorCode:
    """How a connection refuses a message that it receives."""
    with pytest.raises(RemoteProtocolError) as caught:
        connection.receive(codec.frame(codec.encode(message)))
    assert connection.state is State.CLOSED
    return caught.value.code


# -- which message, when --------------------------------------------------------------------------


@pytest.mark.parametrize(("sender", "state"), list(product(Role, State)))
def test_both_ends_take_an_allowed_message_alike(sender: Role, state: State) -> None:
    for kind in allowed(sender, state):
        ends = pair(state)
        sent = ends[sender].send(sample(kind))
        (received,) = ends[other(sender)].receive(sent)
        assert type(received) is type(sample(kind))
        assert ends[Role.CLIENT].state is ends[Role.SERVER].state


@pytest.mark.parametrize(("sender", "state"), list(product(Role, State)))
def test_both_ends_refuse_any_other_message(sender: Role, state: State) -> None:
    for kind in set(MessageType) - allowed(sender, state):
        ends = pair(state)
        with pytest.raises(LocalProtocolError, match=f"{kind.name} can't be sent") as caught:
            ends[sender].send(sample(kind))
        assert caught.value.code is ErrorCode.STATE
        assert ends[sender].state is state  # nothing has happened
        assert code_of(ends[other(sender)], sample(kind)) is ErrorCode.STATE


def test_the_quick_way_to_send_refuses_what_the_other_refuses() -> None:
    with pytest.raises(LocalProtocolError, match="FINISH can't be sent while READY"):
        pair(State.READY)[Role.SERVER].encode(MessageType.FINISH, 1, 0)


def test_the_quick_way_to_send_makes_the_same_bytes() -> None:
    one, two = pair(State.ATTACHED), pair(State.ATTACHED)
    quick = one[Role.SERVER].encode(MessageType.FEEDBACK, 5, 0, tail=b"ab")
    message = blank(Feedback, request=5, status=0, data=b"ab")
    assert codec.frame(quick) == two[Role.SERVER].send(message)


@pytest.mark.parametrize("last", [Error("state", "enough"), Busy("full")])
def test_nothing_counts_behind_a_last_message(last: Message) -> None:
    client = pair(State.ATTACHED)[Role.CLIENT]
    payload = codec.encode(last) + b"\xc1 not msgpack"
    assert client.receive(codec.frame(payload)) == [last]
    assert client.state is State.CLOSED


def test_a_frame_full_of_greetings_is_refused_at_the_second() -> None:
    server = Connection(Role.SERVER)
    flood = codec.encode(Hello()) * 2 + b"\xc1 never looked at"
    with pytest.raises(RemoteProtocolError, match="HELLO received while GREETING"):
        server.receive(codec.frame(flood))


# -- the handshake --------------------------------------------------------------------------------


def test_the_handshake_settles_the_identities_for_both() -> None:
    for end in pair(State.ATTACHED).values():
        identity = (end.server_id, end.client_id, end.vm_id, end.hypervisor)
        assert identity == (SERVER_ID, CLIENT_ID, VM_ID, HYPERVISOR)


@pytest.mark.parametrize("version", [0, limits.PROTOCOL_VERSION + 1])
def test_another_version_is_refused_by_either_end(version: int) -> None:
    assert code_of(pair(State.OPENING)[Role.SERVER], Hello(version)) is ErrorCode.VERSION
    welcome = Welcome(version, SERVER_ID, CLIENT_ID, epoch=1)
    assert code_of(pair(State.GREETING)[Role.CLIENT], welcome) is ErrorCode.VERSION


# -- numbers and identifiers ----------------------------------------------------------------------


def from_client(**wrong: int) -> Clock:
    right = Clock(1, 0, SERVER_ID, VM_ID, HYPERVISOR, CLIENT_ID, running=1, time_ns=0)
    return right._replace(**wrong)


def from_server(**wrong: int) -> Interrupt:
    right = Interrupt(1, 0, VM_ID, HYPERVISOR, CLIENT_ID, line=0, level=1, number=1)
    return right._replace(**wrong)


@pytest.mark.parametrize("seq", [0, 2, (1 << 64) - 1])
def test_a_number_out_of_turn_is_refused(seq: int) -> None:
    ends = pair(State.ATTACHED)
    assert code_of(ends[Role.SERVER], from_client(seq=seq)) is ErrorCode.SEQUENCE
    assert code_of(ends[Role.CLIENT], from_server(seq=seq)) is ErrorCode.SEQUENCE


@pytest.mark.parametrize("name", ["server_id", "vm_id", "hypervisor", "client_id"])
def test_the_identifiers_of_another_are_refused(name: str) -> None:
    ends = pair(State.ATTACHED)
    assert code_of(ends[Role.SERVER], from_client(**{name: 99})) is ErrorCode.IDENTITY
    if name != "server_id":  # the server's messages do not name it
        assert code_of(ends[Role.CLIENT], from_server(**{name: 99})) is ErrorCode.IDENTITY


@pytest.mark.parametrize("message", [Ack(1), Pong(0, 1), from_client(ack=1)])
def test_a_server_can_t_be_told_that_more_was_received_than_it_sent(message: Message) -> None:
    assert code_of(pair(State.ATTACHED)[Role.SERVER], message) is ErrorCode.SEQUENCE


@pytest.mark.parametrize("message", [Ack(1), Pong(0, 1), from_server(applied=1)])
def test_a_client_can_t_be_told_that_more_was_applied_than_it_sent(message: Message) -> None:
    assert code_of(pair(State.ATTACHED)[Role.CLIENT], message) is ErrorCode.SEQUENCE


def test_every_numbered_message_acknowledges_what_came_before() -> None:
    ends = pair(State.ATTACHED)
    client, server = ends[Role.CLIENT], ends[Role.SERVER]
    server.receive(client.send(blank(Request, data=b""), blank(Clock)))
    client.receive(server.send(blank(Finish)))
    assert (client.acknowledged, server.acknowledged) == (2, 0)
    server.receive(client.send(client.acknowledgement()))
    assert server.acknowledged == 1
    server.receive(client.send(blank(Clock)))
    client.receive(server.send(server.pong(5)))
    assert client.acknowledged == 3


def test_a_ping_acknowledges_nothing_and_is_answered_with_its_token() -> None:
    ends = pair(State.READY)
    assert ends[Role.SERVER].receive(ends[Role.CLIENT].send(Ping(77))) == [Ping(77)]
    assert ends[Role.SERVER].pong(77) == Pong(77, 0)


def test_an_older_acknowledgement_takes_nothing_back() -> None:
    ends = pair(State.ATTACHED)
    client, server = ends[Role.CLIENT], ends[Role.SERVER]
    client.send(blank(Clock), blank(Clock))
    client.receive(server.send(Ack(2), Ack(1)))
    assert client.acknowledged == 2


def test_what_came_behind_a_whole_frame_can_be_handed_on() -> None:
    client = pair(State.ATTACHED)[Role.CLIENT]
    frame = codec.frame(codec.encode(from_server()))
    assert client.receive(frame + frame[:9]) == [from_server()]
    assert client.rest() == frame[:9]
    assert not client.is_between_frames()


# -- any conversation -----------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """Two ends that say only what they may, over a stream that cuts and delays as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        self.wire = dict.fromkeys(Role, b"")  # on the way from this end
        self.said: dict[Role, list[Message]] = {role: [] for role in Role}
        self.heard: dict[Role, list[Message]] = {role: [] for role in Role}

    def say(self, sender: Role, *messages: Message) -> None:
        stamped = [self.ends[sender].stamp(message) for message in messages]
        self.wire[sender] += codec.frame(b"".join(map(codec.encode, stamped)))
        self.said[sender] += stamped

    def carry(self, sender: Role, length: int) -> None:
        part, self.wire[sender] = self.wire[sender][:length], self.wire[sender][length:]
        receiver = other(sender)
        if self.ends[receiver].state is not State.CLOSED:  # such a one does not read on
            self.heard[sender] += self.ends[receiver].receive(part)

    @initialize(state=st.sampled_from([State.OPENING, State.ATTACHED]))
    def start(self, state: State) -> None:
        self.ends = pair(state)

    @rule()
    def shake_hands(self) -> None:
        """Whoever's turn it is says the next message of the handshake."""
        for sender, message in HANDSHAKE[:4]:
            kind = TYPE_OF[type(message)]
            if kind in ALLOWED.get((sender, self.ends[sender].state), ()):
                self.say(sender, message)
                return

    @rule(sender=st.sampled_from(Role), data=st.data())
    def say_something(self, sender: Role, data: st.DataObject) -> None:
        known = ALLOWED.get((sender, self.ends[sender].state), set()) & set(FIELDS)
        kinds = sorted(known - {MessageType.DETACH, MessageType.ACK, MessageType.PONG})
        if kinds:
            chosen = data.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
            self.say(sender, *(data.draw(fixed(kind)) for kind in chosen))

    @rule(sender=st.sampled_from(Role))
    def acknowledge(self, sender: Role) -> None:
        if MessageType.ACK in allowed(sender, self.ends[sender].state):
            self.say(sender, self.ends[sender].acknowledgement())

    @rule(sender=st.sampled_from(Role), length=st.integers(1, 300))
    def carry_some(self, sender: Role, length: int) -> None:
        self.carry(sender, length)

    @precondition(lambda self: self.ends[Role.CLIENT].state is State.ATTACHED)
    @rule()
    def detach(self) -> None:
        self.say(Role.CLIENT, blank(Detach))

    @rule(sender=st.sampled_from(Role), chance=st.integers(0, 30))
    def give_up(self, sender: Role, chance: int) -> None:
        if chance == 0 and self.ends[sender].state is not State.CLOSED:
            self.say(sender, Error("internal", "no more"))

    @invariant()
    def messages_arrive_whole_and_in_order(self) -> None:
        for role in Role:
            assert self.heard[role] == self.said[role][: len(self.heard[role])]

    @invariant()
    def nobody_knows_more_than_has_happened(self) -> None:
        client, server = self.ends[Role.CLIENT], self.ends[Role.SERVER]
        for one, two in ((client, server), (server, client)):
            assert one.acknowledged <= two.received <= one.sent

    def teardown(self) -> None:
        ended = State.CLOSED in {end.state for end in self.ends.values()}
        for role in Role:
            self.carry(role, len(self.wire[role]))
        if not ended:
            assert self.heard == self.said
            assert self.ends[Role.CLIENT].state is self.ends[Role.SERVER].state


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
