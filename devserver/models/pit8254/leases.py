"""The 8254's counters as functions of VM time: what leases of its registers are made of.

A counter that is left to itself does something simple, whose whole future its state tells: it
stands still, it counts down for good (modulo 2**16), or it goes round. :class:`Outlook` says
which, of the counting element and of OUT, in the terms that a lease has. Where the future is more
than such a term can say, the outlook ends (``until_ns``) when the simple part of it does.

It remembers what it has said until the guest touches the counter: a one-shot that has expired no
longer knows when it did, and a lease should stay the same for as long as it is true.

Source: Intel 8254 datasheet, "Mode Definitions"; the waveforms are drawn in ``pit_modes``.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

from devserver.models.lease import Hold, Lease, Term
from devserver.models.pit8254.counter import (
    PULSES,
    PULSES_NS,
    PitCounter,
    ReadWrite,
    pulse_ns,
)
from devserver.models.pit8254.modes import (
    HardwareTriggeredStrobe,
    OneShot,
    SquareWave,
    pulses_to_zero,
)

#: More pulses than ever pass.
_FOREVER = (1 << 64) - 1


@dataclass(frozen=True)
class Wave:
    """A function of the pulse number, to be turned into the terms of a lease.

    While ``n``, the pulses since ``origin`` (modulo ``period`` unless that is 0), is below
    ``length``, it is ``start + step * n``; from then on ``start2 + step2 * (n - length)``.
    """

    start: int
    step: int = 0
    start2: int = 0
    step2: int = 0
    length: int = _FOREVER
    origin: int = 0
    period: int = 0

    @property
    def is_constant(self) -> bool:
        return self.length == _FOREVER and not self.step

    def at(self, pulse: int) -> int:
        """The value after a pulse, which may not be before the origin."""
        return self.term(mask=0xFFFF).at(pulse_ns(pulse))

    def term(self, *, mask: int, times: int = 1, shift: int = 0) -> Term:
        """The function, ``times`` as much of it, as a term of a lease."""
        return Term(
            num=PULSES,
            den=PULSES_NS,
            origin=self.origin,
            period=self.period,
            length=self.length,
            start=self.start * times,
            step=self.step * times,
            start2=self.start2 * times,
            step2=self.step2 * times,
            shift=shift,
            mask=mask,
        )


def toggling(pulses: int) -> Wave:
    """0 for so many pulses, 1 for as many, and so on from pulse 0."""
    return Wave(start=0, start2=1, length=pulses, period=2 * pulses)


@dataclass(frozen=True)
class View:
    """A future: the waves, ORed, from now on and until VM time ``until_ns`` (0: for ever)."""

    waves: tuple[Wave, ...]
    until_ns: int = 0

    def parts(self, *, mask: int, times: int = 1, shift: int = 0) -> tuple[int, tuple[Term, ...]]:
        """A lease's constant part and its terms: the view, ``times`` as much of it."""
        value, terms = 0, []
        for wave in self.waves:
            if wave.is_constant:
                value |= wave.start * times >> shift & mask
            else:
                terms.append(wave.term(mask=mask, times=times, shift=shift))
        return value, tuple(terms)

    def lasts_beyond(self, now_ns: int) -> bool:
        """Whether it still says something at ``now_ns``."""
        return not self.until_ns or now_ns < self.until_ns

    def tells(self, pulse: int, value: int) -> bool:
        """Whether it covers a pulse and gives ``value`` for it."""
        if any(pulse < wave.origin for wave in self.waves):
            return False
        found = 0
        for wave in self.waves:
            found |= wave.at(pulse)
        return found == value


def _still(value: int) -> View:
    return View((Wave(start=value),))


def _for_a_pulse(counter: PitCounter, value: int) -> View:
    return View((Wave(start=value),), pulse_ns(counter.clock + 1))


def _is_to_load(counter: PitCounter) -> bool:
    return counter.count_register is not None and (counter.load_due or counter.triggered)


def _loaded(counter: PitCounter) -> PitCounter:
    """The counter as it is behind the next pulse."""
    ahead = copy(counter)
    ahead.run_to(counter.clock + 1)
    return ahead


def _is_held(counter: PitCounter) -> bool:
    """Whether pulses change neither the element nor (but for the end of a strobe) OUT."""
    if not counter.counting:
        return True
    mode = counter.mode
    if isinstance(mode, OneShot):
        return not mode.enabled(counter)
    return not counter.gate or counter.count_register is None


# -- counters that go round: modes 2 and 3 -------------------------------------------------------


@dataclass(frozen=True)
class _Cycle:
    """The way in which a periodic counter goes round, from pulse ``origin`` on."""

    period: int
    high: int  # pulses of the period in which OUT is high, which are its first
    origin: int  # the earliest pulse at which such a period could begin


def _cycle(counter: PitCounter) -> _Cycle | None:
    """The cycle that the counter is in; None if another count is to come, or it is not yet so."""
    count = counter.count_register or 0
    period = pulses_to_zero(count, counter.bcd)
    if isinstance(counter.mode, SquareWave):
        high = (period + 1) // 2
        half = high if counter.out else period - high
        left = SquareWave.left_of_half(counter)
        regular = left <= half and counter.odd == bool(count & 1)
        begin = counter.clock + left - (high if counter.out else period)
    else:
        high = period - 1 if period > 1 else 1
        left = pulses_to_zero(counter.element, counter.bcd)
        regular = left <= period and counter.out == (left > 1 or period == 1)
        begin = counter.clock + left - period
    origin = begin % period
    if counter.null_count or not regular or origin > counter.clock:
        return None
    return _Cycle(period, high, origin)


