"""The six counter modes of the 8254, each computed in closed form for any number of CLK pulses.

In the waveforms below ``#`` stands for OUT high and ``_`` for OUT low after the pulse whose number
(counted from the write or trigger that starts it) heads the column; the row ``CE`` is the counting
element, which is what the guest reads. ``W`` marks the count being written and ``T`` a trigger
(a rising edge of GATE); both take effect on the pulse that follows. ``?`` is undefined: what the
element held before, as this model has it.

Source of all of it: Intel 8254 datasheet, "Mode Definitions" and "Operation Common to All Modes".
"""

from __future__ import annotations

from typing import Protocol


class Counter(Protocol):
    """What a mode works on: see :class:`devserver.models.pit8254.counter.PitCounter`."""

    gate: bool
    out: bool
    element: int
    count_register: int | None
    null_count: bool
    counting: bool
    armed: bool
    odd: bool
    load_due: bool
    write_msb: bool

    @property
    def bcd(self) -> bool: ...


_NIBBLES = (0, 4, 8, 12)


def pulses_to_zero(element: int, bcd: bool) -> int:
    """How many decrements take ``element`` to zero; for zero itself, once around.

    A decade that holds a digit above nine, which only a faulty BCD count can bring about, counts
    down through it: its weight is the same.
    """
    if not bcd:
        return element or 0x10000
    return (
        (element & 0xF)
        + 10 * (element >> 4 & 0xF)
        + 100 * (element >> 8 & 0xF)
        + 1000 * (element >> 12)
    ) or 10000


def decremented(element: int, by: int, bcd: bool) -> int:
    """``element`` after ``by`` decrements, wrapping from zero to FFFF, or in BCD to 9999."""
    if not bcd:
        return (element - by) & 0xFFFF
    result = 0
    for shift in _NIBBLES:
        digit = (element >> shift & 0xF) - by
        by = (9 - digit) // 10 if digit < 0 else 0
        result |= (digit % 10 if digit < 0 else digit) << shift
    return result


class Mode:
    """What one counter mode does; stateless, it works on the counter that it is handed."""

    initial_out = True  # OUT after the control word
    triggers = True  # a rising edge of GATE loads the counter on the next pulse
    periodic = False  # reloads itself, and GATE low forces OUT high

    def written(self, counter: Counter) -> None:
        """A count is complete. Software-started modes load it on the next pulse."""

    def half_written(self, counter: Counter) -> None:
        """The first of two bytes of a count was written."""

    def load(self, counter: Counter, count: int) -> None:
        """A pulse moves the count register into the counting element."""
        counter.element = count
        counter.null_count = False

    def run(self, counter: Counter, pulses: int) -> None:
        """One or more pulses pass, none of which loads a new count by trigger or write."""
        raise NotImplementedError

    def pulses_to_edge(self, counter: Counter) -> int | None:
        """How many pulses from now OUT changes; None if it doesn't."""
        raise NotImplementedError


class OneShot(Mode):
    """What modes 0, 1, 4 and 5 share: OUT acts once, and the count wraps past zero and runs on."""

    def enabled(self, counter: Counter) -> bool:
        """Whether a pulse decrements; in modes 1 and 5 the level of GATE does not matter."""
        return True

    def load(self, counter: Counter, count: int) -> None:
        super().load(counter, count)
        counter.armed = True

    def expired(self, counter: Counter, pulses: int) -> None:
        """The count reached zero ``pulses`` pulses ago."""
        counter.out = True

    def run(self, counter: Counter, pulses: int) -> None:
        if not self.enabled(counter):
            return
        if counter.armed:
            left = pulses_to_zero(counter.element, counter.bcd)
            if pulses >= left:
                counter.armed = False
                self.expired(counter, pulses - left)
        counter.element = decremented(counter.element, pulses, counter.bcd)

    def pulses_to_edge(self, counter: Counter) -> int | None:
        if counter.armed and self.enabled(counter):
            return pulses_to_zero(counter.element, counter.bcd)
        return None


