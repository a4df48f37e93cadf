"""A client that answers from the PIT's leases by itself, beside a PIT that is asked each time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pit_bench import BOTH, Bench
from pit_sessions import count_bytes, inspect, spans_ns

from devserver.models.lease import Lease
from devserver.models.pit8254.device import Lane

LANES = {
    ("counters", 0): Lane.COUNTER0,
    ("counters", 1): Lane.COUNTER1,
    ("counters", 2): Lane.COUNTER2,
    ("counters", 3): Lane.CONTROL,
    ("portb", 0): Lane.PORTB,
}
PORTS = [port for port, lane in LANES.items() if lane is not Lane.CONTROL]
Entry = tuple[int, tuple[str, int], int | None]


@dataclass
class Granted:
    """A lease in the client's hands: what it is, which byte is next, and what it holds."""

    lease: Lease
    high_next: bool
    held: list[int] = field(default_factory=list)

    def bytes_at(self, now_ns: int) -> list[int]:
        low, high = self.lease.at(now_ns) & 0xFF, self.lease.at(now_ns) >> 8
        if not self.lease.pair:
            return [low]
        return [high, low] if self.high_next else [low, high]

    def hold(self, now_ns: int) -> None:
        self.held = self.held or self.bytes_at(now_ns)

    def read(self, now_ns: int) -> int:
        value = self.held.pop(0) if self.held else self.bytes_at(now_ns)[0]
        self.high_next ^= self.lease.pair
        return value


class Client:
    """Posts what it may, answers what it can, and asks the distant model for the rest."""

    def __init__(self) -> None:
        self.model = Bench()
        self.now_ns = self.asked = 0
        self.posted: list[Entry] = []
        self.last: dict[Lane, int] = {}
        self.granted: dict[tuple[str, int], Granted] = {}
        self.settle()

    def settle(self) -> None:
        """The model gets all that was posted, each at its own time, and gives its leases."""
        for at_ns, port, value in self.posted:
            self.model.wait(at_ns - self.model.now_ns)
            if value is None:
                self.model.read(*port, 1)
            else:
                self.model.write(*port, 1, value)
        self.posted.clear()
        self.model.wait(self.now_ns - self.model.now_ns)
        self.granted.clear()
        for port in PORTS:
            if lease := self.model.device.lease(*port, self.now_ns):
                self.granted[port] = Granted(lease, lease.high_next)

    def wait(self, span_ns: int) -> None:
        self.now_ns += span_ns

    def write(self, port: tuple[str, int], value: int) -> None:
        lane = LANES[port]
        for leased, granted in list(self.granted.items()):
            lease = granted.lease
            steady = lease.steady >> lane & 1 and self.last.get(lane) == value
            if lease.hold and lease.hold.is_meant_by(lane, value) and lease.covers(self.now_ns):
                granted.hold(self.now_ns)
            elif not (lease.is_unaffected_by(lane) or steady):
                del self.granted[leased]
        self.last[lane] = value
        self.posted.append((self.now_ns, port, value))

    def read(self, port: tuple[str, int]) -> int:
        granted = self.granted.get(port)
        if granted is None or not granted.lease.covers(self.now_ns):
            self.asked += 1
            self.settle()
            value = self.model.read(*port, 1)
            self.settle()
            return value
        if granted.lease.is_changed_by_reading():
            self.posted.append((self.now_ns, port, None))
        return granted.read(self.now_ns)


def command(counter: int) -> int:
    return counter << 6


controls = st.one_of(
    *([st.sampled_from([command(0), command(1), command(2)])] * 3),
    st.integers(0xC0, 0xFF),
    st.builds(
        lambda counter, access, mode: counter << 6 | access << 4 | mode,
        st.integers(0, 2),
        st.integers(1, BOTH),
        st.sampled_from([0, 2, 4, 4, 6, 6, 8, 10, 5]),
    ),
)
ports = st.sampled_from(PORTS)
steps = st.one_of(
    *([st.tuples(st.just("read"), ports)] * 3),
    st.tuples(st.just("wait"), spans_ns),
    *([st.tuples(st.just("write"), st.just(("counters", 3)), controls)] * 2),
    st.tuples(st.just("write"), ports, count_bytes),
)


@settings(max_examples=100, deadline=None)
@given(session=st.lists(steps, max_size=60))
def test_the_guest_reads_the_same_from_leases_as_from_the_model(
    session: list[tuple[str, ...]],
) -> None:
    client, strict = Client(), Bench()
    for step in session:
        match step:
            case "wait", int(span_ns):
                client.wait(span_ns)
                strict.wait(span_ns)
            case "write", port, int(value):
                client.write(port, value)
                strict.write(*port, 1, value)
            case "read", port:
                assert client.read(port) == strict.read(*port, 1), (step, client.now_ns)
    client.settle()
    assert inspect(client.model) == inspect(strict)
    assert client.model.device.save() == strict.device.save()


@pytest.mark.parametrize("counter", [0, 1, 2])
@pytest.mark.parametrize("mode", [0, 2, 3, 4])
def test_latching_and_reading_a_running_counter_again_and_again_asks_nothing(
    counter: int, mode: int
) -> None:
    client = Client()
    client.write(("portb", 0), 1)
    client.write(("counters", 3), counter << 6 | BOTH << 4 | mode << 1)
    for byte in (0x34, 0x12):
        client.write(("counters", counter), byte)
    client.wait(10_000)
    client.settle()
    for _ in range(50):
        client.wait(1_234)
        client.write(("counters", 3), command(counter))
        for _ in range(2):
            client.read(("counters", counter))
    assert client.asked == 0


def test_polling_port_b_while_its_bits_are_written_again_asks_nothing() -> None:
    client = Client()
    client.write(("portb", 0), 1)
    client.settle()
    for _ in range(50):
        client.wait(1_234)
        client.read(("portb", 0))
        client.write(("portb", 0), 1)
    assert client.asked == 0
