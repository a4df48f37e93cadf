"""Machines as a program runs them; whatever happens, nothing of them is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S, devserver
from library import Holdings, Terminal, machine, run
from ownmodels import ROLLS, dice, loaded_dice

from kvmshim.bundled import find_guest
from kvmshim.errors import InputError, ServerError
from kvmshim.remote.link import Link
from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.kvm

HELLO = b"Hello from a real CPU; my devices are somewhere else.\r\n"
OWN = f"port={tinyguest.OWN_PORT:#x}"
each_place = pytest.mark.parametrize("place", ["server", "local"])


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


# -- results ------------------------------------------------------------------------------------


@each_place
def test_a_guest_that_ends_by_itself_has_a_status_and_no_message(place: str) -> None:
    result, text = run("hello", placement=place)
    assert (result.outcome, result.status, result.exit_status) == (Outcome.EXITED, 0, 0)
    assert (result.message, result.details, text) == ("", (), HELLO)


@pytest.mark.parametrize(("status", "expected"), [(7, 7), (111, 111), (112, 112), (255, 112)])
def test_a_status_above_111_is_told_apart_from_the_commands_own(
    status: int, expected: int, image: Path
) -> None:
    image.write_bytes(tinyguest.leave(status) + tinyguest.HALT)
    result, _ = run(image, placement="local")
    assert (result.status, result.exit_status) == (status, expected)


@each_place
def test_a_crash_tells_the_registers(place: str) -> None:
    result, text = run("triple_fault", placement=place)
    assert result.outcome is Outcome.CRASHED
    assert result.registers is not None
    assert result.registers.general["rbx"] == 0xC0DE0001
    assert text == b"about to fault three times over\r\n"
    assert any("bx=c0de0001" in line for line in result.details)


def test_the_counters_tell_posted_writes_from_those_that_waited() -> None:
    result, _ = run("hello")
    link, vcpu = result.stats["link (embedded)"], result.stats["vcpu"]
    assert link["posted"] >= len(HELLO)
    assert link["requests"] >= 1
    assert vcpu["port_exits"] + vcpu["coalesced_writes"] >= link["posted"] + link["requests"]


def test_answers_wake_nobody_but_the_processor_that_waits_for_them(image: Path) -> None:
    again_and_again = b"\xb9\x00\x10" + tinyguest.read(tinyguest.COM1) + b"\xe2\xfa"
    image.write_bytes(again_and_again + tinyguest.leave(0))  # 1000h times: mov cx; ...; loop
    result, _ = run(str(image))
    link = result.stats["link (embedded)"]
    assert link["requests"] >= 0x1000
    assert link["woken"] < link["requests"] / 2


def test_what_only_local_devices_do_has_no_link_to_count() -> None:
    result, _ = run("hello", placement="local")
    assert list(result.stats) == ["vcpu"]


# -- from outside -------------------------------------------------------------------------------


@each_place
def test_a_program_is_the_guests_other_end(place: str) -> None:
    terminal = Terminal()
    with machine("echo", placement=place) as made:
        terminal.when(b"ready\r\n", lambda: made.feed("com1", b"how do you do?\x04"))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.exit_status, terminal.text) == (0, b"ready\r\nhow do you do?")


@each_place
def test_bytes_fed_from_another_thread_all_come_and_in_order(place: str) -> None:
    many = bytes(32 + i % 90 for i in range(17_000))  # more than may be under way
    terminal = Terminal()
    with machine("echo", placement=place) as made, ThreadPoolExecutor() as pool:
        guest = pool.submit(made.run, timeout_s=AT_MOST_S, output=terminal)
        for at in range(0, len(many), 64):
            made.feed("com1", many[at : at + 64])
        made.feed("com1", b"\x04", end=True)
        assert guest.result().exit_status == 0
    assert terminal.text == b"ready\r\n" + many


@each_place
def test_another_thread_can_stop_a_guest(place: str) -> None:
    terminal = Terminal()
    with machine("echo", placement=place) as made:
        stopper = threading.Thread(target=made.stop)
        terminal.when(b"ready\r\n", stopper.start)
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
        stopper.join()
    assert (result.outcome, result.exit_status) == (Outcome.STOPPED, 130)


@each_place
def test_a_guest_that_never_exits_is_stopped_when_its_time_is_over(place: str, image: Path) -> None:
    image.write_bytes(tinyguest.SPIN)
    with machine(image, placement=place) as made:
        result = made.run(timeout_s=0.2)
    assert (result.outcome, result.exit_status) == (Outcome.TIMED_OUT, 124)
    assert result.message == "the guest did not end within 0.2 s"
    assert result.registers is not None
    assert result.registers.general["rip"] == 0x7C00


def test_an_output_handler_that_raises_ends_the_run(image: Path) -> None:
    def refuse(device: str, channel: str, data: bytes) -> None:
        raise RuntimeError("no more")

    image.write_bytes(tinyguest.say(b"x") + tinyguest.SPIN)
    with machine(image) as made, pytest.raises(RuntimeError, match="no more"):
        made.run(timeout_s=AT_MOST_S, output=refuse)


# -- one after another, and at once -------------------------------------------------------------


def test_machines_run_one_after_another() -> None:
    assert [run("hello")[1] for _ in range(3)] == [HELLO] * 3


def test_machines_run_at_once() -> None:
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(run, "storm", placement=place) for place in ("server", "local")]
        ends = [(result.exit_status, text) for result, text in (one.result() for one in both)]
    assert [status for status, _ in ends] == [0, 0]
    assert all(text.endswith(b"\r\nnothing was lost\r\n") for _, text in ends)


# -- placement ----------------------------------------------------------------------------------


def machine_file(folder: Path, text: str) -> Path:
    """A machine file that boots the guest ``echo``."""
    path = folder / "machine.toml"
    path.write_text(f'[image]\npath = "{find_guest("echo").path}"\n{text}')
    return path


def echo_ends_well(made_from: Path) -> dict[str, dict[str, int]]:
    """Runs an echo machine file through a greeting; the counters."""
    terminal = Terminal()
    with machine(made_from) as made:
        terminal.when(b"ready\r\n", lambda: made.feed("com1", b"hi\x04"))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.exit_status, terminal.text) == (0, b"ready\r\nhi")
    return result.stats


def test_a_device_beside_the_guest_works_with_the_others_on_a_server(tmp_path: Path) -> None:
    stats = echo_ends_well(
        machine_file(tmp_path, '[[device]]\nname = "com1"\nplacement = "local"\n')
    )
    assert stats["link (embedded)"]["posted"] == 0
    assert stats["link (embedded)"]["requests"] == 1  # the exit


def test_a_machine_has_its_devices_on_two_servers(tmp_path: Path) -> None:
    with (
        devserver(f"unix:{tmp_path}/near") as near,
        devserver("tcp://127.0.0.1:0") as far,
    ):
        stats = echo_ends_well(
            machine_file(
                tmp_path,
                f'[machine]\nplacement = "near"\n'
                f'[servers]\nnear = "{near.address}"\nfar = "{far.address}"\n'
                '[[device]]\nname = "com1"\nplacement = "far"\n',
            )
        )
    assert stats[f"link {far.address}"]["interrupts"] >= 2
    assert stats[f"link {near.address}"]["requests"] == 1


def test_one_server_serves_its_machines_each_with_devices_of_its_own(tmp_path: Path) -> None:
    model = dice(tmp_path)
    guest = tmp_path / "guest.bin"
    guest.write_bytes(tinyguest.read(tinyguest.OWN_PORT) * 2 + tinyguest.leave_with_al())
    with devserver(f"unix:{tmp_path}/socket", arguments=("--model", model)) as server:
        roll = partial(run, guest, f"dice,{OWN}", server=server.address)
        assert [roll()[0].status for _ in range(2)] == [ROLLS[1]] * 2


# -- a user's own model -------------------------------------------------------------------------


@each_place
def test_a_model_of_twenty_lines_is_a_device_of_the_machine(
    place: str, image: Path, tmp_path: Path
) -> None:
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) * 3 + tinyguest.leave_with_al())
    result, _ = run(image, f"dice,{OWN},placement={place}", models=[str(dice(tmp_path))])
    assert result.status == ROLLS[2]


@each_place
def test_a_model_that_raises_ends_its_machine_with_its_name_and_line(
    place: str, image: Path, tmp_path: Path
) -> None:
    model, line = loaded_dice(tmp_path)
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    result, _ = run(image, f"loaded,{OWN},name=mine,placement={place}", models=[str(model)])
    assert (result.outcome, result.exit_status) == (Outcome.DEVICE_FAILED, 119)
    assert "device 'mine' (loaded) failed: ValueError: it rolled off the table" in result.message
    assert result.message.endswith(f"{model}:{line}")
    assert result.details[0].startswith("Traceback")


def test_a_model_that_raises_harms_no_other_machine_of_its_server(
    image: Path, tmp_path: Path
) -> None:
    model, _ = loaded_dice(tmp_path)
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    terminal = Terminal()

    def break_another() -> None:
        other, _ = run(image, f"loaded,{OWN}", server=server.address)
        assert other.outcome is Outcome.DEVICE_FAILED
        good.feed("com1", b"still here\x04")

    with (
        devserver(f"unix:{tmp_path}/socket", arguments=("--model", model)) as server,
        machine("echo", server=server.address) as good,
    ):
        terminal.when(b"ready\r\n", break_another)
        result = good.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.exit_status, terminal.text) == (0, b"ready\r\nstill here")


# -- servers that fail --------------------------------------------------------------------------


def poll_for_ever(image: Path) -> Path:
    """A guest that says so once and then only reads a register of its serial line."""
    image.write_bytes(
        tinyguest.say(b"!") + tinyguest.for_ever(tinyguest.read(tinyguest.LINE_STATUS))
    )
    return image


def test_a_guest_that_waits_for_a_stopped_server_ends_when_its_time_is_over(
    image: Path, tmp_path: Path
) -> None:
    terminal = Terminal()
    with (
        devserver(f"unix:{tmp_path}/socket") as server,
        machine(poll_for_ever(image), server=server.address) as made,
    ):
        terminal.when(b"!", lambda: server.send(signal.SIGSTOP))
        result = made.run(timeout_s=1.0, output=terminal)
    assert result.outcome is Outcome.TIMED_OUT


def test_a_server_that_shows_no_sign_of_life_is_given_up(image: Path, tmp_path: Path) -> None:
    terminal = Terminal()
    patience = ("--heartbeat", "0.2", "--deadline", "0.6")
    with (
        devserver(f"unix:{tmp_path}/socket", arguments=patience) as server,
        machine(poll_for_ever(image), server=server.address) as made,
    ):
        terminal.when(b"!", lambda: server.send(signal.SIGSTOP))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.outcome, result.exit_status) == (Outcome.SERVER_LOST, 116)
    assert "was silent for" in result.message


@pytest.mark.parametrize("guest", ["asleep", "polling"])
def test_a_server_that_dies_ends_the_guest(guest: str, image: Path, tmp_path: Path) -> None:
    terminal = Terminal()
    what = "echo" if guest == "asleep" else poll_for_ever(image)
    with (
        devserver(f"unix:{tmp_path}/socket") as server,
        machine(what, server=server.address) as made,
    ):
        said = b"ready\r\n" if guest == "asleep" else b"!"
        terminal.when(said, lambda: server.send(signal.SIGKILL))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert (result.outcome, result.exit_status) == (Outcome.SERVER_LOST, 116)
    assert server.address in result.message


def test_a_server_that_is_shut_down_says_so(tmp_path: Path) -> None:
    terminal = Terminal()
    with (
        devserver(f"unix:{tmp_path}/socket") as server,
        machine("echo", server=server.address) as made,
    ):
        terminal.when(b"ready\r\n", lambda: server.send(signal.SIGTERM))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert result.outcome is Outcome.SERVER_LOST
    assert "the server is being shut down" in result.message


# -- machines that can't be had -----------------------------------------------------------------


def test_a_server_that_is_not_there_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="can't reach"):
        machine("hello", server=f"unix:{tmp_path}/nothing").__enter__()


@each_place
def test_a_device_that_can_not_be_had_leaves_nothing_open(place: str) -> None:
    with pytest.raises(InputError, match="did you mean 'postcode'"):
        machine("hello", f"postcod,{OWN},placement={place}").__enter__()


def test_a_clash_between_a_server_and_this_side_leaves_nothing_open() -> None:
    with pytest.raises(InputError, match="both claim port 0x3f8"):
        machine("hello", "debugcon,name=mine,port=0x3f8,placement=local").__enter__()


def test_a_machine_runs_inside_its_with_block_only() -> None:
    with pytest.raises(RuntimeError, match="inside its 'with' block"):
        machine("hello").run()


def test_the_machine_names_its_devices_and_who_has_them(tmp_path: Path) -> None:
    path = machine_file(tmp_path, '[[device]]\nname = "com1"\nplacement = "local"\n')
    with machine(path) as made:
        assert isinstance(made.view().find("pit")[0], Link)
        assert not isinstance(made.view().find("com1")[0], Link)
        assert made.console() == "com1"
        with pytest.raises(InputError, match="no device 'com9'"):
            made.view().find("com9")
