"""Our 8254 beside QEMU's.

Every value that a step reads is compared, the level of the interrupt line after the step, and how
often the line rose during it. What is left out stands in ``qemu_differences``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qemu_beside_ours import PIT_LINE, Ours, few, flat
from qemu_differences import PIT, PIT_CONTROL, PORT_B, Guest, uncompared
from qemu_pc import In, Out, Outcome, Seen, Step, Wait, run

from devserver.models.pit8254.device import PortB

pytestmark = pytest.mark.qemu

Move = Sequence[Step]

PIT_SHIFT = 6
PULSE_NS = 838.1
PAUSE = Wait(7_000)  # room for the two pulses that ours may be behind
#: Without the null count flag and OUT; OUT is seen at the line and at port B.
STATUS = 0x3F


def programmed(counter: int, mode: int, count: int, access: int = 3) -> Move:
    """A control word and the count after it."""
    control = Out(PIT_CONTROL, counter << 6 | access << 4 | mode << 1)
    return [control, *loaded(counter, count, access)]


def loaded(counter: int, count: int, access: int = 3) -> Move:
    port = PIT + counter
    low, high = Out(port, count & 0xFF), Out(port, count >> 8)
    return {1: [low], 2: [high], 3: [low, high]}[access]


def latched(counter: int) -> Move:
    return [Out(PIT_CONTROL, counter << 6), In(PIT + counter), In(PIT + counter)]


def read_back(counter: int, command: int) -> Move:
    """The read-back command for one counter, and reads of the status, the count or both."""
    reads = {0xC0: 3, 0xD0: 2, 0xE0: 1}[command]
    return [Out(PIT_CONTROL, command | 2 << counter), *[In(PIT + counter)] * reads]


PIT_SETUP: list[Step] = [
    Out(PORT_B, PortB.TIMER2_GATE),
    *(step for counter in range(3) for step in programmed(counter, 0, 0xFFFF)),
]
counters = st.integers(0, 2)
counts = st.one_of(
    st.sampled_from([4, 10, 0x100, 0x1000, 0]), st.integers(2, 0x7FFF).map(lambda n: 2 * n)
)
pit_move = st.one_of(
    st.builds(programmed, counters, st.sampled_from([0, 2, 3]), counts),
    st.builds(latched, counters),
    st.builds(read_back, counters, st.sampled_from([0xC0, 0xD0, 0xE0])),
    st.just([In(PORT_B)]),
    st.sampled_from([[Wait(span_ns)] for span_ns in (10_000, 50_000, 200_000, 3_000_000)]),
)


def pit_runs(steps: Sequence[Step], theirs: Outcome) -> list[list[Seen]]:
    """What ours sees when what it looks at lies no, one and two pulses later than QEMU's."""
    runs = []
    for pulses in range(3):
        ours, late_ns = Ours(), round(pulses * PULSE_NS)
        run_of = []
        for step, seen in zip(steps, theirs.seen, strict=True):
            loads = isinstance(step, Out) and step.port != PIT_CONTROL
            at_ns = seen.at_ns if loads else seen.at_ns + late_ns
            until_ns = seen.until_ns if isinstance(step, Wait) else seen.until_ns + late_ns
            run_of.append(ours.take(step, at_ns, until_ns))
        runs.append(run_of)
    return runs


def compare_pit(taken: Sequence[Move]) -> None:
    """Takes the moves on both machines; fails where no lateness of ours explains QEMU."""
    steps: list[Step] = [step for one in [*PIT_SETUP, *flat(taken)] for step in (one, PAUSE)]
    theirs = run(steps, PIT_SHIFT)
    runs, guest = pit_runs(steps, theirs), Guest()
    line = LineOfPit(1 + len(runs))
    status_due = False
    for at, (step, seen) in enumerate(zip(steps, theirs.seen, strict=True)):
        guest.note(step)
        each = [seen, *(run_of[at] for run_of in runs)]
        if isinstance(step, Out) and step.port == PIT_CONTROL:
            status_due = step.value & 0xD0 == 0xC0
        if isinstance(step, In):
            kept = ~uncompared(guest, step) & (STATUS if status_due else 0xFF)
            status_due = False
            values = [one.value & kept for one in each if one.value is not None]
            assert values[0] in values[1:], (steps[: at + 1], values)
        line.compare(guest, step, each)


class LineOfPit:
    """Counter 0's interrupt line on QEMU's machine and on the runs of ours."""

    def __init__(self, machines: int) -> None:
        self.rises = [0] * machines  # since counter 0 has its count
        self.running = False

    def compare(self, guest: Guest, step: Step, each: Sequence[Seen]) -> None:
        """Holds QEMU's line to the levels of ours, and its rises to lie between those of ours.

        Not in a wait, behind which there is no room for the pulses that ours may be late.
        """
        rises = [one.rises.get(PIT_LINE, 0) for one in each]
        self.rises = [sum(both) for both in zip(self.rises, rises, strict=True)]
        if guest.writes_due[0]:
            self.running = False
        elif not self.running:
            self.running, self.rises = True, [0] * len(each)
        elif not isinstance(step, Wait):
            rate_generator = guest.counter_mode[0] == 2
            least, most = min(self.rises[1:]) - rate_generator, max(self.rises[1:])
            assert least <= self.rises[0] <= most, step
            levels = [one.levels.get(PIT_LINE, False) for one in each]
            assert rate_generator or levels[0] in levels[1:], step


SPEAKER_LOOK: Move = (In(PORT_B), Wait(150_000))


def moves(*some: Move) -> list[Move]:
    """The moves of a story."""
    return list(some)


PIT_STORIES: dict[str, Sequence[Move]] = {
    **{
        f"mode {mode}, count {count}": moves(
            programmed(0, mode, count),
            *[[*latched(0), Wait(50_000)], [*read_back(0, 0xC0), Wait(400_000)]] * 3,
        )
        for mode in (0, 2, 3)
        for count in (10, 1000, 0)
    },
    "tick of a PC for a second": moves(
        programmed(0, 3, 0), *[[Wait(100_000_000), *latched(0)]] * 10
    ),
    "low bytes alone": moves(
        programmed(1, 2, 0x4242, access=1),
        [Out(PIT_CONTROL, 0x40), In(PIT + 1)],
        [Wait(20_000), Out(PIT_CONTROL, 0x40), In(PIT + 1)],
    ),
    "high bytes alone": moves(
        programmed(1, 2, 0x4242, access=2),
        [Out(PIT_CONTROL, 0x40), In(PIT + 1)],
        [Wait(400_000), Out(PIT_CONTROL, 0x40), In(PIT + 1)],
    ),
    "a latch holds until it is read": moves(
        programmed(2, 0, 5000),
        [Out(PIT_CONTROL, 0x80), Wait(90_000)],
        [Out(PIT_CONTROL, 0x80), In(PIT + 2), In(PIT + 2)],
        latched(2),
    ),
    "the speaker's counter shows at port B": moves(programmed(2, 3, 1000), *[SPEAKER_LOOK] * 8),
    "a new count of mode 0 begins anew": moves(
        *(programmed(0, 0, 1000), [Wait(100_000)], loaded(0, 2000), latched(0)),
        *([Wait(1_000_000)], latched(0), [Wait(1_000_000)], latched(0)),
    ),
}


@pytest.mark.parametrize("story", PIT_STORIES)
def test_timer_story(story: str) -> None:
    compare_pit(PIT_STORIES[story])


@few
@given(st.lists(pit_move, min_size=5, max_size=25))
def test_timer_whatever_the_guest_does(taken: list[Move]) -> None:
    compare_pit(taken)
