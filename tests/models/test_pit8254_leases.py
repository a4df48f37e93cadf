"""Leases of the PIT's ports: what they say is what the model would have answered."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pit_bench import BOTH, GATE, LSB, MSB, Bench, bench, pulse_ns
from pit_sessions import Step, play, sessions, spans_ns

from devserver.models import Device
from devserver.models.lease import MAX_TERMS, Hold, Lease
from devserver.models.pit8254.device import Lane, Pit8254

some = settings(max_examples=40, deadline=None)
PORTS = [("counters", 0), ("counters", 1), ("counters", 2), ("portb", 0)]
PORTB = ("portb", 0)
MODES = range(6)


def leased(pit: Bench, port: tuple[str, int]) -> Lease | None:
    lease = pit.device.lease(*port, pit.now_ns)
    if lease is not None:
        assert len(lease.terms) <= MAX_TERMS
        assert lease.covers(pit.now_ns), "a lease is good from the moment it is given"
    return lease


def granted(pit: Bench, port: tuple[str, int]) -> Lease:
    lease = leased(pit, port)
    assert lease is not None
    return lease


def look(twin: Device, port: tuple[str, int], lease: Lease, now_ns: int) -> int:
    """What the guest reads: 16 bits where it is a pair, which leaves the flip-flop as it was."""
    parts = [twin.read(*port, 1, now_ns) for _ in range(1 + lease.pair)]
    if lease.high_next:
        parts.reverse()
    return int.from_bytes(bytes(parts), "little")


def moments(pit: Bench, spans: list[int]) -> list[int]:
    """Some VM times from now on: on both sides of the next pulses, and anywhere."""
    near = [pulse_ns(pit.now_ns * 21 // 17600 + n) + d for n in range(1, 7) for d in (-1, 0)]
    far = [pit.now_ns + sum(spans[: n + 1]) for n in range(len(spans))]
    return [pit.now_ns, *(at for at in sorted(near + far) if at >= pit.now_ns)]


def check_port(pit: Bench, port: tuple[str, int], spans: list[int]) -> None:
    lease = leased(pit, port)
    if lease is None:
        return
    twin = Pit8254()
    twin.load(pit.device.save())
    for at_ns in moments(pit, spans):
        if lease.covers(at_ns):
            assert lease.at(at_ns) == look(twin, port, lease, at_ns), (port, lease, at_ns)


@some
@given(steps=sessions(), spans=st.lists(spans_ns, max_size=8))
def test_a_lease_says_what_the_port_reads_from_then_on(steps: list[Step], spans: list[int]) -> None:
    pit = Bench()
    for at in range(len(steps)):
        play(pit, steps[at : at + 1])
        if at % 4 == 3 or at == len(steps) - 1:
            for port in PORTS:
                check_port(pit, port, spans)


@some
@given(steps=sessions(), spans=st.lists(spans_ns, min_size=1, max_size=12))
def test_a_lease_stays_the_same_until_it_ends_or_the_guest_writes(
    steps: list[Step], spans: list[int]
) -> None:
    pit = Bench()
    play(pit, steps)
    first = {port: leased(pit, port) for port in PORTS}
    for span_ns in spans:
        pit.wait(span_ns)
        for port, lease in first.items():
            if lease is None or lease.covers(pit.now_ns):
                assert leased(pit, port) == lease


@some
@given(
    steps=sessions(),
    lane=st.sampled_from(list(Lane)),
    value=st.integers(0, 255),
    spans=st.lists(spans_ns, min_size=1, max_size=4),
)
def test_a_write_to_a_lane_that_a_lease_calls_harmless_leaves_it_as_it_is(
    steps: list[Step], lane: Lane, value: int, spans: list[int]
) -> None:
    pit = Bench()
    play(pit, steps)
    before = {port: leased(pit, port) for port in PORTS}
    region, offset = PORTB if lane is Lane.PORTB else ("counters", int(lane))
    if lane is Lane.PORTB:
        value = pit.read("portb", 0, 1) & 0x0F  # what was written last
    pit.write(region, offset, 1, value)
    pit.wait(spans[0])
    for port, lease in before.items():
        harmless = lease is not None and (lease.unaffected | lease.steady * (lane is Lane.PORTB))
        if lease and harmless >> lane & 1 and lease.covers(pit.now_ns):
            assert leased(pit, port) == lease


@pytest.mark.parametrize("mode", MODES)
def test_two_runs_of_the_same_function_give_equal_leases_of_port_b(mode: int) -> None:
    pit = bench(mode, 9, 0)
    pit.trigger()
    pit.pulses(3)
    lease = granted(pit, PORTB)
    other = Bench()
    other.device.load(pit.device.save())
    other.now_ns = pit.now_ns
    other.pulse = pit.pulse
    assert granted(other, PORTB) == lease
    assert not lease.until_ns


@pytest.mark.parametrize("mode", [2, 3])
@pytest.mark.parametrize("count", [2, 3, 7, 8, 18, 1193, 0])
def test_a_periodic_counter_has_one_lease_from_whatever_moment_it_is_worked_out(
    mode: int, count: int
) -> None:
    seen = set()
    for wait in (2, 5, 700, 70_000, 200_001):
        pit = bench(mode, count & 0xFF, count >> 8)
        pit.pulses(wait)
        seen |= {(granted(pit, port)) for port in (PORTB, ("counters", 2))}
    assert len(seen) == 2


def test_the_end_of_a_one_shot_needs_no_new_lease() -> None:
    pit = bench(0, 100, 0)
    lease = granted(pit, PORTB)
    assert not lease.until_ns
    assert lease.at(pulse_ns(101) - 1) & 0x20 == 0
    assert lease.at(pulse_ns(101)) & 0x20
    pit.pulses(100_000)
    assert granted(pit, PORTB) == lease


def test_a_new_count_that_waits_for_the_end_of_the_period_ends_the_lease() -> None:
    pit = bench(2, 100, 0)
    pit.pulses(10)
    pit.put(2, 50, 0)
    for port in (PORTB, ("counters", 2)):
        assert granted(pit, port).until_ns == pulse_ns(101)
    pit.pulses(91)
    for port in (PORTB, ("counters", 2)):
        assert not granted(pit, port).until_ns


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("access", [LSB, MSB, BOTH])
def test_running_counters_are_leased_in_every_mode_and_access(mode: int, access: int) -> None:
    pit = bench(mode, *(3, 1)[: 1 + access // BOTH], access=access)
    pit.trigger()
    pit.pulses(2)
    lease = granted(pit, ("counters", 2))
    assert (lease.pair, lease.until_ns) == (access == BOTH, 0)


def test_what_is_read_once_or_in_bcd_is_not_leased() -> None:
    pit = bench(2, 100, 0)
    pit.pulses(5)
    pit.control(0x80)
    assert leased(pit, ("counters", 2)) is None
    pit.get(2)
    assert leased(pit, ("counters", 2)) is None
    pit.get(2)
    assert leased(pit, ("counters", 2)) is not None
    pit.control(0xE8)
    assert leased(pit, ("counters", 2)) is None
    decimal = bench(2, 0x50, 0, bcd=True)
    decimal.pulses(5)
    assert leased(decimal, ("counters", 2)) is None
    assert not granted(decimal, PORTB).until_ns


def test_asking_for_a_lease_changes_nothing_even_at_a_later_time() -> None:
    pit = bench(0, 100, 0)
    pit.write("portb", 0, 1, GATE)
    before = pit.device.save()
    for port in PORTS:
        pit.device.lease(*port, 10_000_000)
    assert pit.device.save() == before


@pytest.mark.parametrize("mode", [2, 3])
def test_a_longer_count_that_waits_for_the_end_ends_the_lease_too(mode: int) -> None:
    pit = bench(mode, 100, 0)
    pit.pulses(10)
    pit.put(2, 200, 0)
    for port in (PORTB, ("counters", 2)):
        assert granted(pit, port).until_ns == pulse_ns({2: 101, 3: 51}[mode])


def test_the_latch_of_its_own_counter_is_held_and_the_gate_is_no_harmless_lane() -> None:
    lease = granted(bench(2, 100, 0), ("counters", 2))
    assert lease.hold == Hold(lane=Lane.CONTROL, mask=0xF0, match=0x80)
    assert not lease.is_unaffected_by(Lane.PORTB)
    assert not lease.is_unaffected_by(Lane.CONTROL)
