"""Servers that join an owner: real processes, and clients that come to them by both routes."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import (
    AT_MOST_S,
    LATCH,
    LATCH_DEVICE,
    TRIAL,
    TRIAL_DEVICE,
    TRIAL_FILE,
    IoHost,
    Peer,
    Server,
    read,
    run,
    works,
    write,
)

from devserver.protocol.errors import ErrorCode
from devserver.protocol.messages import Attach, Error, Feedback, Finish, Hello, Interrupt, Welcome

pytestmark = pytest.mark.process

ON_IO = replace(LATCH_DEVICE, placement="io")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("owner") / "socket"
    with Server("--route", "relay", "--model", TRIAL_FILE, listen=f"unix:{path}") as running:
        yield running


@pytest.fixture(scope="module")
def io_host(owner: Server) -> Iterator[IoHost]:
    with IoHost(owner, "io", "--model", TRIAL_FILE, listen="tcp://127.0.0.1:0") as running:
        yield running


def elsewhere_of(server: Server, name: str = "io") -> int:
    """The identifier that an owner names for a device placed on an I/O server."""
    with Peer(server) as peer:
        (other,) = peer.attach(replace(LATCH_DEVICE, placement=name)).elsewhere
        return other.server_id


def await_io_server(server: Server, name: str = "io") -> int:
    """Asks until an I/O server is there (it says so by itself, in its own time)."""
    end_s = time.monotonic() + AT_MOST_S
    while time.monotonic() < end_s:
        with Peer(server) as peer:
            peer.say(Hello())
            peer.expect(Welcome)
            peer.say(Attach(1, devices=[replace(LATCH_DEVICE, placement=name)]))
            answer = peer.hear()
            if not isinstance(answer, Error):
                return elsewhere_of(server, name)
    raise AssertionError(f"server '{name}' never came")


def test_a_device_placed_on_another_server_is_named_and_not_made(
    owner: Server, io_host: IoHost
) -> None:
    with Peer(owner) as peer:
        attached = peer.attach(LATCH_DEVICE, replace(ON_IO, name="other"))
    assert [device.name for device in attached.devices] == ["test"]
    assert [(other.name, other.devices) for other in attached.elsewhere] == [("io", ["other"])]


def test_a_connection_through_the_owner_is_the_other_server_s(
    owner: Server, io_host: IoHost
) -> None:
    server_id = elsewhere_of(owner)
    with Peer(owner) as peer:
        peer.say(Hello(server_id=server_id))
        welcome = peer.expect(Welcome)
        assert (welcome.server_id, welcome.name) == (server_id, "io")
        peer.say(Attach(1, devices=[LATCH_DEVICE]))
        peer.hear()
        assert works(peer)


def test_interrupts_come_through_the_owner_before_their_answer(
    owner: Server, io_host: IoHost
) -> None:
    with Peer(owner) as peer:
        peer.attach(TRIAL_DEVICE, server_id=elsewhere_of(owner))
        peer.say(write(TRIAL + 1, 1))
        assert peer.expect(Interrupt).level == 1
        peer.expect(Finish)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_what_is_handed_on_comes_in_order_and_whole(
    owner: Server, io_host: IoHost, values: list[int]
) -> None:
    with Peer(owner) as peer:
        peer.attach(LATCH_DEVICE, server_id=elsewhere_of(owner))
        for value in values:
            peer.say(write(LATCH, value, 4), read(LATCH, 4))
        got = [m for m in (peer.hear() for _ in range(2 * len(values))) if isinstance(m, Feedback)]
    assert [int.from_bytes(m.data, "little") for m in got] == values


def test_a_megabyte_goes_through_while_nobody_reads(owner: Server, io_host: IoHost) -> None:
    with Peer(owner) as peer:
        peer.attach(TRIAL_DEVICE, server_id=elsewhere_of(owner))
        peer.say(*(write(TRIAL + 5, 100) for _ in range(10)))
        finished = 0
        while finished < 10:
            finished += isinstance(peer.hear(), Finish)


def test_a_client_that_goes_is_gone_on_the_other_side(owner: Server, io_host: IoHost) -> None:
    server_id = elsewhere_of(owner)
    for _ in range(2):  # the same VM twice: the first must be forgotten
        with Peer(owner) as peer:
            peer.say(Hello(server_id=server_id))
            peer.expect(Welcome)
            peer.say(Attach(1, vm_id=4711, devices=[LATCH_DEVICE]))
            peer.hear()
            peer.sock.shutdown(socket.SHUT_WR)
            peer.closed()


def test_a_server_that_nobody_knows_is_refused(owner: Server) -> None:
    with Peer(owner) as peer:
        peer.say(Hello(server_id=99))
        assert peer.refused() is ErrorCode.IDENTITY


def test_a_server_can_not_join_under_a_name_that_is_taken(owner: Server, io_host: IoHost) -> None:
    refused = run("host", "--join", owner.address, "--listen", "tcp://127.0.0.1:0", "--name", "io")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "a server named 'io' is here already" in refused.stderr


def test_an_owner_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/nobody"
    refused = run("host", "--join", where, "--listen", "tcp://127.0.0.1:0")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"can't reach the owner at {where}" in refused.stderr


def test_an_io_server_that_dies_leaves_and_ends_what_was_handed_on(where: str) -> None:
    with Server("--route", "relay", listen=where) as owner:
        with IoHost(owner, "io", listen="tcp://127.0.0.1:0") as host, Peer(owner) as peer:
            peer.attach(LATCH_DEVICE, server_id=elsewhere_of(owner))
            host.end(signal.SIGKILL)
            peer.closed()
        with Peer(owner) as peer:
            peer.say(Hello())
            peer.expect(Welcome)
            peer.say(Attach(1, devices=[ON_IO]))
            assert "placed on 'io', and no server of that name" in peer.expect(Error).message


def test_an_io_server_that_hangs_up_on_clients_is_named(where: str) -> None:
    with Server("--route", "relay", listen=where) as owner:
        nowhere = ("--advertise", "tcp://127.0.0.1:1")
        with IoHost(owner, "io", *nowhere, listen="tcp://127.0.0.1:0"), Peer(owner) as peer:
            peer.say(Hello(server_id=elsewhere_of(owner)))
            error = peer.expect(Error)
            assert "I/O server 'io' at tcp://127.0.0.1:1 can't be reached" in error.message


def test_an_io_server_joins_again_when_the_owner_is_back(where: str) -> None:
    with Server(listen=where) as owner:
        host = IoHost(owner, "io", listen="tcp://127.0.0.1:0")
        with host:
            before = elsewhere_of(owner)
            owner.end(signal.SIGKILL)
            with Server(listen=where) as again:
                assert await_io_server(again) == before


def test_further_hosts_end_with_their_owner_however_it_ends(where: str) -> None:
    with Server("--hosts", 2, "--name", "rack", listen=where) as owner:
        await_io_server(owner, "rack-2")
        with Peer(owner) as peer:
            (other,) = peer.attach(replace(LATCH_DEVICE, placement="rack-2")).elsewhere
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(AT_MOST_S)
            sock.connect(other.address.removeprefix("unix:"))
            owner.end(signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):  # it may not have been let in yet
                while sock.recv(65536):  # its last words, and then its end
                    pass