def _pulses_to_reload(counter: PitCounter) -> int:
    if isinstance(counter.mode, SquareWave):
        return max(1, SquareWave.left_of_half(counter))
    return pulses_to_zero(counter.element, counter.bcd)


def _round_element(counter: PitCounter) -> View:
    cycle, step = _cycle(counter), -1
    if isinstance(counter.mode, SquareWave):
        step = -2
    if cycle is None:
        start = counter.element - step * counter.clock & 0xFFFF
        return View((Wave(start, step),), pulse_ns(counter.clock + _pulses_to_reload(counter)))
    if step == -1:
        wave = Wave(cycle.period, -1, length=cycle.period, origin=cycle.origin, period=cycle.period)
    else:
        top = cycle.period & ~1
        wave = Wave(top, -2, top, -2, cycle.high, cycle.origin, cycle.period)
    return View((wave,))


def _round_out(counter: PitCounter) -> View:
    cycle = _cycle(counter)
    if cycle is not None and cycle.high == cycle.period:
        return _still(1)
    if cycle is not None:
        wave = Wave(start=1, length=cycle.high, origin=cycle.origin, period=cycle.period)
        return View((wave,))
    reload = counter.clock + _pulses_to_reload(counter)
    if isinstance(counter.mode, SquareWave):
        return View((Wave(start=int(counter.out)),), pulse_ns(reload))
    if counter.out != (counter.element != 1):
        return _for_a_pulse(counter, int(counter.out))
    return View((Wave(start=1, length=reload - 1),), pulse_ns(reload))


# -- every counter -------------------------------------------------------------------------------


def _element(counter: PitCounter) -> View:
    if _is_to_load(counter):
        (wave,) = (after := _element(_loaded(counter))).waves
        if wave.period or after.until_ns:
            return _for_a_pulse(counter, counter.element)
        first = wave.at(counter.clock + 1)
        wave = Wave(counter.element, 0, first, wave.step, length=counter.clock + 1)
        return View((wave,))
    if _is_held(counter):
        return _still(counter.element)
    if counter.mode.periodic:
        return _round_element(counter)
    return View((Wave(counter.element + counter.clock & 0xFFFF, -1),))


def _out(counter: PitCounter) -> View:
    if _is_to_load(counter):
        after = _out(_loaded(counter))
        if after.tells(counter.clock, int(counter.out)):
            return after
        view = View((*after.waves, Wave(start=1, length=counter.clock + 1)), after.until_ns)
        if view.tells(counter.clock, int(counter.out)):
            return view
        return _for_a_pulse(counter, int(counter.out))
    strobe = isinstance(counter.mode, HardwareTriggeredStrobe)
    if strobe and counter.counting and not counter.out:
        # the strobe itself, which the next pulse ends
        return View((Wave(start=0, start2=1, length=counter.clock + 1),))
    if _is_held(counter):
        return _still(int(counter.out))
    if counter.mode.periodic:
        return _round_out(counter)
    edge = counter.mode.pulses_to_edge(counter)
    if edge is None or (counter.out and not strobe):
        return _still(int(counter.out))
    edge += counter.clock
    rising = Wave(start=0, start2=1, length=edge + 1 if strobe else edge)
    return View((Wave(start=1, length=edge), rising) if strobe else (rising,))


class Outlook:
    """What is to be expected of one counter, as long as the guest doesn't touch it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The guest has touched the counter, or it is another one."""
        self._element: View | None = None
        self._out: View | None = None

    def element(self, counter: PitCounter, now_ns: int) -> View:
        """The counting element, 16 bits, of a binary counter that stands at ``now_ns``."""
        if self._element is None or not self._element.lasts_beyond(now_ns):
            self._element = _element(counter)
        return self._element

    def out(self, counter: PitCounter, now_ns: int) -> View:
        """OUT, 0 or 1, of a counter that stands at ``now_ns``."""
        if self._out is None or not self._out.lasts_beyond(now_ns):
            self._out = _out(counter)
        return self._out


def counter_lease(
    counter: PitCounter, outlook: Outlook, now_ns: int, *, unaffected: int, steady: int, latch: Hold
) -> Lease | None:
    """The lease of the port of a counter that stands at ``now_ns``.

    None if something is latched, which is read but once; and in BCD, where the count is no term.
    """
    if counter.latched_count is not None or counter.latched_status is not None or counter.bcd:
        return None
    pair = counter.access == ReadWrite.LSB_MSB
    view = outlook.element(counter, now_ns)
    value, terms = view.parts(
        mask=0xFFFF if pair else 0xFF, shift=8 if counter.access == ReadWrite.MSB else 0
    )
    return Lease(
        value=value,
        terms=terms,
        until_ns=view.until_ns,
        unaffected=unaffected,
        steady=steady,
        pair=pair,
        high_next=pair and counter.read_msb,
        hold=latch,
    )
