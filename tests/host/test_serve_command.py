"""The life of ``devserver serve``: where it listens, whom it gives up, how it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import AT_MOST_S, LATCH_DEVICE, ROOT, Peer, Server, run, works

from devserver.protocol import limits
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Busy, Error, Hello, Ping, Pong, Welcome

pytestmark = pytest.mark.process


def one_line(text: str) -> str:
    """``text`` without its only line's end; fails if it is anything but one line of the command."""
    assert text.startswith("devserver: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text[:-1]


# -- how many -------------------------------------------------------------------------------------


def test_a_client_too_many_is_told_so_and_a_free_place_is_given(where: str) -> None:
    with Server("--max-clients", 2, listen=where) as server, Peer(server) as one:
        one.attach(LATCH_DEVICE)
        with Peer(server) as two:
            two.attach(LATCH_DEVICE)
            with Peer(server) as three:
                assert three.expect(Busy).message == "all 2 places of this server are taken"
                three.closed()
            assert works(one)
            assert works(two)
            two.sock.shutdown(socket.SHUT_WR)
            two.closed()  # now the server has forgotten it
        with Peer(server) as four:
            four.attach(LATCH_DEVICE)


@pytest.mark.parametrize("engine", ["native", "python"])
def test_a_server_out_of_descriptors_serves_on_and_takes_clients_when_it_can(
    where: str, engine: str
) -> None:
    with Server("--engine", engine, listen=where) as server:
        with Peer(server) as one:
            one.attach(LATCH_DEVICE)
            open_files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (open_files,) * 2)
            with Peer(server) as two:  # waits to be accepted
                for value in range(50):
                    assert works(one, value)
                one.sock.shutdown(socket.SHUT_WR)
                one.closed()
                two.attach(LATCH_DEVICE)
        server.end()
        assert 1 <= server.errors().count("can't accept a client: Too many open files") < 20


# -- signs of life --------------------------------------------------------------------------------


@pytest.fixture(params=["adaptive", "spin", "block"])
def impatient(request: pytest.FixtureRequest, where: str) -> Iterator[Server]:
    """A server that wants to hear from its clients several times a second."""
    patience = ("--heartbeat", 0.05, "--deadline", 0.5, "--wait", request.param)
    with Server(*patience, listen=where) as server:
        yield server


def test_a_silent_client_is_asked_and_then_given_up(impatient: Server) -> None:
    with Peer(impatient) as peer:
        peer.attach(LATCH_DEVICE)
        assert peer.hear() == Ping(0)
        assert peer.refused() is ErrorCode.TIMEOUT


def test_a_client_that_never_greets_is_given_up(impatient: Server) -> None:
    with Peer(impatient) as peer:
        peer.connection.send(Hello())  # it only believes that it greeted
        assert peer.refused() is ErrorCode.TIMEOUT


def test_a_client_that_shows_signs_of_life_is_kept(impatient: Server) -> None:
    with Peer(impatient) as peer:
        peer.attach(LATCH_DEVICE)
        for _ in range(12):  # a good deal longer than the deadline
            assert peer.hear() == Ping(0)
            peer.say(Pong(0, peer.connection.received))
        assert works(peer)


def test_the_client_is_told_how_often_it_is_to_be_heard(impatient: Server) -> None:
    with Peer(impatient) as peer:
        peer.say(Hello())
        welcome = peer.expect(Welcome)
        assert (welcome.heartbeat_ns, welcome.deadline_ns) == (50_000_000, 500_000_000)


# -- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", ["adaptive", "spin", "block"])
def test_a_signal_ends_the_server_in_good_order(
    where: str, number: signal.Signals, wait: str
) -> None:
    path = Path(where.removeprefix("unix:"))
    with Server("--wait", wait, listen=where) as server, Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        assert works(peer)
        assert path.is_socket()
        assert server.end(number) == 0
        assert peer.refused() is ErrorCode.SHUTDOWN
        assert not path.exists()
        assert server.errors() == ""


def test_a_signal_ends_a_server_that_has_only_just_begun_to_listen(where: str) -> None:
    with Server(listen=where) as server:
        assert server.end() == 0
        assert not Path(where.removeprefix("unix:")).exists()


# -- where ----------------------------------------------------------------------------------------


