"""Machines that talk to each other through a server: the guests of the mailbox device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S, DevServer, command, devserver, environment, start
from library import Terminal, run

from kvmshim.bundled import find_guest
from kvmshim.vmm.assemble import machine_for, machine_of

pytestmark = pytest.mark.kvm

MESSAGES = 1000
MACHINE = """
[image]
path = "{image}"

[[device]]
name = "mailbox"
kind = "mailbox"
port = 0x300
irq = 5
options = {{ box = "{box}", member = {member} }}
"""


def total() -> int:
    """The sum of the words that the sending guest draws."""
    word, total = 1, 0
    for _ in range(MESSAGES):
        word = (word * 1664525 + 1013904223) & 0xFFFFFFFF
        total = (total + word) & 0xFFFFFFFF
    return total


def report(member: int) -> bytes:
    """What a guest says in the end: those with an even number send."""
    did = "answered" if member % 2 else "sent"
    return f"{did} {MESSAGES} messages, sum {total():08X}\r\n".encode()


@pytest.fixture(scope="module", params=["native", "python"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DevServer]:
    where = tmp_path_factory.mktemp("server") / "socket"
    with devserver(f"unix:{where}", arguments=("--engine", request.param)) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's machine files are."""
    return tmp_path


def machine_file(folder: Path, member: int, box: str = "pair") -> Path:
    """The file of a machine with a mailbox."""
    image = find_guest("mail").path
    path = folder / f"{box}-{member}.toml"
    path.write_text(MACHINE.format(image=image, box=box, member=member))
    return path


def talk(server: DevServer, file: Path) -> tuple[int, bytes]:
    """Runs a machine in this thread: its exit status and what it printed."""
    terminal = Terminal()
    with machine_for(machine_of(str(file)), server=server.address) as made:
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    return result.exit_status, terminal.text


def process_of(server: DevServer, file: Path) -> subprocess.Popen[bytes]:
    """A machine that runs in a process of its own."""
    arguments = ("run", file, "--server", server.address, "--timeout", "40")
    return start(command(*arguments), env=environment(), stdin=subprocess.DEVNULL)


def test_two_machines_of_one_process_exchange_a_thousand_messages_by_interrupts(
    server: DevServer, folder: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(talk, server, machine_file(folder, member)) for member in (0, 1)]
        assert [run.result() for run in runs] == [(0, report(0)), (0, report(1))]


@pytest.mark.process
def test_two_clients_exchange_a_thousand_messages_whoever_comes_first(
    server: DevServer, folder: Path
) -> None:
    for members in ((0, 1), (1, 0)):
        clients = [process_of(server, machine_file(folder, member)) for member in members]
        said = [client.communicate(timeout=AT_MOST_S) for client in clients]
        assert said == [(report(member), b"") for member in members]
        assert [client.returncode for client in clients] == [0, 0]


@pytest.mark.process
def test_pairs_in_different_boxes_do_not_disturb_each_other(
    server: DevServer, folder: Path
) -> None:
    places = [(box, member) for box in ("left", "right") for member in (4, 5)]
    clients = [process_of(server, machine_file(folder, member, box)) for box, member in places]
    said = [client.communicate(timeout=AT_MOST_S)[0] for client in clients]
    assert said == [report(member) for _, member in places]


@pytest.mark.process
def test_a_machine_whose_place_is_taken_is_refused_and_the_one_there_goes_on(
    server: DevServer, folder: Path
) -> None:
    with machine_for(machine_of(str(machine_file(folder, 0))), server=server.address) as first:
        late = process_of(server, machine_file(folder, 0))
        _, why = late.communicate(timeout=AT_MOST_S)
        assert b"member 0 of box 'pair' is taken already, by VM " in why
        with ThreadPoolExecutor() as pool:
            other = pool.submit(talk, server, machine_file(folder, 1))
            assert first.run(timeout_s=AT_MOST_S).exit_status == 0
            assert other.result() == (0, report(1))


@pytest.mark.process
def test_two_mailboxes_of_one_machine_in_the_client_hear_each_other(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(
        tinyguest.write(0x305, 1)
        + tinyguest.write(0x30C, 0)  # rings member 1
        + tinyguest.read(0x328)  # member 1's DOORBELL has the bit of member 0
        + tinyguest.leave_with_al()
    )
    boxes = [f"mailbox,name=m{n},port={0x300 + 0x20 * n:#x},box=here,member={n}" for n in (0, 1)]
    result, _ = run(image, *boxes, placement="local")
    assert result.exit_status == 1
