"""The PIT's six modes by the timing diagrams of the Intel 8254 data sheet.

In the traces each word is the count that can be read after a CLK pulse, in hex; ``_`` behind it
says that OUT is low.
"""

from __future__ import annotations

import pytest
from pit_bench import LSB, Bench, bench, pulse_ns

# -- mode 0: interrupt on terminal count ----------------------------------------------------------


def test_mode_0_raises_out_n_plus_1_pulses_after_the_count_and_wraps() -> None:
    assert bench(0, 4, 0).trace(7) == "4_ 3_ 2_ 1_ 0 FFFF FFFE"


def test_mode_0_holds_the_count_while_gate_is_low_but_loads_it() -> None:
    pit = bench(0, 3, 0, gate=False)
    assert pit.trace(2) == "3_ 3_"
    pit.gate(True)
    assert pit.trace(1) == "2_"
    pit.gate(False)
    assert pit.trace(2) == "2_ 2_"
    pit.gate(True)
    assert pit.trace(3) == "1_ 0 FFFF"


def test_mode_0_is_stopped_and_lowered_by_the_first_byte_of_a_new_count() -> None:
    pit = bench(0, 2, 0)
    assert pit.trace(4) == "2_ 1_ 0 FFFF"
    pit.put(2, 5)
    assert pit.out() == 0
    assert pit.trace(2) == "FFFF_ FFFF_"
    pit.put(2, 0)
    assert pit.trace(7) == "5_ 4_ 3_ 2_ 1_ 0 FFFF"


def test_mode_0_counts_on_from_a_new_one_byte_count() -> None:
    pit = bench(0, 3, access=LSB)
    pit.pulses(2)
    pit.put(2, 2)
    pit.pulses(1)
    assert (pit.get(2), pit.out()) == (2, 0)
    pit.pulses(2)
    assert (pit.get(2), pit.out()) == (0, 1)


# -- mode 1: hardware retriggerable one-shot ------------------------------------------------------


def test_mode_1_makes_a_pulse_of_n_after_each_trigger() -> None:
    pit = bench(1, 3, 0)
    assert pit.trace(2) == "0 0"
    pit.trigger()
    assert pit.trace(5) == "3_ 2_ 1_ 0 FFFF"
    pit.trigger()
    assert pit.trace(4) == "3_ 2_ 1_ 0"


def test_mode_1_lengthens_the_pulse_when_triggered_again_and_does_not_mind_gate_low() -> None:
    pit = bench(1, 3, 0)
    pit.trigger()
    pit.gate(False)
    assert pit.trace(2) == "3_ 2_"
    pit.trigger()
    assert pit.trace(4) == "3_ 2_ 1_ 0"


def test_mode_1_takes_a_new_count_with_the_next_trigger() -> None:
    pit = bench(1, 2, 0)
    pit.trigger()
    pit.pulses(1)
    pit.put(2, 4, 0)
    assert pit.trace(3) == "1_ 0 FFFF"
    pit.trigger()
    assert pit.trace(5) == "4_ 3_ 2_ 1_ 0"


def test_a_trigger_without_a_count_is_lost() -> None:
    pit = bench(1)
    pit.trigger()
    pit.pulses(1)
    pit.put(2, 2, 0)
    assert pit.trace(2) == "0 0"


def test_a_control_word_forgets_a_trigger() -> None:
    pit = bench(1, 2, 0)
    pit.trigger()
    pit.program(2, 1)
    pit.put(2, 2, 0)
    assert pit.trace(2) == "0 0"


# -- mode 2: rate generator -----------------------------------------------------------------------


def test_mode_2_lowers_out_for_one_pulse_in_n() -> None:
    assert bench(2, 3, 0).trace(8) == "3 2 1_ 3 2 1_ 3 2"


def test_mode_2_starts_over_with_a_trigger() -> None:
    pit = bench(2, 3, 0)
    assert pit.trace(2) == "3 2"
    pit.gate(False)
    assert pit.trace(2) == "2 2"
    pit.gate(True)
    assert pit.trace(4) == "3 2 1_ 3"


@pytest.mark.parametrize("mode", [2, 3])
def test_modes_2_and_3_raise_out_at_once_when_gate_goes_low(mode: int) -> None:
    pit = bench(mode, 4, 0)
    pit.pulses(4)
    assert pit.out() == 0
    pit.gate(False)
    assert pit.out() == 1


