"""A machine that is used at the wrong time, or in the wrong way, says so at the call."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from kvmshim import InputError, KvmshimError, MisuseError
from kvmshim.vmm.assemble import machine_for, machine_of
from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.machine import Machine

pytestmark = pytest.mark.kvm

AT_MOST_S = 60.0

CALLS: dict[str, Callable[[Machine], object]] = {
    "run": lambda machine: machine.run(timeout_s=AT_MOST_S),
    "feed": lambda machine: machine.feed("com1", b"x"),
    "pause": lambda machine: machine.pause(),
    "time_ns": lambda machine: machine.time_ns(),
    "save": lambda machine: machine.save(),
    "save_header": lambda machine: machine.save_header(),
    "preliminary_header": lambda machine: machine.preliminary_header(),
    "memory": lambda machine: machine.memory(None),
    "dirty_log": lambda machine: machine.dirty_log(),
    "leave_devices": lambda machine: machine.leave_devices(),
    "move_device": lambda machine: machine.move_device("com1", Destination()),
}


@pytest.mark.parametrize("call", [*CALLS, "stop"])
def test_before_its_with_block_a_machine_can_do_nothing(call: str) -> None:
    machine = machine_for(machine_of("hello"))
    with pytest.raises(MisuseError):
        {**CALLS, "stop": Machine.stop}[call](machine)


@pytest.mark.parametrize("call", CALLS)
def test_after_its_with_block_a_machine_can_do_nothing(call: str) -> None:
    with machine_for(machine_of("hello")) as machine:
        pass
    machine.stop()  # from a thread that does not know yet: no harm
    with pytest.raises(MisuseError):
        CALLS[call](machine)


def test_a_machine_runs_once() -> None:
    with machine_for(machine_of("hello")) as machine:
        assert machine.run(timeout_s=AT_MOST_S).exit_status == 0
        with pytest.raises(MisuseError, match="its guest has ended; make another machine"):
            machine.run()
        with pytest.raises(MisuseError, match="its guest has ended"):
            machine.feed("com1", b"x")


def test_a_machine_runs_in_one_thread() -> None:
    with machine_for(machine_of("echo")) as machine:
        begun = threading.Event()
        guest = threading.Thread(
            target=machine.run,
            kwargs={"timeout_s": AT_MOST_S, "output": lambda *_: begun.set()},
        )
        guest.start()
        machine.feed("com1", b"x")
        assert begun.wait(AT_MOST_S)
        with pytest.raises(MisuseError, match="its guest runs, in another thread"):
            machine.run()
        machine.feed("com1", b"\x04")
        guest.join(AT_MOST_S)
        assert not guest.is_alive()


def test_a_machine_is_entered_once() -> None:
    with machine_for(machine_of("hello")) as machine, pytest.raises(MisuseError, match="once"):
        machine.__enter__()
    with pytest.raises(MisuseError, match="once"):
        machine.__enter__()


@pytest.mark.parametrize(
    ("device", "why"),
    [("postcode", "takes no input"), ("com3", "is not one of the machine's")],
)
def test_only_a_device_with_an_input_is_fed(device: str, why: str) -> None:
    spec = machine_of("hello")
    names = {wired.wiring.kind: wired.wiring.name for wired in spec.devices}
    name = names.get(device, device)
    with machine_for(spec) as machine:
        with pytest.raises(InputError, match=f"device '{name}' {why}; those that .*: com1"):
            machine.feed(name, b"x")
        assert machine.run(timeout_s=AT_MOST_S).exit_status == 0


def test_it_is_one_of_the_errors_of_the_package() -> None:
    assert issubclass(MisuseError, KvmshimError)
    assert issubclass(MisuseError, RuntimeError)
