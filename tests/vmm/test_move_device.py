"""Devices that move between servers, and between a server and the client, while a guest runs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from commandline import DevServer, devserver, io_server
from library import Terminal, machine
from pausing import run_in_pieces, run_until, tally

from kvmshim.errors import InputError
from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.kvm

OWNER, LOCAL = Destination(1, "devserver", "", "server"), Destination()
EVERY = ["pit", "rtc", "post", "testdev", "debugcon", "exit", "com1"]


@pytest.fixture(scope="module", params=["relay", "redirect"])
def owner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DevServer, list[Destination]]]:
    """An owner and its two I/O servers, and everywhere that a device can go."""
    where = tmp_path_factory.mktemp("owner") / "socket"
    with (
        devserver(f"unix:{where}") as owner,
        io_server(owner.address, "one") as one,
        io_server(owner.address, "two") as two,
    ):
        direct = request.param == "redirect"
        addresses = [io.address if direct else "" for io in (one, two)]
        others = [
            Destination(2 + n, name, address, f"server/{name}")
            for n, (name, address) in enumerate(zip(("one", "two"), addresses, strict=True))
        ]
        yield owner, [OWNER, LOCAL, *others]


class Mover:
    """Moves devices of a machine about at random."""

    def __init__(self, made: Machine, places: list[Destination], devices: list[str], seed: int):
        self.moves = 0
        self._made = made
        self._places = places
        self._devices = devices
        self._random = Random(seed)
        self._where = dict.fromkeys(devices, OWNER)

    def __call__(self) -> None:
        for _ in range(3):
            device = self._random.choice(self._devices)
            place = self._random.choice(self._places)
            if place != self._where[device]:
                self._made.move_device(device, place)
                self._where[device] = place
                self.moves += 1


def test_a_guest_that_counts_and_sums_does_not_notice_dozens_of_moves(
    owner: tuple[DevServer, list[Destination]],
) -> None:
    server, places = owner
    terminal = Terminal()
    with machine("tally", server=server.address) as made:
        move = Mover(made, places, EVERY, 1)
        result, _ = run_in_pieces(made, terminal, 1, move, longest_s=0.04)
    assert (result.outcome, result.exit_status, terminal.text) == (Outcome.EXITED, 0, tally())
    assert move.moves > 24


def test_a_timer_that_moves_misses_no_tick(owner: tuple[DevServer, list[Destination]]) -> None:
    server, places = owner
    terminal = Terminal()
    with machine("pit_rtc", server=server.address) as made:
        move = Mover(made, places, ["pit", "rtc", "com1"], 3)
        result, _ = run_in_pieces(made, terminal, 3, move, longest_s=0.05)
    assert result.exit_status == 0, terminal.text
    assert move.moves > 10


def test_no_byte_of_the_input_is_lost_or_doubled_by_moves(
    owner: tuple[DevServer, list[Destination]],
) -> None:
    server, places = owner
    many = bytes(32 + i % 90 for i in range(3000))
    terminal = Terminal()
    with machine("echo", server=server.address) as made:
        made.feed("com1", many + b"\x04", end=True)
        move = Mover(made, places, ["com1"], 4)
        result, _ = run_in_pieces(made, terminal, 4, move, longest_s=0.03)
    assert (result.exit_status, terminal.text) == (0, b"ready\r\n" + many)
    assert move.moves > 5


def test_a_device_moves_between_the_client_and_a_server_of_its_own() -> None:
    terminal = Terminal()
    with machine("tally") as made:
        move = Mover(made, [OWNER, LOCAL], EVERY, 5)
        result, _ = run_in_pieces(made, terminal, 5, move, longest_s=0.03)
    assert (result.exit_status, terminal.text) == (0, tally())
    assert move.moves > 10


def test_a_device_stays_where_it_is_if_the_other_place_can_not_be_reached(
    owner: tuple[DevServer, list[Destination]],
) -> None:
    server, _ = owner
    terminal = Terminal()
    nowhere = Destination(77, "nowhere", "tcp://127.0.0.1:1", "server/nowhere")
    with machine("tally", server=server.address) as made:

        def try_it() -> None:
            with pytest.raises(InputError, match=r"device 'com1' stays where it is: .*nowhere"):
                made.move_device("com1", nowhere)

        result, _ = run_in_pieces(made, terminal, 6, try_it, longest_s=0.05)
    assert (result.exit_status, terminal.text) == (0, tally())


def test_what_can_not_be_moved_is_named(owner: tuple[DevServer, list[Destination]]) -> None:
    server, _ = owner
    with machine("echo", server=server.address) as made:
        run_until(made, Terminal(), 0.01)
        with pytest.raises(InputError, match=r"no device 'com9'.*com1"):
            made.move_device("com9", LOCAL)
        with pytest.raises(InputError, match="'com1' is on devserver already"):
            made.move_device("com1", OWNER)