class InterruptOnTerminalCount(OneShot):
    """Mode 0: OUT rises N + 1 pulses after a count of N is written. ::

        N = 3       W                         W'
        pulse         1   2   3   4   5   6     1   2   3   4
        CE          ? 3   2   1   0  FFFF FFFE  3   2   1   0
        OUT         ____________########________________####
        phase       | |  counting | past zero | |  counting |
                      load                      load

    ======== ==================== =================================================
    phase    GATE high            GATE low
    ======== ==================== =================================================
    load     the pulse loads      the pulse loads all the same
    counting decrement            hold; OUT is not affected
    past     decrement, OUT high  hold
    ======== ==================== =================================================

    A new count (W') lowers OUT at once, without a pulse. Of a two-byte count the first byte does
    so, and stops the counting until the second is there.
    """

    initial_out = False
    triggers = False

    def enabled(self, counter: Counter) -> bool:
        return counter.gate and not counter.write_msb

    def half_written(self, counter: Counter) -> None:
        counter.out = False

    def written(self, counter: Counter) -> None:
        counter.out = False
        counter.load_due = True


class HardwareOneShot(OneShot):
    """Mode 1: a trigger makes OUT low for N pulses. ::

        N = 3       W   T                     T       T
        pulse             1   2   3   4   5     1   2   1   2   3   4
        CE          ? ?   3   2   1   0  FFFF   3   2   3   2   1   0
        OUT         ######____________##########____________________####
        phase       armed |  pulse  | past zero |  pulse, retriggered |

    ======== ====================================================================
    phase    what a pulse does
    ======== ====================================================================
    armed    nothing; a trigger without a count does nothing either
    load     (the pulse after a trigger) loads N, OUT goes low
    pulse    decrement; at zero OUT goes high
    past     decrement, OUT high
    ======== ====================================================================

    Only a rising edge of GATE matters, not its level. A new count waits for the next trigger.
    """

    def load(self, counter: Counter, count: int) -> None:
        super().load(counter, count)
        counter.out = False


class RateGenerator(Mode):
    """Mode 2: OUT is low for one pulse in every N. ::

        N = 4       W                                   GATE low  T
        pulse         1   2   3   4   5   6   7   8   9           1   2   3   4   5
        CE          ? 4   3   2   1   4   3   2   1   4   3   3   4   3   2   1   4
        OUT         ##############____############____##########################____####
        phase         |   high    |low|   high    |low|   hold    |   high    |low|

    ======== =============================== ====================================
    phase    GATE high                       GATE low
    ======== =============================== ====================================
    load     the first count is loaded       the first count is loaded
    high     decrement; at 1 OUT goes low    hold
    low      reload, OUT goes high           OUT goes high at once, hold
    ======== =============================== ====================================

    A trigger reloads. A new count waits for the end of the cycle, or for a trigger. The datasheet
    forbids a count of 1: never decremented *to* 1, it leaves OUT high here, reloading each pulse.
    """

    periodic = True

    def written(self, counter: Counter) -> None:
        if not counter.counting:
            counter.load_due = True

    def load(self, counter: Counter, count: int) -> None:
        super().load(counter, count)
        counter.out = True

    def run(self, counter: Counter, pulses: int) -> None:
        if not counter.gate or counter.count_register is None:
            return
        left = pulses_to_zero(counter.element, counter.bcd)
        if pulses >= left:
            self.load(counter, counter.count_register)
            pulses = (pulses - left) % pulses_to_zero(counter.element, counter.bcd)
        if pulses:
            counter.element = decremented(counter.element, pulses, counter.bcd)
            counter.out = counter.element != 1

    def pulses_to_edge(self, counter: Counter) -> int | None:
        if not counter.gate or counter.count_register is None:
            return None
        if not counter.out:
            return 1
        left = pulses_to_zero(counter.element, counter.bcd)
        if left > 1:
            return left - 1
        # A count of 1 was loaded: the next pulse reloads.
        if counter.count_register == 1:
            return None
        return pulses_to_zero(counter.count_register, counter.bcd)


