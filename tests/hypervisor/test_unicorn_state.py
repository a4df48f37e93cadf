"""A machine on the Unicorn engine is saved, and goes on elsewhere; never on another kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S, kvmshim, the_line
from emulated import emulated
from library import Terminal

from devserver.protocol.messages import Hypervisor
from kvmshim.errors import HostError
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome
from kvmshim.vmstate.state import DamagedState, Header, MachineState

pytestmark = pytest.mark.unicorn

UNTIL_FED = tinyguest.read(tinyguest.LINE_STATUS) + b"\xa8\x01\x74\xf8"  # test al, 1; jz


def saved(image: Path) -> MachineState:
    """The state of a guest that has said "a" and waits for input, as it comes out of a file."""
    image.write_bytes(
        tinyguest.say(b"a")
        + b"\x66\xbb\x78\x56\x34\x12\x66\x89\x1e\x00\x90"  # mov ebx; mov [9000], ebx
        + UNTIL_FED
        + b"\x66\x3b\x1e\x00\x90\x75\xfe"  # cmp ebx, [9000]; jne $
        + tinyguest.say(b"b") + tinyguest.leave(6)
    )  # fmt: skip
    terminal = Terminal()
    with emulated(image) as made:
        terminal.when(b"a", made.pause)
        assert made.run(timeout_s=AT_MOST_S, output=terminal).outcome is Outcome.PAUSED
        state = made.save()
    return dataclasses.replace(state, header=Header.from_bytes(state.header.to_bytes()))


def changed(state: MachineState, **header: object) -> MachineState:
    """The state with another header."""
    return dataclasses.replace(state, header=dataclasses.replace(state.header, **header))


def test_an_emulated_machine_goes_on_from_its_state(tmp_path: Path) -> None:
    state, terminal = saved(tmp_path / "guest.bin"), Terminal()
    assert state.header.machine.hypervisor == Hypervisor.UNICORN
    with Machine.restored(state) as again:
        again.feed("com1", b"!")
        result = again.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.status, terminal.text) == (6, b"b")


def test_the_state_of_another_version_of_the_engine_is_refused_by_its_name(tmp_path: Path) -> None:
    state = changed(saved(tmp_path / "guest.bin"), needs=("unicorn 1.0",))
    with pytest.raises(HostError, match=r"emulated by unicorn 1\.0"), Machine.restored(state):
        pass


def test_a_damaged_state_of_the_processor_is_refused(tmp_path: Path) -> None:
    state = saved(tmp_path / "guest.bin")
    cpu = dataclasses.replace(state.header.cpu, structures={"unicorn": b"too short"})
    with pytest.raises(DamagedState), Machine.restored(changed(state, cpu=cpu)):
        pass


@pytest.mark.kvm
def test_the_state_of_one_kind_is_refused_by_the_other(tmp_path: Path) -> None:
    state = saved(tmp_path / "guest.bin")
    machine = dataclasses.replace(state.header.machine, hypervisor=int(Hypervisor.KVM))
    with (
        pytest.raises(HostError, match="unicorn"),
        Machine.restored(changed(state, machine=machine)),
    ):
        pass


@pytest.mark.process
def test_an_emulated_guest_that_sleeps_is_suspended_to_a_file_and_resumed(tmp_path: Path) -> None:
    file = tmp_path / "suspended"
    first = kvmshim(
        "run", "pit_rtc", "--hypervisor", "unicorn", "--suspend-to", file, "--suspend-after", "0.5"
    )
    assert first.returncode == Outcome.PAUSED.value, first.stderr
    second = kvmshim("resume", file, "--timeout", "30")
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith(b"timer ticks in one second of the clock: ")
    assert "emulates the guest's processor" in the_line(second)
