"""``kvmshim.Machine``, as a program uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tinyguest
from commandline import AT_MOST_S

from devserver.models.uart16550.device import Uart16550
from kvmshim import (
    DeviceSpec,
    ExpectError,
    GuestError,
    InputError,
    Machine,
    MisuseError,
    Outcome,
    load_machine,
    machine_of,
    parse_device,
)

pytestmark = pytest.mark.kvm

HANG_UP = b"\x04"
PLACES = pytest.mark.parametrize("placement", ["server", "local"])


def image(tmp_path: Path, code: bytes) -> Path:
    """An image with this code."""
    path = tmp_path / "guest.bin"
    path.write_bytes(code)
    return path


# -- made of ------------------------------------------------------------------------------------


def test_a_bundled_guest_runs_by_its_name() -> None:
    with Machine("hello") as machine:
        assert machine.run(AT_MOST_S).check().status == 0
        assert machine.serial.text.startswith("Hello")


def test_an_image_runs_with_further_devices_and_memory(tmp_path: Path) -> None:
    code = tinyguest.write(0x2F8 + 7, 42) + tinyguest.read(0x2F8 + 7) + tinyguest.leave_with_al()
    second = parse_device("uart16550,name=com2,port=0x2f8,irq=3,placement=local")
    for device in ("uart16550,name=com2,port=0x2f8,irq=3", second):
        with Machine(image(tmp_path, code), devices=[device], memory="2M") as machine:
            assert machine.run(AT_MOST_S).status == 42
            assert len(machine.read_memory(0x1FFFFF, 1)) == 1
            with pytest.raises(InputError, match="no memory at 0x200000"):
                machine.read_memory(0x1FFFFF, 2)


def test_a_machine_file_and_a_spec_run(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(f'[image]\npath = "{image(tmp_path, tinyguest.leave(7))}"\n')
    for what in (file, load_machine(str(file))):
        with Machine(what, placement="local") as machine:
            assert machine.run(AT_MOST_S).status == 7
            assert {device.placement for device in machine.spec.devices} == {"local"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"memory": 3}, "memory 3: give between"),
        ({"memory": "much"}, "much"),
        ({"policy": "lazy"}, "no policy 'lazy'"),
        ({"hypervisor": "hyper"}, "hyper"),
        ({"devices": ["uart16550,port=x"]}, "port"),
        ({"devices": ["uart16550,name=com1,port=0x2f8"]}, "two devices are named 'com1'"),
        ({"moemory": 3}, "a machine has no 'moemory'"),
        ({"kind": "elf"}, "elf"),
    ],
)
def test_what_can_t_be_is_said_when_it_is_made(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        Machine("hello", **given)


def test_a_guest_that_is_not_there_is_said_when_it_is_made() -> None:
    with pytest.raises(InputError, match="hello"):
        Machine("helo")


# -- a dialogue ---------------------------------------------------------------------------------


@PLACES
def test_a_dialogue_needs_no_thread_of_the_program_s(placement: str) -> None:
    with Machine("echo", placement=placement) as machine:
        machine.start(AT_MOST_S)
        machine.serial.expect("ready")
        machine.serial.send("one two")
        assert machine.serial.expect(r"o(n)e t").group(1) == "n"
        machine.serial.expect("wo")
        machine.serial.send(HANG_UP)
        assert machine.wait().check().outcome is Outcome.EXITED


def test_only_what_comes_behind_the_last_match_counts() -> None:
    with Machine("echo") as machine:
        machine.start(AT_MOST_S)
        machine.serial.expect("ready")
        with pytest.raises(ExpectError, match=r"within 0\.01 s") as caught:
            machine.serial.expect("ready", timeout_s=0.01)
        assert "expected 'ready'" in str(caught.value)


def test_who_waits_for_what_a_guest_did_not_say_hears_how_it_ended(tmp_path: Path) -> None:
    code = tinyguest.say(b"goodbye") + tinyguest.leave(3)
    with Machine(image(tmp_path, code)) as machine:
        machine.start(AT_MOST_S)
        with pytest.raises(ExpectError, match=r"ended with status 3; .* 'goodbye'"):
            machine.serial.expect("login:", AT_MOST_S)


def test_what_was_sent_before_the_guest_runs_waits_for_it() -> None:
    with Machine("echo") as machine:
        machine.serial.send(b"early")
        machine.serial.close()
        assert "early" in (machine.run(AT_MOST_S) and machine.serial.text)


# -- looking into it ----------------------------------------------------------------------------


def test_registers_and_memory_are_there_after_an_ordinary_end(tmp_path: Path) -> None:
    code = b"\xbb\x34\x12" + tinyguest.leave(0)  # mov bx, 1234h
    with Machine(image(tmp_path, code)) as machine:
        machine.run(AT_MOST_S).check()
        assert machine.registers.general["rbx"] & 0xFFFF == 0x1234
        start = machine.registers.bases["cs"] + machine.registers.general["rip"]
        assert machine.read_memory(start & ~0xFF, 0x200).find(code) >= 0


@PLACES
def test_a_paused_machine_shows_its_registers_and_devices_and_goes_on(placement: str) -> None:
    with Machine("echo", placement=placement) as machine:
        machine.start(AT_MOST_S)
        machine.serial.expect("ready")
        assert machine.pause().outcome is Outcome.PAUSED
        assert machine.registers.code_bits == 16
        assert machine.device_state("com1")["word_length_chosen"] is True
        machine.start(AT_MOST_S)
        machine.serial.send(b"on" + HANG_UP)
        machine.serial.expect("on")
        machine.wait().check()


def test_a_snapshot_is_a_machine_of_its_own() -> None:
    with Machine("echo") as machine:
        machine.start(AT_MOST_S)
        machine.serial.expect("ready")
        machine.pause()
        state = machine.snapshot()
    with Machine.restored(state) as again:
        again.serial.send(b"later" + HANG_UP)
        again.run(AT_MOST_S).check()
        assert again.serial.text.startswith("later")


def test_the_model_of_a_local_device_can_be_had() -> None:
    with Machine("hello", placement="local") as machine:
        assert isinstance(machine.device("com1"), Uart16550)
        with pytest.raises(InputError, match=r"no device 'com9'; it has .*com1"):
            machine.device("com9")
    with Machine("hello") as machine, pytest.raises(InputError, match="runs on a server"):
        machine.device("com1")


# -- how it ends --------------------------------------------------------------------------------


def test_a_check_says_what_went_wrong(tmp_path: Path) -> None:
    with Machine(image(tmp_path, tinyguest.leave(3))) as machine:
        result = machine.run(AT_MOST_S)
        assert result.check(3) is result
        with pytest.raises(GuestError, match="status 3, not 0"):
            result.check()
    halted = Machine(image(tmp_path, tinyguest.HALT))
    with halted as machine, pytest.raises(GuestError, match="halted"):
        machine.run(AT_MOST_S).check()


def test_leaving_the_block_ends_a_guest_that_runs() -> None:
    with Machine("echo") as machine:
        machine.start()
        machine.serial.expect("ready")
        assert machine.is_running
    assert not machine.is_running


def test_a_guest_is_stopped_and_says_so() -> None:
    with Machine("echo") as machine:
        machine.start()
        with pytest.raises(TimeoutError):
            machine.wait(0.01)
        assert machine.stop().outcome is Outcome.STOPPED


def test_what_comes_at_the_wrong_time_is_a_misuse() -> None:
    machine = Machine("echo")
    for ask in (machine.wait, machine.pause, machine.snapshot):
        with pytest.raises(MisuseError):
            ask()
    with machine:
        with pytest.raises(MisuseError, match="registers"):
            _ = machine.registers
        machine.start()
        with pytest.raises(MisuseError, match="runs already"):
            machine.start()
        with pytest.raises(MisuseError, match="paused"):
            machine.device_state("com1")


def test_a_spec_is_what_a_machine_is_made_of() -> None:
    spec = machine_of("hello")
    assert all(isinstance(device, DeviceSpec) for device in Machine(spec).spec.devices)