class SquareWave(Mode):
    """Mode 3: OUT is high for half of N pulses (the larger half if N is odd), then low. ::

        N = 4       W
        pulse         1   2   3   4   5   6   7   8   9
        CE          ? 4   2   4   2   4   2   4   2   4
        OUT         ##########________########________####
        phase         | high  |  low  | high  |  low  |

        N = 5       W
        pulse         1   2   3   4   5   6   7   8   9  10  11
        CE          ? 4   2   0   4   2   4   2   0   4   2   4
        OUT         ##############________############________####
        phase         |   high    |  low  |   high    |  low  |

    ======== ================================= ===================================
    phase    GATE high                         GATE low
    ======== ================================= ===================================
    load     the first count is loaded         the first count is loaded
    high     decrement by two; when expired    hold
             (odd: one pulse after), reload
             and OUT goes low
    low      decrement by two; when expired,   OUT goes high at once, hold
             reload and OUT goes high
    ======== ================================= ===================================

    An odd count is loaded less one. A trigger reloads and begins with the high half. A new count
    waits for the end of the half, or for a trigger. The datasheet forbids a count of 1: it has no
    low half, and leaves OUT high here.
    """

    periodic = True

    def written(self, counter: Counter) -> None:
        if not counter.counting:
            counter.load_due = True

    def load(self, counter: Counter, count: int) -> None:
        super().load(counter, count & ~1)
        counter.odd = bool(count & 1)
        counter.out = True

    def run(self, counter: Counter, pulses: int) -> None:
        if not counter.gate or counter.count_register is None:
            return
        left = self.left_of_half(counter)
        if pulses >= left:
            was_high = counter.out
            self.load(counter, counter.count_register)
            counter.out = not was_high
            pulses = (pulses - left) % pulses_to_zero(counter.count_register, counter.bcd)
            left = self.left_of_half(counter)
            if pulses >= left:
                pulses -= left
                counter.out = not counter.out
        counter.element = decremented(counter.element, 2 * pulses, counter.bcd)

    def pulses_to_edge(self, counter: Counter) -> int | None:
        if not counter.gate or (counter.out and counter.count_register == 1):
            return None
        return self.left_of_half(counter)

    @staticmethod
    def left_of_half(counter: Counter) -> int:
        """How many pulses the present half still lasts."""
        if not counter.odd:
            return pulses_to_zero(counter.element, counter.bcd) // 2
        # In an odd count's high half, zero is the expired count, not the largest one.
        left = pulses_to_zero(counter.element, counter.bcd) if counter.element else 0
        return left // 2 + counter.out


class HardwareTriggeredStrobe(OneShot):
    """Mode 5: OUT is low for one pulse, N + 1 pulses after a trigger. ::

        N = 3       W   T                         T       T
        pulse             1   2   3   4   5   6     1   2   1   2   3   4   5
        CE          ? ?   3   2   1   0  FFFF FFFE  3   2   3   2   1   0  FFFF
        OUT         ##################____##################################____####
        phase       armed | counting  | past zero   |  counting, retriggered  |

    ======== ====================================================================
    phase    what a pulse does
    ======== ====================================================================
    armed    nothing; a trigger without a count does nothing either
    load     (the pulse after a trigger) loads N, OUT is or goes high
    counting decrement; at zero OUT goes low
    past     decrement; the first such pulse makes OUT high again
    ======== ====================================================================

    Only a rising edge of GATE matters, not its level. A new count waits for the next trigger.
    """

    def load(self, counter: Counter, count: int) -> None:
        super().load(counter, count)
        counter.out = True

    def expired(self, counter: Counter, pulses: int) -> None:
        counter.out = pulses > 0

    def run(self, counter: Counter, pulses: int) -> None:
        counter.out = True  # the strobe lasts one pulse, even if GATE stops the counting
        super().run(counter, pulses)

    def pulses_to_edge(self, counter: Counter) -> int | None:
        return super().pulses_to_edge(counter) if counter.out else 1


class SoftwareTriggeredStrobe(HardwareTriggeredStrobe):
    """Mode 4: OUT is low for one pulse, N + 1 pulses after a count of N is written. ::

        N = 3       W                             W       W
        pulse         1   2   3   4   5   6   7     1   2   1   2   3   4   5
        CE          ? 3   2   1   0  FFFF FFFE FFFD 3   2   3   2   1   0  FFFF
        OUT         ##############____##################################____####
        phase       | |  counting | past zero     |  counting, rewritten    |
                      load

    ======== ===================================== ==============================
    phase    GATE high                             GATE low
    ======== ===================================== ==============================
    load     the pulse loads, OUT is or goes high  the pulse loads all the same
    counting decrement; at zero OUT goes low       hold
    past     decrement; the first such pulse       hold, but the first such pulse
             makes OUT high again                  ends the strobe all the same
    ======== ===================================== ==============================

    The first byte of a two-byte count changes nothing.
    """

    triggers = False

    def enabled(self, counter: Counter) -> bool:
        return counter.gate

    def written(self, counter: Counter) -> None:
        counter.load_due = True


#: By the control word's M2, M1, M0; in modes 2 and 3 M2 does not matter.
MODES: tuple[Mode, ...] = (
    InterruptOnTerminalCount(),
    HardwareOneShot(),
    RateGenerator(),
    SquareWave(),
    SoftwareTriggeredStrobe(),
    HardwareTriggeredStrobe(),
    RateGenerator(),
    SquareWave(),
)
