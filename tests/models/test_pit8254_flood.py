"""A guest that asks the timer for more interrupts than anybody could take."""

from devserver.models.device import Context, Signal
from devserver.models.pit8254.device import MAX_EDGES, WINDOW_NS, Pit8254

MODE2_TWO_BYTES = 0x34
SECOND_NS = 1_000_000_000


class Line:
    """Counts the changes of the timer's interrupt line."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0
        self.changes = 0

    def set_line(self, output: str, level: bool) -> None:
        self.changes += level != self.level
        self.rises += level and not self.level
        self.level = level

    def emit(self, channel: str, data: bytes) -> None:
        raise AssertionError("a timer has nothing to say")

    def signal(self, signal: Signal, value: int) -> None:
        raise AssertionError("a timer does not end machines")


def timer_with_count(count: int) -> tuple[Pit8254, Line]:
    line = Line()
    pit = Pit8254(Context(bus=line))
    pit.write("counters", 3, 1, MODE2_TWO_BYTES, 0)
    pit.write("counters", 0, 1, count & 0xFF, 0)
    pit.write("counters", 0, 1, count >> 8, 0)
    return pit, line


def run(pit: Pit8254, until_ns: int) -> int:
    """Advances deadline by deadline, as a bus does; returns how many there were."""
    turns = 0
    while (due_ns := pit.deadline_ns()) is not None and due_ns <= until_ns:
        pit.advance(due_ns)
        turns += 1
    return turns


def test_a_million_interrupts_a_second_cost_no_more_than_twenty_thousand() -> None:
    pit, line = timer_with_count(2)
    turns = run(pit, SECOND_NS)
    windows = SECOND_NS // WINDOW_NS
    assert turns <= windows * (MAX_EDGES + 2)
    assert line.rises >= windows * (MAX_EDGES // 2 - 2)


def test_rates_that_a_processor_can_take_are_exact() -> None:
    pit, line = timer_with_count(1193182 // 18000)
    run(pit, SECOND_NS)
    assert abs(line.rises - 1193182 // (1193182 // 18000)) <= 1


def test_the_flood_ends_when_the_guest_asks_for_less() -> None:
    pit, line = timer_with_count(2)
    run(pit, SECOND_NS // 2 + WINDOW_NS // 2)
    for value in (0x9C, 0x2E):  # 11932: about 100 Hz
        pit.write("counters", 0, 1, value, SECOND_NS // 2 + WINDOW_NS // 2)
    run(pit, SECOND_NS)
    before = line.rises
    run(pit, 2 * SECOND_NS)
    assert line.rises - before == 100


def test_reads_go_on_while_interrupts_are_passed_over() -> None:
    pit, _ = timer_with_count(2)
    for now_ns in range(0, 5 * WINDOW_NS, WINDOW_NS // 50):
        run(pit, now_ns)
        assert 0 <= pit.read("counters", 0, 1, now_ns) <= 2


def test_the_next_deadline_is_never_one_that_has_just_been_served() -> None:
    pit, _ = timer_with_count(2)
    served_ns = -1
    while (due_ns := pit.deadline_ns()) is not None and due_ns <= 3 * WINDOW_NS:
        assert due_ns > served_ns
        pit.advance(due_ns)
        served_ns = due_ns
