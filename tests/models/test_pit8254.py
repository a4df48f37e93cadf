"""The PIT by the Intel 8254 data sheet: its counts, its bus and its interrupts; and port 61h.

Traces are written as in the tests of its modes.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from pit_bench import LSB, MSB, Bench, bench, pulse_ns

from devserver.models.device import StateError

SECOND_NS = 1_000_000_000


# -- counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bcd", "largest"), [(False, 0x10000), (True, 10000)])
def test_a_count_of_zero_is_the_largest(bcd: bool, largest: int) -> None:
    pit = bench(0, 0, 0, bcd=bcd)
    pit.pulses(largest)
    assert (pit.count(), pit.out()) == (1, 0)
    pit.pulses(1)
    assert (pit.count(), pit.out()) == (0, 1)


@pytest.mark.parametrize(("bcd", "largest"), [(False, 0x10000), (True, 10000)])
def test_the_largest_count_interrupts_when_it_has_gone_all_the_way(bcd: bool, largest: int) -> None:
    pit = Bench()
    pit.program(0, 0, bcd=bcd)
    pit.put(0, 0, 0)
    pit.wait(SECOND_NS)
    assert pit.edges == [(pulse_ns(1 + largest), True)]


def test_bcd_borrows_from_decade_to_decade_and_wraps_to_9999() -> None:
    assert bench(0, 0x01, 0x10, bcd=True).trace(3) == "1001_ 1000_ 999_"
    assert bench(0, 0x01, 0x00, bcd=True).trace(4) == "1_ 0 9999 9998"
    assert bench(3, 0x00, 0x00, bcd=True).trace(3) == "0 9998 9996"


def test_one_byte_access_leaves_the_other_byte_zero() -> None:
    low, high = bench(2, 0x34, access=LSB), bench(2, 0x12, access=MSB)
    low.pulses(1)
    high.pulses(1)
    assert (low.get(2), high.get(2)) == (0x34, 0x12)
    low.pulses(0x34)  # a whole period
    high.pulses(1)
    assert (low.get(2), high.get(2)) == (0x34, 0x11)


# -- the bus --------------------------------------------------------------------------------------


def test_reads_and_writes_of_two_bytes_may_be_interleaved() -> None:
    pit = bench(2, 0x34, 0x12, gate=False)
    pit.pulses(1)
    assert pit.get(2) == 0x34
    pit.put(2, 0x78)
    assert pit.get(2) == 0x12
    pit.put(2, 0x56)
    pit.gate(True)
    pit.pulses(1)
    assert pit.count() == 0x5678


def test_a_control_word_sets_both_bytes_flip_flops_back() -> None:
    pit = bench(2, 0x34)
    pit.get(2)
    pit.program(2, 2)
    pit.put(2, 0x78, 0x56)
    pit.pulses(1)
    assert (pit.get(2), pit.get(2)) == (0x78, 0x56)


def test_a_latched_count_is_held_until_it_is_read_and_later_latches_are_ignored() -> None:
    pit = bench(0, 0x01, 0x01)
    pit.pulses(1)
    pit.control(0x80)
    pit.pulses(3)
    pit.control(0x80)
    assert (pit.get(2), pit.get(2)) == (0x01, 0x01)
    assert (pit.get(2), pit.get(2)) == (0xFE, 0x00)


def test_reprogramming_a_counter_drops_what_it_held() -> None:
    pit = bench(0, 0x05, 0x01)
    pit.pulses(1)
    pit.control(0xC8)
    pit.program(2, 0, LSB)
    pit.put(2, 7)
    pit.pulses(1)
    assert pit.get(2) == 7


def test_status_tells_out_null_count_and_the_control_word_as_written() -> None:
    pit = bench(7, access=LSB, bcd=True)
    assert pit.status(2) == 0b11_01_111_1
    pit.put(2, 0x10)
    assert pit.status(2) == 0b11_01_111_1
    pit.pulses(1)
    assert pit.status(2) == 0b10_01_111_1
    pit.put(2, 0x20)
    assert pit.status(2) == 0b11_01_111_1
    pit.pulses(5)
    assert pit.status(2) == 0b00_01_111_1


def test_null_count_comes_with_the_second_byte_of_two() -> None:
    pit = bench(2, 9, 0)
    pit.pulses(1)
    pit.put(2, 8)
    assert pit.status(2) & 0x40 == 0
    pit.put(2, 0)
    assert pit.status(2) & 0x40


def test_read_back_gives_the_status_first_and_then_the_count_whichever_was_latched_first() -> None:
    pit = bench(0, 0x22, 0x11)
    pit.pulses(1)
    pit.control(0xD8)  # the count
    pit.pulses(1)
    pit.control(0xE8)  # the status
    pit.control(0xC8)  # both again: ignored
    assert [pit.get(2) for _ in range(5)] == [0x30, 0x22, 0x11, 0x21, 0x11]


def test_read_back_latches_several_counters_at_one_time() -> None:
    pit = Bench()
    for counter in range(3):
        pit.program(counter, 4, LSB)
        pit.put(counter, 0x40 + counter)
    pit.gate(True)
    pit.pulses(1)
    pit.control(0xDA)  # counts of 0 and 2
    pit.pulses(2)
    assert [pit.get(counter) for counter in range(3)] == [0x40, 0x3F, 0x42]


def test_the_control_port_reads_all_ones() -> None:
    assert Bench().read("counters", 3, 1) == 0xFF


# -- port B ---------------------------------------------------------------------------------------


def test_port_b_keeps_its_low_bits_and_shows_counter_2s_out() -> None:
    pit = Bench()
    pit.write("portb", 0, 1, 0xFE)
    assert pit.read("portb", 0, 1) == 0x0E
    pit.program(2, 3)
    assert pit.read("portb", 0, 1) == 0x2E


def test_the_refresh_bit_toggles_each_18_pulses_of_the_clock() -> None:
    pit = Bench()
    seen = []
    for _ in range(100):
        seen.append(pit.read("portb", 0, 1) >> 4 & 1)
        pit.pulses(1)
    assert seen == [n // 18 % 2 for n in range(100)]


# -- interrupts -----------------------------------------------------------------------------------


def test_the_usual_tick_comes_18_2_times_a_second_and_never_drifts() -> None:
    pit = Bench()
    pit.program(0, 2)
    pit.put(0, 0, 0)
    pit.wait(3600 * SECOND_NS)
    rises = [at for at, level in pit.edges if level][1:]
    assert rises == [pulse_ns(1 + 0x10000 * n) for n in range(1, len(rises) + 1)]
    assert len(rises) == 65543


def test_mode_2_holds_the_line_low_for_one_pulse() -> None:
    pit = Bench()
    pit.program(0, 2)
    pit.put(0, 100, 0)
    pit.pulses(301)
    falls = [pulse_ns(100), pulse_ns(200), pulse_ns(300)]
    rises = [pulse_ns(101), pulse_ns(201), pulse_ns(301)]
    assert pit.edges[1:] == sorted([*((at, False) for at in falls), *((at, True) for at in rises)])


def test_a_one_shot_interrupts_once() -> None:
    pit = Bench()
    pit.program(0, 0)
    pit.put(0, 0xE8, 3)
    pit.wait(SECOND_NS)
    assert pit.edges == [(pulse_ns(1001), True)]
    assert pit.device.deadline_ns() is None


def test_a_new_count_ends_a_strobe_on_the_next_pulse() -> None:
    pit = Bench()
    pit.program(0, 4)
    pit.put(0, 2, 0)
    pit.pulses(3)
    pit.put(0, 9, 0)
    pit.pulses(9)
    assert pit.edges[1:] == [(pulse_ns(3), False), (pulse_ns(4), True)]


def test_reprogramming_moves_the_line_at_once() -> None:
    pit = Bench()
    pit.program(0, 4)
    assert pit.levels == {"irq": True}
    pit.program(0, 0)
    assert pit.levels == {"irq": False}


def test_an_advance_that_comes_late_makes_every_edge() -> None:
    pit = Bench()
    pit.program(0, 3)
    pit.put(0, 10, 0)
    pit.now_ns = pulse_ns(101)
    pit.device.advance(pit.now_ns)
    assert [level for _, level in pit.edges] == [True] + [False, True] * 10
    assert pit.device.deadline_ns() == pulse_ns(106)


def test_an_access_that_comes_before_its_advance_loses_no_edge() -> None:
    pit = Bench()
    pit.program(0, 3)
    pit.put(0, 10, 0)
    pit.now_ns = pulse_ns(101)
    assert pit.get(0) == 10
    assert [level for _, level in pit.edges] == [True] + [False, True] * 10


def test_only_counter_0_has_a_deadline() -> None:
    pit = bench(3, 10, 0)
    pit.program(1, 3)
    pit.put(1, 10, 0)
    assert pit.device.deadline_ns() is None


def test_deadlines_stand_at_the_first_whole_nanosecond_behind_the_edge() -> None:
    pit = Bench()
    pit.program(0, 3)
    pit.put(0, 2, 0)
    pit.wait(30_000)
    times = [at for at, _ in pit.edges[1:]]
    assert times == [pulse_ns(n) for n in range(2, len(times) + 2)]
    assert {later - sooner for sooner, later in pairwise(times)} == {838, 839}


# -- snapshots ------------------------------------------------------------------------------------


def test_a_damaged_snapshot_is_refused_and_changes_nothing() -> None:
    pit = bench(3, 10, 0)
    before = pit.device.save()
    damaged = pit.device.save()
    damaged["state"]["counters"].pop()
    with pytest.raises(StateError, match="2 counters"):
        pit.device.load(damaged)
    assert pit.device.save() == before