def test_mode_2_takes_a_new_count_at_the_end_of_the_cycle() -> None:
    pit = bench(2, 4, 0)
    assert pit.trace(2) == "4 3"
    pit.put(2, 5, 0)
    assert pit.trace(7) == "2 1_ 5 4 3 2 1_"


def test_mode_2_takes_a_new_count_early_with_a_trigger() -> None:
    pit = bench(2, 4, 0)
    pit.pulses(2)
    pit.put(2, 3, 0)
    pit.trigger()
    assert pit.trace(4) == "3 2 1_ 3"


# -- mode 3: square wave --------------------------------------------------------------------------


def test_mode_3_with_an_even_count_counts_by_two_in_equal_halves() -> None:
    assert bench(3, 4, 0).trace(9) == "4 2 4_ 2_ 4 2 4_ 2_ 4"


def test_mode_3_with_an_odd_count_is_high_for_one_pulse_more() -> None:
    assert bench(3, 5, 0).trace(11) == "4 2 0 4_ 2_ 4 2 0 4_ 2_ 4"


def test_mode_3_takes_a_new_count_at_the_end_of_the_half() -> None:
    pit = bench(3, 6, 0)
    assert pit.trace(2) == "6 4"
    pit.put(2, 4, 0)
    assert pit.trace(5) == "2 4_ 2_ 4 2"


def test_mode_3_starts_over_with_the_high_half_after_a_trigger() -> None:
    pit = bench(3, 4, 0)
    assert pit.trace(3) == "4 2 4_"
    pit.gate(False)
    assert pit.trace(1) == "4"
    pit.gate(True)
    assert pit.trace(4) == "4 2 4_ 2_"


@pytest.mark.parametrize("mode", [2, 3])
def test_the_forbidden_count_of_1_leaves_out_high(mode: int) -> None:
    pit = bench(mode, 1, 0)
    pit.program(0, mode)
    pit.put(0, 1, 0)
    assert "_" not in pit.trace(5)
    assert pit.device.deadline_ns() is None


def test_mode_2_comes_back_from_the_forbidden_count_with_the_next_one() -> None:
    pit = Bench()
    pit.program(0, 2)
    pit.put(0, 1, 0)
    pit.pulses(10)
    pit.put(0, 3, 0)
    pit.pulses(6)
    assert pit.edges[1:] == [(pulse_ns(13), False), (pulse_ns(14), True), (pulse_ns(16), False)]


# -- modes 4 and 5: strobes -----------------------------------------------------------------------


def test_mode_4_strobes_once_n_plus_1_pulses_after_the_count() -> None:
    assert bench(4, 3, 0).trace(6) == "3 2 1 0_ FFFF FFFE"


def test_mode_4_ends_its_strobe_even_if_gate_stops_the_counting() -> None:
    pit = bench(4, 1, 0)
    assert pit.trace(2) == "1 0_"
    pit.gate(False)
    assert pit.out() == 0
    assert pit.trace(2) == "0 0"


def test_mode_4_holds_the_count_while_gate_is_low_and_is_not_triggered_by_it() -> None:
    pit = bench(4, 3, 0, gate=False)
    assert pit.trace(2) == "3 3"
    pit.gate(True)
    assert pit.trace(1) == "2"
    pit.trigger()
    assert pit.trace(3) == "1 0_ FFFF"


def test_mode_4_is_retriggered_by_a_new_count_but_not_by_its_first_byte() -> None:
    pit = bench(4, 3, 0)
    assert pit.trace(2) == "3 2"
    pit.put(2, 2)
    assert pit.trace(1) == "1"
    pit.put(2, 0)
    assert pit.trace(4) == "2 1 0_ FFFF"


def test_mode_5_strobes_n_plus_1_pulses_after_a_trigger() -> None:
    pit = bench(5, 3, 0)
    assert pit.trace(1) == "0"
    pit.trigger()
    assert pit.trace(2) == "3 2"
    pit.trigger()
    assert pit.trace(5) == "3 2 1 0_ FFFF"


@pytest.mark.parametrize("mode", [4, 5])
def test_strobes_do_not_repeat_when_the_count_comes_around(mode: int) -> None:
    pit = bench(mode, 2, 0)
    pit.trigger()
    pit.pulses(3 + 0x10000)
    assert (pit.count(), pit.out()) == (0, 1)
