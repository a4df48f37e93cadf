"""Interrupt controllers that are a device: paused, saved, restored and moved like any other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from commandline import command, devserver, io_server, kvmshim, read_until, start, the_line
from library import Terminal, machine
from pausing import run_in_pieces, tally

from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.kvm

OWNER, LOCAL = Destination(1, "devserver", "", "server"), Destination()
each_place = pytest.mark.parametrize("place", ["server", "local"])


@each_place
def test_a_guest_that_is_paused_at_random_moments_ends_with_the_same_sums(place: str) -> None:
    terminal = Terminal()
    with machine("tally", placement=place, irqchip="remote") as made:
        result, pauses = run_in_pieces(made, terminal, 1)
    assert (result.outcome, result.exit_status, terminal.text) == (Outcome.EXITED, 0, tally())
    assert pauses > 5


@each_place
def test_a_guest_asleep_in_hlt_sleeps_on_after_a_pause(place: str) -> None:
    """It counts 100 ticks of one clock in a second of another, halted in between."""
    terminal = Terminal()
    with machine("pit_rtc", placement=place, irqchip="remote") as made:
        result, _ = run_in_pieces(made, terminal, 1, longest_s=0.1)
    assert result.exit_status == 0, terminal.text


@each_place
def test_a_guest_that_is_suspended_again_and_again_ends_with_the_same_sums(
    place: str, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    to = ("--suspend-to", file, "--suspend-after", "0.4")
    result = kvmshim("run", "tally", "--placement", place, "--irqchip", "remote", *to)
    text, times = result.stdout, 0
    while result.returncode == 121:
        assert "goes on" in the_line(result)
        times += 1
        result = kvmshim("resume", file, *to)
        text += result.stdout
    assert (result.returncode, text) == (0, tally())
    assert times > 0


def test_a_guest_that_was_suspended_in_hlt_wakes_when_it_is_typed_to(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with start(command("run", "echo", "--irqchip", "remote", "--suspend-to", file)) as process:
        assert process.stdout is not None
        read_until(process.stdout, b"ready")
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 121
    result = kvmshim("resume", file, given=b"after\x04")
    assert (result.returncode, result.stdout) == (0, b"after")


def test_they_move_from_server_to_server_while_the_guest_takes_interrupts(tmp_path: Path) -> None:
    terminal = Terminal()
    with (
        devserver(f"unix:{tmp_path}/socket") as owner,
        io_server(owner.address, "io"),
        machine("tally", server=owner.address, irqchip="remote") as made,
    ):
        places = [Destination(2, "io", "", "server/io"), LOCAL, OWNER]
        moves = 0

        def move() -> None:
            nonlocal moves
            made.move_device("pic", places[moves % 3])
            moves += 1

        result, _ = run_in_pieces(made, terminal, 7, move, longest_s=0.03)
    assert (result.exit_status, terminal.text) == (0, tally())
    assert moves > 5


def test_devices_on_several_servers_and_here_share_them(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        '[machine]\nirqchip = "remote"\n[image]\npath = "storm.bin"\n'
        '[[device]]\nname = "pic"\nplacement = "server/io"\n'
        '[[device]]\nname = "testdev"\nplacement = "local"\n'
    )
    (tmp_path / "storm.bin").write_bytes(Path("guests/built/storm.bin").read_bytes())
    with devserver(f"unix:{tmp_path}/socket") as owner, io_server(owner.address, "io"):
        result = kvmshim("run", file, "--server", owner.address)
    assert result.returncode == 0, result.stderr


def test_a_mistake_in_the_machine_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "machine.toml").write_text('[machine]\nirqchip = "romote"\n')
    said = the_line(kvmshim("run", tmp_path / "machine.toml"))
    assert "did you mean 'remote'" in said
