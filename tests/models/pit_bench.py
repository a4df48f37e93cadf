"""A PIT on a bench, with a guest's habits and a scope on counter 0; and its slow twin.

:class:`NaivePit` does what the data sheet says, one CLK pulse at a time. It is written from the
mode descriptions alone and shares nothing with the model.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from rig import Rig, Variant

LSB, MSB, BOTH = 1, 2, 3
GATE = 0x01
PULSE_NS = Fraction(88 * 1000, 105)


def pulse_ns(pulse: int) -> int:
    """The first whole nanosecond at which the pulse has passed."""
    return ceil(pulse * PULSE_NS)


class Bench(Rig):
    """The model, driven through its ports. Time stands just behind a CLK pulse unless asked."""

    def __init__(self) -> None:
        self.edges: list[tuple[int, bool]] = []
        super().__init__(Variant("pit8254"))
        self.pulse = 0

    def set_line(self, output: str, level: bool) -> None:
        if self.levels.get(output, False) != level:
            self.edges.append((self.now_ns, level))
        super().set_line(output, level)

    def pulses(self, count: int) -> None:
        """Lets CLK pulses pass."""
        self.pulse += count
        self.wait(pulse_ns(self.pulse) - self.now_ns)

    def control(self, value: int) -> None:
        self.write("counters", 3, 1, value)

    def program(self, counter: int, mode: int, access: int = BOTH, bcd: bool = False) -> None:
        self.control(counter << 6 | access << 4 | mode << 1 | bcd)

    def put(self, counter: int, *values: int) -> None:
        for value in values:
            self.write("counters", counter, 1, value)

    def get(self, counter: int) -> int:
        return self.read("counters", counter, 1)

    def gate(self, level: bool) -> None:
        """Drives GATE of counter 2."""
        self.write("portb", 0, 1, GATE if level else 0)

    def trigger(self) -> None:
        """A whole GATE pulse of counter 2 between two CLK pulses; leaves GATE high."""
        self.gate(False)
        self.gate(True)

    def status(self, counter: int) -> int:
        self.control(0xE0 | 2 << counter)
        return self.get(counter)

    def out(self, counter: int = 2) -> int:
        return self.status(counter) >> 7

    def count(self, counter: int = 2) -> int:
        """The present count of a counter in two-byte access, by the latch command."""
        self.control(counter << 6)
        return self.get(counter) | self.get(counter) << 8

    def trace(self, pulses: int) -> str:
        """Counter 2 after each of the next pulses: its count in hex, and ``_`` where OUT is low."""
        seen = []
        for _ in range(pulses):
            self.pulses(1)
            seen.append(f"{self.count():X}" + ("" if self.out() else "_"))
        return " ".join(seen)


def bench(
    mode: int, *count: int, gate: bool = True, access: int = BOTH, bcd: bool = False
) -> Bench:
    """A PIT whose counter 2 was programmed, and given a count if there is one."""
    pit = Bench()
    pit.gate(gate)
    pit.program(2, mode, access, bcd)
    pit.put(2, *count)
    return pit


def one_less(count: int, bcd: bool) -> int:
    """A decrement, digit by digit in BCD."""
    if not bcd:
        return (count - 1) % 0x10000
    digits = [count >> shift & 0xF for shift in (0, 4, 8, 12)]
    for place in range(4):
        if digits[place]:
            digits[place] -= 1
            break
        digits[place] = 9
    return sum(digit << 4 * place for place, digit in enumerate(digits))


class NaiveCounter:
    """One counter, a pulse at a time."""

    def __init__(self, gate: bool) -> None:
        self.gate_pin = gate
        self.out = False
        self.count = 0
        self.program(0x30)
        self.out = False

    def program(self, control: int) -> None:
        self.word = control & 0x3F
        self.bcd = bool(control & 1)
        self.mode = (0, 1, 2, 3, 4, 5, 2, 3)[control >> 1 & 7]
        self.access = control >> 4 & 3
        self.out = self.mode != 0
        self.register: int | None = None
        self.null = True
        self.running = self.new_count = self.rising = self.strobe_ready = False
        self.bytes_written: list[int] = []
        self.high_byte_next = False
        self.held_count: list[int] = []
        self.held_status: list[int] = []

    # -- between pulses

    def set_gate(self, level: bool) -> None:
        if level and not self.gate_pin:
            self.rising = True
        if not level and self.mode in (2, 3):
            self.out = True
        self.gate_pin = level

    def write(self, value: int) -> None:
        self.bytes_written.append(value)
        if self.mode == 0:
            self.out = False
        if self.access == BOTH and len(self.bytes_written) == 1:
            return
        low = 0 if self.access == MSB else self.bytes_written[0]
        high = 0 if self.access == LSB else self.bytes_written[-1]
        self.bytes_written = []
        self.register = low + 256 * high
        self.null = self.new_count = True

    def sides(self) -> list[int]:
        low, high = self.count % 256, self.count // 256
        if self.access != BOTH:
            return [low if self.access == LSB else high]
        return [high, low] if self.high_byte_next else [low, high]

    def read(self) -> int:
        if self.held_status:
            return self.held_status.pop()
        value = self.held_count.pop(0) if self.held_count else self.sides()[0]
        self.high_byte_next = self.access == BOTH and not self.high_byte_next
        return value

    def hold_count(self) -> None:
        self.held_count = self.held_count or self.sides()

    def hold_status(self) -> None:
        self.held_status = self.held_status or [128 * self.out + 64 * self.null + self.word]

    # -- a pulse

    def clock(self) -> None:
        trigger = self.rising and self.register is not None
        self.rising = False
        getattr(self, f"mode_{self.mode}")(trigger)

    def reload(self) -> None:
        assert self.register is not None
        self.count = self.register
        self.new_count = self.null = False
        self.running = self.strobe_ready = True

    def step(self) -> None:
        self.count = one_less(self.count, self.bcd)

    def mode_0(self, trigger: bool) -> None:
        if self.new_count:
            self.reload()
        elif self.running and self.gate_pin and not self.bytes_written:
            self.step()
            self.out = self.out or self.count == 0

    def mode_1(self, trigger: bool) -> None:
        if trigger:
            self.reload()
            self.out = False
        elif self.running:
            self.step()
            self.out = self.out or self.count == 0

    def mode_2(self, trigger: bool) -> None:
        if trigger or (self.new_count and not self.running):
            self.reload()
        elif self.running and self.gate_pin:
            if self.count == 1:
                self.reload()
                self.out = True
            else:
                self.step()
                self.out = self.count != 1

    def mode_3(self, trigger: bool) -> None:
        if trigger or (self.new_count and not self.running):
            self.load_even()
        elif self.running and self.gate_pin:
            expired = self.count == 0
            if not (expired and self.odd and self.out):
                self.step()
                self.step()
                expired = self.count == 0 and not (self.odd and self.out)
            else:
                expired = True
            if expired:
                self.load_even()
                self.out = not self.out or self.register == 1

    def load_even(self) -> None:
        self.reload()
        self.odd = self.count % 2 == 1
        self.count -= self.odd

    def mode_4(self, trigger: bool) -> None:
        self.out = True
        if self.new_count:
            self.reload()
        elif self.running and self.gate_pin:
            self.strobe()

    def mode_5(self, trigger: bool) -> None:
        self.out = True
        if trigger:
            self.reload()
        elif self.running:
            self.strobe()

    def strobe(self) -> None:
        self.step()
        if self.count == 0 and self.strobe_ready:
            self.out = self.strobe_ready = False


class NaivePit:
    """Three such counters on a bus, with the same ports and the same scope as :class:`Bench`."""

    def __init__(self) -> None:
        self.counters = [NaiveCounter(True), NaiveCounter(True), NaiveCounter(False)]
        self.edges: list[tuple[int, bool]] = []
        self.now_ns = self.pulse = self.latch = 0

    def wait(self, span_ns: int) -> None:
        until_ns = self.now_ns + span_ns
        while pulse_ns(self.pulse + 1) <= until_ns:
            self.pulse += 1
            self.now_ns = pulse_ns(self.pulse)
            for counter in self.counters:
                counter.clock()
            self.look()
        self.now_ns = until_ns

    def look(self) -> None:
        level = self.counters[0].out
        if level != (self.edges[-1][1] if self.edges else False):
            self.edges.append((self.now_ns, level))

    def write(self, region: str, offset: int, size: int, value: int) -> None:
        if region == "portb":
            self.latch = value & 0x0F
            self.counters[2].set_gate(bool(value & GATE))
        elif offset < 3:
            self.counters[offset].write(value)
        elif value < 0xC0:
            counter = self.counters[value >> 6]
            counter.program(value) if value & 0x30 else counter.hold_count()
        else:
            self.read_back(value)
        self.look()

    def read_back(self, command: int) -> None:
        for n, counter in enumerate(self.counters):
            if command & 2 << n:
                if not command & 0x20:
                    counter.hold_count()
                if not command & 0x10:
                    counter.hold_status()

    def read(self, region: str, offset: int, size: int) -> int:
        if region == "counters":
            return self.counters[offset].read() if offset < 3 else 0xFF
        refresh = self.pulse // 18 % 2
        return self.latch | refresh << 4 | self.counters[2].out << 5
