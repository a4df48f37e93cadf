"""Machines on the Unicorn engine, made by a program: they end as those on KVM do."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S
from emulated import emulate, emulated, emulated_spec
from library import Holdings, Terminal
from ownmodels import ABOVE_1_MIB, ROLLS, add_in_memory, adder, dice, loaded_dice, with_adder

from kvmshim.agent.abilities import hypervisors
from kvmshim.errors import HostError, InputError
from kvmshim.hypervisor.choose import choose
from kvmshim.hypervisor.kvm.system import System
from kvmshim.hypervisor.unicorn import engine
from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.unicorn

HELLO = b"Hello from a real CPU; my devices are somewhere else.\r\n"
OWN = f"port={tinyguest.OWN_PORT:#x}"


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test here gives back each descriptor, thread and child process."""
    before = Holdings.now()
    yield
    assert Holdings.now() == before


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Where a test puts the image that it boots."""
    return tmp_path / "guest.bin"


# -- endings --------------------------------------------------------------------------------------


def test_an_emulated_guest_ends_by_itself() -> None:
    result, text = emulate("hello")
    assert (result.outcome, result.status, result.message) == (Outcome.EXITED, 0, "")
    assert text == HELLO


@pytest.mark.process
def test_an_emulated_guest_has_its_devices_on_a_server() -> None:
    result, text = emulate("hello", placement="server")
    assert (result.exit_status, text) == (0, HELLO)
    link, vcpu = result.stats["link (embedded)"], result.stats["vcpu"]
    assert link["posted"] >= len(HELLO)
    assert vcpu["port_exits"] >= link["posted"] + link["requests"]


def test_nothing_of_the_guest_runs_after_it_has_ended_itself(image: Path) -> None:
    image.write_bytes(tinyguest.leave(3) + tinyguest.say(b"and yet") + tinyguest.HALT)
    result, text = emulate(image)
    assert (result.status, text) == (3, b"")


def test_an_emulated_guest_that_halts_for_good_is_told_at_once(image: Path) -> None:
    image.write_bytes(tinyguest.HALT)
    result, _ = emulate(image)
    assert (result.outcome, result.exit_status) == (Outcome.HALTED, 118)
    assert result.registers is not None
    assert result.registers.general["rip"] == 0x7C02


def test_a_triple_fault_tells_the_registers() -> None:
    result, text = emulate("triple_fault")
    assert (result.outcome, text) == (Outcome.CRASHED, b"about to fault three times over\r\n")
    assert result.registers is not None
    assert result.registers.general["rbx"] == 0xC0DE0001


def test_a_guest_that_leaves_its_memory_is_a_crash_that_says_where_it_went(image: Path) -> None:
    image.write_bytes(b"\xea\x10\x00\xff\xff")  # jmp ffff:0010, 1 MiB
    spec = dataclasses.replace(emulated_spec(image), memory_bytes=ABOVE_1_MIB)
    with machine_for(spec) as made:
        result = made.run(timeout_s=AT_MOST_S)
    assert result.outcome is Outcome.CRASHED
    assert "it went to 0x100000, where there is no memory" in result.message


@pytest.mark.parametrize("code", [tinyguest.SPIN, b"\xfb\xf4" + tinyguest.SPIN])
def test_an_emulated_guest_is_stopped_when_its_time_is_over(code: bytes, image: Path) -> None:
    image.write_bytes(code)  # round and round, or asleep for an interrupt
    with emulated(image) as made:
        result = made.run(timeout_s=0.1)
    assert (result.outcome, result.exit_status) == (Outcome.TIMED_OUT, 124)


@pytest.mark.parametrize("code", [tinyguest.SPIN, b"\xfb\xf4" + tinyguest.SPIN])
def test_another_thread_can_stop_an_emulated_guest(code: bytes, image: Path) -> None:
    image.write_bytes(tinyguest.say(b"!") + code)
    terminal = Terminal()
    with emulated(image) as made:
        stopper = threading.Thread(target=made.stop)
        terminal.when(b"!", stopper.start)
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
        stopper.join()
    assert result.outcome is Outcome.STOPPED


def test_an_emulated_guest_that_is_paused_goes_on_where_it_stood(image: Path) -> None:
    until_fed = tinyguest.read(tinyguest.LINE_STATUS) + b"\xa8\x01\x74\xf8"  # test al, 1; jz
    image.write_bytes(tinyguest.say(b"a") + until_fed + tinyguest.say(b"b") + tinyguest.leave(5))
    terminal = Terminal()
    with emulated(image) as made:
        made.pause()  # before the first instruction
        assert (made.run(output=terminal).outcome, terminal.text) == (Outcome.PAUSED, b"")
        terminal.when(b"a", made.pause)
        assert made.run(output=terminal).outcome is Outcome.PAUSED
        made.feed("com1", b"!")
        assert made.run(timeout_s=AT_MOST_S, output=terminal).status == 5
    assert terminal.text == b"ab"


# -- devices --------------------------------------------------------------------------------------


def test_a_model_of_ones_own_is_a_device_of_an_emulated_machine(
    image: Path, tmp_path: Path
) -> None:
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) * 3 + tinyguest.leave_with_al())
    result, _ = emulate(image, f"dice,{OWN}", models=[str(dice(tmp_path))])
    assert result.status == ROLLS[2]


def test_a_model_that_raises_ends_an_emulated_machine(image: Path, tmp_path: Path) -> None:
    model, line = loaded_dice(tmp_path)
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    result, _ = emulate(image, f"loaded,{OWN},name=mine", models=[str(model)])
    assert result.outcome is Outcome.DEVICE_FAILED
    assert result.message.endswith(f"{model}:{line}")


@pytest.mark.parametrize("place", ["local", pytest.param("server", marks=pytest.mark.process)])
def test_a_device_in_memory_is_reached_from_real_mode(
    place: str, image: Path, tmp_path: Path
) -> None:
    image.write_bytes(add_in_memory((5, 7)) + tinyguest.leave_with_al())
    spec = with_adder(emulated_spec(image, placement=place), place)
    with machine_for(spec, models=[str(adder(tmp_path))]) as made:
        assert made.run(timeout_s=AT_MOST_S).status == 12


def test_memory_that_nobody_claims_reads_all_ones(image: Path) -> None:
    image.write_bytes(
        b"\xb8\xff\xff\x8e\xd8\xa0\x10\x00" + tinyguest.leave_with_al()  # mov al, [ffff:0010]
    )
    spec = dataclasses.replace(emulated_spec(image), memory_bytes=ABOVE_1_MIB)
    with machine_for(spec) as made:
        result = made.run(timeout_s=AT_MOST_S)
    assert (result.status, result.stats["vcpu"]["unclaimed"]) == (0xFF, 1)


# -- what is needed -------------------------------------------------------------------------------


def test_the_engine_never_opens_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("KVM was opened")

    monkeypatch.setattr("kvmshim.hypervisor.kvm.system.System.__init__", refuse)
    assert emulate("hello")[0].exit_status == 0


def test_an_agent_on_a_host_without_kvm_has_the_engine_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvmshim.agent.abilities.System", partial(System, "/dev/null"))
    assert [hypervisor["kind"] for hypervisor in hypervisors()] == ["unicorn"]


def test_a_host_without_the_package_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_library", lambda: None)
    with pytest.raises(HostError) as raised, emulated("hello"):
        pass
    assert "pip install 'kvmshim[unicorn]'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_hypervisor_is_bad_input() -> None:
    with pytest.raises(InputError, match="no hypervisor 'kmv'; did you mean 'kvm'"):
        choose("kmv")


def test_an_emulated_machine_does_not_migrate_while_it_runs() -> None:
    with emulated("hello") as made, pytest.raises(InputError, match="'unicorn' can't migrate"):
        made.dirty_log()


def test_many_emulated_machines_run_at_once(image: Path) -> None:
    image.write_bytes(tinyguest.say(b"x" * 20) + tinyguest.leave(0))
    texts: list[bytes] = []
    threads = [threading.Thread(target=lambda: texts.append(emulate(image)[1])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [b"x" * 20] * 8
