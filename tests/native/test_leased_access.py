"""However late messages are, a guest that is answered from leases reads what it would have read."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_counter import BASE, COMMAND, COUNT, DEVICES, LOAD, PLAIN, SUM, WAITING, ToyCounter
from toy_counter import ToyServer as Server
from wire_guest import WireGuest


@dataclass(frozen=True)
class Step:
    """What happens next, ``later_ns`` after what happened before."""

    what: str
    lane: int = 0
    value: int = 0
    later_ns: int = 0


LATER = st.integers(0, 3000) | st.just(300_000)
READS = st.builds(
    Step, st.just("read"), st.sampled_from([COUNT, COUNT, PLAIN, SUM]), later_ns=LATER
)
WRITES = st.builds(
    Step,
    st.just("write"),
    st.sampled_from([COMMAND, COMMAND, LOAD, PLAIN, WAITING, 6]),
    st.sampled_from([0, 0, 0, 1, 0x10, 0xFF]),
    LATER,
)
WIDE = st.builds(Step, st.sampled_from(["wide read", "wide write"]), st.sampled_from([0, 3, 4]))
TRAVEL = st.builds(Step, st.sampled_from(["flush", "deliver", "take", "take", "say again"]))
STEPS = st.lists(READS | READS | WRITES | TRAVEL | TRAVEL | WIDE, max_size=60)


class Trial:
    """One guest, on a server with leases and late messages, beside one with a device of its own."""

    def __init__(self) -> None:
        self.server = Server()
        self.guest = WireGuest(DEVICES, self.server.receive)
        self.twin = ToyCounter()
        self.now_ns = 0

    def close(self) -> None:
        self.guest.close()

    def step(self, step: Step) -> None:
        self.now_ns += step.later_ns
        port, now_ns = BASE + step.lane, self.now_ns
        if step.what == "read":
            wanted = self.twin.read(step.lane, now_ns)
            assert self.guest.read(port, now_ns) == wanted
        elif step.what == "write":
            self.twin.write(step.lane, step.value, now_ns)
            self.guest.write(port, step.value, now_ns)
        elif step.what == "wide read":
            low, high = (self.twin.read(step.lane + at, now_ns) for at in range(2))
            assert self.guest.read(port, now_ns, 2) == low | high << 8
        elif step.what == "wide write":
            for at in range(2):
                self.twin.write(step.lane + at, 0x20 + at, now_ns)
            self.guest.write(port, 0x2120, now_ns, 2)
        else:
            self.travel(step.what)

    def travel(self, what: str) -> None:
        if what == "flush":
            self.guest.flush()
        elif what == "deliver":
            self.guest.deliver()
        elif what == "take":
            self.guest.take()
        else:
            self.guest.say(self.server.say_again())


#: A lease that was made before a write, and comes after it.
CROSSING = [Step("write", PLAIN, 1), Step("say again"), *[Step("take")] * 3, Step("read", PLAIN)]


@settings(max_examples=100, deadline=None)
@given(STEPS)
@example(CROSSING)
def test_leases_tell_a_guest_what_strict_forwarding_would(steps: list[Step]) -> None:
    with closing(Trial()) as trial:
        for step in steps:
            trial.step(step)


def test_a_guest_that_polls_a_held_counter_needs_the_server_no_more() -> None:
    poll = [Step("write", COMMAND, 0, 5000), Step("read", COUNT), Step("read", COUNT)]
    with closing(Trial()) as trial:
        trial.step(Step("read", PLAIN))  # the server tells its leases
        asked = int(trial.guest.link.stats.requests)
        for step in poll * 50:
            trial.step(step)
        assert int(trial.guest.link.stats.requests) == asked
        assert int(trial.guest.vcpu.leased) == 100
