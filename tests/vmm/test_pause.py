"""A machine that is paused and goes on does what it would have done without."""

from __future__ import annotations

import pytest
from commandline import AT_MOST_S
from library import Terminal, machine, run
from pausing import run_in_pieces, run_until, tally

from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.kvm

each_place = pytest.mark.parametrize("place", ["server", "local"])


def test_the_tally_of_an_undisturbed_guest_is_the_computed_one() -> None:
    result, text = run("tally", placement="local")
    assert (result.exit_status, text) == (0, tally())


@each_place
@pytest.mark.parametrize("seed", range(3))
def test_a_guest_that_is_paused_at_random_moments_ends_with_the_same_sums(
    place: str, seed: int
) -> None:
    terminal = Terminal()
    with machine("tally", placement=place) as made:
        result, pauses = run_in_pieces(made, terminal, seed)
    assert (result.outcome, result.exit_status, terminal.text) == (Outcome.EXITED, 0, tally())
    assert pauses > 5


@each_place
def test_vm_time_stands_still_while_a_machine_is_paused(place: str) -> None:
    """The guest counts 100 ticks of one clock in a second of another."""
    terminal = Terminal()
    times_ns = []
    with machine("pit_rtc", placement=place) as made:

        def look() -> None:
            times_ns.append((made.time_ns(), made.time_ns()))

        result, _ = run_in_pieces(made, terminal, 1, look, longest_s=0.2)
    assert result.exit_status == 0, terminal.text
    assert times_ns
    assert all(one == other for one, other in times_ns)
    assert sorted(times_ns) == times_ns


@each_place
def test_no_byte_of_the_input_is_lost_or_doubled_by_pauses(place: str) -> None:
    many = bytes(32 + i % 90 for i in range(6000))
    terminal = Terminal()
    with machine("echo", placement=place) as made:
        made.feed("com1", many + b"\x04", end=True)
        result, _ = run_in_pieces(made, terminal, 2)
    assert (result.exit_status, terminal.text) == (0, b"ready\r\n" + many)


@each_place
def test_a_pause_before_the_start_makes_the_run_return_at_once(place: str) -> None:
    terminal = Terminal()
    with machine("hello", placement=place) as made:
        made.pause()
        first = made.run(timeout_s=AT_MOST_S, output=terminal)
        assert (first.outcome, first.exit_status, terminal.text) == (Outcome.PAUSED, 121, b"")
        assert first.registers is not None
        assert first.registers.general["rip"] == 0x7C00
        assert made.run(timeout_s=AT_MOST_S, output=terminal).exit_status == 0
    assert terminal.text.startswith(b"Hello")


def test_a_machine_may_be_stopped_after_a_pause() -> None:
    with machine("echo") as made:
        assert run_until(made, Terminal(), 0.01).outcome is Outcome.PAUSED
        made.stop()
        assert made.run(timeout_s=AT_MOST_S).outcome is Outcome.STOPPED


def test_a_paused_machine_can_be_left_for_good() -> None:
    with machine("echo") as made:
        assert run_until(made, Terminal(), 0.01).outcome is Outcome.PAUSED
