"""Our PC beside QEMU's: the same accesses at the same times, seen by a guest's eyes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from qemu_differences import Guest, uncompared
from qemu_pc import In, Out, Outcome, Seen, Step, run

from devserver.machine.board import PC_BOARD
from devserver.machine.bus import Bus
from devserver.models import Signal, Space

PIT_LINE, COM1_LINE, RTC_LINE = 0, 4, 8

few = settings(
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Ours:
    """Our PC, which takes steps at the times at which QEMU's took them."""

    def __init__(self) -> None:
        self.levels: dict[int, bool] = {}
        self.rises: dict[int, int] = {}
        self.sent: dict[int, bytes] = {}
        self.signals: list[tuple[Signal, int]] = []
        self.bus = Bus(PC_BOARD, self)
        self.names = {slot.wiring.name: at for at, slot in self.bus.slots.items()}

    def take(self, step: Step, at_ns: int, until_ns: int) -> Seen:
        value = None
        match step:
            case In(port, size):
                value = self.bus.read(Space.PORT, port, size, at_ns)
            case Out(port, written, size):
                self.bus.write(Space.PORT, port, size, written, at_ns)
        self.bus.advance(until_ns)
        rises, self.rises = self.rises, {}
        return Seen(at_ns, until_ns, value, dict(self.levels), rises)

    def line(self, line: int, level: bool) -> None:
        self.levels[line] = level
        self.rises[line] = self.rises.get(line, 0) + level

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self.sent[device_id] = self.sent.get(device_id, b"") + data

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        raise AssertionError("nothing was fed")

    def signal(self, device_id: int, signal: Signal, value: int) -> None:
        self.signals.append((signal, value))

    def sent_by(self, name: str) -> bytes:
        return self.sent.get(self.names[name], b"")


def compare(steps: Sequence[Step], shift: int, line: int) -> tuple[Outcome, Ours]:
    """Takes the steps on both; fails at the first that a guest could tell apart."""
    theirs, ours, guest = run(steps, shift), Ours(), Guest()
    story: list[str] = []
    for step, seen in zip(steps, theirs.seen, strict=True):
        guest.note(step)
        mine = ours.take(step, seen.at_ns, seen.until_ns)
        kept = ~uncompared(guest, step) if isinstance(step, In) else 0
        story.append(f"{step}: QEMU {digest(seen, line, kept)}, ours {digest(mine, line, kept)}")
        assert digest(mine, line, kept) == digest(seen, line, kept), "\n".join(story)
    return theirs, ours


def digest(seen: Seen, line: int, kept: int) -> tuple[int | None, bool, int]:
    """What is compared of a step: value, level of the line, how often it rose."""
    value = None if seen.value is None else seen.value & kept
    return value, seen.levels.get(line, False), seen.rises.get(line, 0)


def flat(moves: Sequence[Sequence[Step]]) -> list[Step]:
    """The steps of all moves."""
    return [step for move in moves for step in move]
