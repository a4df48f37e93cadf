"""Which steps a choice has, and which try of a row counts."""

import pytest

from kvmshim.bench import suite
from kvmshim.bench.rows import Part, make_row
from kvmshim.bench.steps import middle
from kvmshim.bench.suite import NAMES, Choice, Suite


def titles(choice: Choice) -> list[str]:
    chosen = Suite(choice, lambda text: None)
    return [step.title() for step in chosen.steps()]


def test_without_a_choice_every_row_is_measured_in_the_documented_order() -> None:
    chosen = Suite(Choice(waits=("spin",)), lambda text: None)
    names = [name for step in chosen.steps() for name in step.names]
    assert tuple(dict.fromkeys(names)) == NAMES  # a row may have several steps


def test_remote_rows_are_measured_for_each_transport_and_way_to_wait() -> None:
    choice = Choice(("unix", "tcp"), ("spin", "block"), only=("remote_in",))
    assert titles(choice) == [
        "remote_in unix spin",
        "remote_in unix block",
        "remote_in tcp spin",
        "remote_in tcp block",
    ]


def test_a_row_that_is_measured_with_another_brings_that_step_once() -> None:
    assert titles(Choice(waits=("spin",), only=("irq_latency_delivery", "irq_latency"))) == [
        "irq_latency unix spin"
    ]


def test_with_a_given_server_its_address_says_the_transport() -> None:
    choice = Choice(waits=("adaptive",), only=("remote_in",), server="tcp://127.0.0.1:9")
    assert titles(choice) == ["remote_in tcp adaptive"]


def test_an_absent_emulator_is_noted_once_and_its_rows_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "find_qemu", lambda: None)
    notes: list[str] = []
    chosen = Suite(Choice(), notes.append)
    names = {name for step in chosen.steps() for name in step.names}
    assert notes == ["qemu-system-x86_64 is not installed: its rows are left out"]
    assert not names & {"peer_qemu_in", "peer_qemu_out"}


@pytest.mark.parametrize(
    ("choice", "wait", "cores"),
    [
        (Choice(), "block", "same"),
        (Choice(), "spin", "any"),
        (Choice(), "adaptive", "any"),
        (Choice(cores="apart"), "block", "apart"),
        (Choice(server="unix:/s"), "block", "any"),
    ],
)
def test_two_ends_that_sleep_run_on_one_core_unless_told_otherwise(
    choice: Choice, wait: str, cores: str
) -> None:
    assert choice.cores_for(wait) == cores


def test_the_try_with_the_middle_ratio_counts() -> None:
    tries = [make_row("x", [ns], floor=[Part("raw_exit", 100)]) for ns in (300, 100, 200)]
    assert middle(tries).ratio == 2.0


def test_a_round_trip_asleep_is_measured_on_every_placement_of_its_ends() -> None:
    chosen = Suite(Choice(waits=("block", "spin"), only=("raw_pingpong",)), lambda text: None)
    places = [(step.at.wait, step.at.cores) for step in chosen.steps()]
    assert places == [("block", "any"), ("block", "same"), ("block", "apart"), ("spin", "any")]


def test_only_what_a_host_may_lack_can_be_left_out() -> None:
    chosen = Suite(Choice(waits=("spin",)), lambda text: None)
    optional = {name for step in chosen.steps() if step.optional for name in step.names}
    assert optional - {"peer_qemu_in", "peer_qemu_out"} == {
        "raw_coalesced_exit",
        "remote_out_coalesced",
    }