def test_a_free_port_is_chosen_and_told() -> None:
    with Server(listen="tcp://127.0.0.1:0") as server, Peer(server) as peer:
        assert not server.address.endswith(":0")
        peer.attach(LATCH_DEVICE)


def test_a_server_listens_in_several_places(where: str, tmp_path: Path) -> None:
    with Server("--listen", f"unix:{tmp_path}/too", listen=where) as server:
        for address in (where, f"unix:{tmp_path}/too"):
            server.address = address
            with Peer(server) as peer:
                peer.attach(LATCH_DEVICE)


def test_the_socket_that_a_killed_server_left_is_replaced(where: str) -> None:
    with Server(listen=where) as killed:
        assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    assert Path(where.removeprefix("unix:")).is_socket()
    with Server(listen=where) as server, Peer(server) as peer:
        peer.attach(LATCH_DEVICE)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_an_address_where_a_server_listens_is_refused(kind: str, where: str) -> None:
    wanted = where if kind == "unix" else "tcp://127.0.0.1:0"
    with Server(listen=wanted) as server:
        refused = run("serve", "--listen", server.address)
        assert refused.returncode == 1
        assert "another process listens there already" in one_line(refused.stderr)
        with Peer(server) as peer:
            peer.attach(LATCH_DEVICE)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("do not lose me")
    refused = run("serve", "--listen", f"unix:{path}")
    assert refused.returncode == 1
    assert f"unix:{path}: what is there is no socket" in one_line(refused.stderr)
    assert path.read_text() == "do not lose me"
    assert stat.S_ISREG(path.stat().st_mode)


def test_a_server_that_can_t_listen_everywhere_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "no" / "such" / "folder"
    refused = run("serve", "--listen", f"unix:{first}", "--listen", f"unix:{second}")
    assert refused.returncode == 1
    assert "No such file or directory (ENOENT)" in one_line(refused.stderr)
    assert not first.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["--listen", "here"], 113, "neither tcp://HOST:PORT nor unix:PATH"),
        (["--listen", "tcp://host.invalid:1"], 1, "check the host name"),
        (["--listen", "unix:x", "--heartbeat", "5", "--deadline", "5"], 113, "must be longer"),
        (["--fd", "987"], 1, "descriptor 987 is not a socket: Bad file descriptor"),
        ([], 113, "one of the arguments --listen --fd is required"),
        (["--listen", "unix:x", "--window", "0"], 113, "'0' is not a positive whole number"),
        (["--listen", "unix:x", "--heartbeat", "nan"], 113, "'nan' is not between"),
        (["--listen", "unix:x", "--wait", "long"], 113, "invalid choice: 'long'"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(arguments: list[str], status: int, why: str) -> None:
    refused = run("serve", *arguments)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1


MODEL_FILES: dict[str, tuple[str | None, str]] = {
    "missing.py": (None, "can't be read: No such file or directory"),
    "wrong.py": ("import devserver\nclass (:\n", ":2: SyntaxError: "),
    "raises.py": ("x = 1\n\nraise ValueError('no\\nway')\n", ":3: ValueError: no"),
    "leaves.py": ("import sys\nsys.exit(3)\n", ":2: SystemExit: 3"),
    "empty.py": ("", "defines no Device with a kind"),
    "model.txt": ("", "its name must end in .py"),
    "bytes.py": ("x = '\0'\n", "null bytes"),
}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_model_file_that_can_t_be_used_is_named_in_one_line(
    tmp_path: Path, where: str, name: str
) -> None:
    text, why = MODEL_FILES[name]
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    refused = run("serve", "--listen", where, "--model", path)
    assert refused.returncode == 113
    message = one_line(refused.stderr)
    assert str(path) in message
    assert why in message


def test_a_long_complaint_reaches_the_client_of_a_server_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("raise ValueError('x' * 100_000)\n")
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(AT_MOST_S)
        command = [sys.executable, "-m", "devserver", "serve", "--fd", str(far.fileno())]
        subprocess.run(
            [*command, "--model", str(path)],
            pass_fds=[far.fileno()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
            timeout=AT_MOST_S,
        )
        (error,) = Connection(Role.CLIENT).receive(near.recv(1 << 17))
    assert isinstance(error, Error)
    assert error.message.startswith(f"{path}:1: ValueError: xxx")
    assert len(error.message) <= limits.MAX_TEXT_BYTES
