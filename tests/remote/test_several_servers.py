"""One machine whose devices are on an owner and its I/O servers, by either route."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import AT_MOST_S, DevServer, devserver, io_server
from library import Terminal

from kvmshim.bundled import find_guest, guests
from kvmshim.errors import InputError, ServerError
from kvmshim.machinefile import load_machine
from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.outcome import Outcome, RunResult

pytestmark = pytest.mark.kvm

ROUTES = ["relay", "redirect", "auto"]


@pytest.fixture(scope="module", params=ROUTES)
def owner(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevServer]:
    """An owner with two I/O servers, one and two."""
    where = tmp_path_factory.mktemp("owner") / "socket"
    with (
        devserver(f"unix:{where}", arguments=("--route", request.param)) as owner,
        io_server(owner.address, "one"),
        io_server(owner.address, "two"),
    ):
        yield owner


def spread_out(guest: str, folder: Path, **places: str) -> Path:
    """A machine file of a bundled guest with some of its devices elsewhere."""
    lines = ["[image]", f'path = "{find_guest(guest).path}"']
    for device, place in places.items():
        lines += ["[[device]]", f'name = "{device}"', f'placement = "{place}"']
    path = folder / "machine.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(path: Path, server: str) -> tuple[RunResult, bytes]:
    terminal = Terminal()
    with machine_for(load_machine(str(path)), server=server) as made:
        return made.run(timeout_s=AT_MOST_S, output=terminal), terminal.text


@pytest.mark.parametrize("guest", ["pit_rtc", "storm", "rtc", "string_io", "pit_modes"])
def test_guests_do_not_notice_where_their_devices_are(
    guest: str, owner: DevServer, tmp_path: Path
) -> None:
    path = spread_out(guest, tmp_path, com1="server/one", pit="server/two", testdev="server/one")
    result, text = run(path, owner.address)
    assert (result.outcome, result.status) == (Outcome.EXITED, 0), text


def test_one_vm_has_its_serial_port_here_and_its_timer_there(
    owner: DevServer, tmp_path: Path
) -> None:
    path = spread_out("pit_rtc", tmp_path, com1="server/one", pit="server/two")
    result, text = run(path, owner.address)
    assert re.fullmatch(guests()["pit_rtc"].manifest["expect_regex"].encode(), text)
    assert len([name for name in result.stats if name.startswith("link")]) == 3


def test_a_server_that_is_not_there_is_named(owner: DevServer, tmp_path: Path) -> None:
    path = spread_out("hello", tmp_path, com1="server/ome")
    with pytest.raises(InputError, match=r"placed on 'ome'.*did you mean 'one'"):
        run(path, owner.address)


def test_an_io_server_that_can_not_be_reached_is_named(owner: DevServer, tmp_path: Path) -> None:
    path = spread_out("hello", tmp_path, com1="server/away")
    with (
        io_server(owner.address, "away", arguments=("--advertise", "tcp://127.0.0.1:1")),
        pytest.raises(ServerError, match="I/O server 'away'"),
    ):
        run(path, owner.address)


def test_an_io_server_that_dies_ends_the_guest_and_is_named(
    owner: DevServer, tmp_path: Path
) -> None:
    path = spread_out("echo", tmp_path, com1="server/brief")
    terminal = Terminal()
    with (
        io_server(owner.address, "brief") as server,
        machine_for(load_machine(str(path)), server=owner.address) as made,
    ):
        terminal.when(b"ready", lambda: server.send(signal.SIGKILL))
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert result.outcome is Outcome.SERVER_LOST
    assert "'brief'" in result.message
