"""What the panel keeps in its database: across restarts, in advance, and shared by two servers."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from commandline import AT_MOST_S, children_of, command, environment, read_until, start
from environment import GUESTS, Cluster, cluster
from ownpostgres import PostgreSql
from sqlalchemy import text

from devserver.panel.registry.database import make_engine

ECHO = GUESTS / "echo.bin"
END = b"\x04"

pytestmark = pytest.mark.process


def rows(said: str) -> dict[str, list[str]]:
    """A table that a command printed, by the second column."""
    return {line.split()[1]: line.split() for line in said.splitlines()[1:]}


def await_row(site: Cluster, what: str, name: str, wanted: str) -> None:
    """Asks until a row of a list says something that comes by itself."""
    end_s = time.monotonic() + AT_MOST_S
    while wanted not in rows(site.does(what, "list")).get(name, []):
        assert time.monotonic() < end_s, site.does(what, "list")


# -- across restarts ------------------------------------------------------------------------------


@pytest.mark.kvm
def test_a_server_that_is_killed_knows_its_clients_and_vms_when_it_is_back(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/socket"
    with cluster(where) as site, ExitStack() as later:
        agent = later.enter_context(site.lasting_agent("keeper"))
        site.does("vm", "launch", ECHO, "--name", "old")
        with site.console("old") as console:
            console.reads(b"ready")
        site.server.send(signal.SIGKILL)
        with cluster(where) as again:
            await_row(again, "client", "keeper", "online")
            await_row(again, "vm", "old", "stopped")  # its devices were in the server
            assert "lost the device server" in again.does("vm", "list")
            agent.send_signal(signal.SIGKILL)
            await_row(again, "client", "keeper", "offline")


@pytest.mark.kvm
def test_a_client_tells_what_its_hypervisor_can(tmp_path: Path) -> None:
    with cluster(f"unix:{tmp_path}/socket", "able") as site:
        shown = site.does("client", "show", "able")
        assert "hypervisor   kvm API 12" in shown
        assert "KVM_CAP_IRQCHIP 1" in shown
        assert "no client 'unable'" in site.refuses("client", "show", "unable")


@pytest.mark.kvm
def test_vms_that_clients_run_by_themselves_are_known_while_they_are_attached(
    tmp_path: Path,
) -> None:
    with cluster(f"unix:{tmp_path}/socket") as site:
        with start(command("run", "echo", "--server", site.address)) as guest:
            assert guest.stdout is not None
            read_until(guest.stdout, b"ready")
            assert site.state("echo") == "attached"
            assert "uart16550" in site.does("vm", "show", "echo")
            assert rows(site.does("client", "list"))[socket.gethostname()][3] == "offline"
            assert "run by client" in site.refuses("vm", "pause", "echo")
            guest.kill()
        site.await_state("echo", "")


# -- in advance -----------------------------------------------------------------------------------


@pytest.mark.kvm
def test_only_clients_that_are_registered_may_come_if_that_is_wished(tmp_path: Path) -> None:
    with cluster(f"unix:{tmp_path}/socket", arguments=("--only-registered",)) as site:
        stranger = start(command("agent", "--server", site.address, "--name", "stranger"))
        assert b"devserver client register stranger" in stranger.communicate()[1]
        site.does("client", "register", "friend")
        site.agent("friend")
        assert rows(site.does("client", "list"))["friend"][3] == "online"


@pytest.mark.kvm
def test_a_registered_vm_is_started_again_and_again_and_removed(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/socket"
    with cluster(where) as site:
        site.does("vm", "register", ECHO, "--name", "guest")
        assert site.state("guest") == "defined"
    with cluster(where, "a") as site:
        for _ in range(2):
            site.does("vm", "start", "guest")
            with site.console("guest") as console:
                console.types(END)
                console.complaint()
            assert site.state("guest") == "stopped"
        assert "'devserver vm start guest'" in site.refuses("vm", "launch", ECHO, "--name", "guest")
        site.does("vm", "remove", "guest")
        assert site.state("guest") == ""
        assert "there is no VM 'guest'" in site.refuses("vm", "start", "guest")


# -- two servers ----------------------------------------------------------------------------------


@contextmanager
def two_servers(folder: Path, url: str) -> Iterator[tuple[Cluster, Cluster]]:
    """Two servers that share a registry."""
    with ExitStack() as stack:
        made = []
        for name in ("one", "two"):
            arguments = ("--registry", url, "--name", name)
            made.append(stack.enter_context(cluster(f"unix:{folder}/{name}", arguments=arguments)))
        yield made[0], made[1]


@pytest.mark.kvm
@pytest.mark.postgresql
def test_two_servers_share_a_database(tmp_path: Path, own_postgresql: PostgreSql) -> None:
    with two_servers(tmp_path, own_postgresql.new_database()) as (one, two):
        one.agent("a")
        two.agent("b")
        one.does("vm", "launch", ECHO, "--name", "guest")
        await_row(two, "server", "one", "up")
        numbers = {row[0] for row in rows(two.does("server", "list")).values()}
        assert len(numbers) == 2
        await_row(two, "vm", "guest", "running")
        assert "server 'one' has it" in two.refuses("vm", "launch", ECHO, "--name", "guest")
        assert "managed by server 'one'" in two.refuses("vm", "pause", "guest")
        again = start(command("agent", "--server", two.address, "--name", "a"))
        assert b"connected to server 'one'" in again.communicate()[1]


@pytest.mark.kvm
@pytest.mark.postgresql
def test_a_vm_that_one_server_suspended_goes_on_at_the_other(
    tmp_path: Path, own_postgresql: PostgreSql
) -> None:
    with two_servers(tmp_path, own_postgresql.new_database()) as (one, two):
        one.agent("a")
        two.agent("b")
        one.does("vm", "launch", ECHO, "--name", "guest")
        with one.console("guest") as console:
            console.reads(b"ready")
        one.does("vm", "suspend", "guest")
        await_row(two, "vm", "guest", "suspended")
        two.does("vm", "resume", "guest")
        with two.console("guest") as console:
            console.types(b"over here")
            console.reads(b"over here")
        await_row(one, "vm", "guest", "two")
        assert "server 'two' has it" in one.refuses("vm", "resume", "guest")


@pytest.mark.kvm
@pytest.mark.postgresql
def test_the_vms_of_a_server_that_is_killed_are_nobody_s_to_resume(
    tmp_path: Path, own_postgresql: PostgreSql
) -> None:
    url = own_postgresql.new_database()
    with two_servers(tmp_path, url) as (one, two):
        one.agent("a")
        two.agent("b")
        for name in ("runs", "stands"):
            one.does("vm", "launch", ECHO, "--name", name)
        one.does("vm", "pause", "stands")
        one.does("vm", "launch", "hello", "--wait")
        await_row(two, "vm", "stands", "paused")
        assert f"ask that: --server {one.address}" in two.refuses("vm", "pause", "runs")
        for process in (*children_of(one.server.process.pid), one.server.process.pid):
            os.kill(process, signal.SIGKILL)  # its panel first: it can't write how that was
        long_ago(url, "one")
        for name in ("runs", "stands"):
            await_row(two, "vm", name, "unreachable")
            assert "that server is down" in two.refuses("vm", "resume", name)
            assert "server 'one' is down; it was" in two.does("vm", "show", name)
        assert rows(two.does("vm", "list"))["hello"][2] == "stopped"
        assert rows(two.does("client", "list"))["a"][3] == "offline"


def long_ago(url: str, server: str) -> None:
    """A server was heard of last a long time ago: nobody has to wait for that."""
    engine = make_engine(url)
    with engine.begin() as connection:
        changed = "UPDATE servers SET heard = '2020-01-01 00:00:00+00' WHERE name = :name"
        connection.execute(text(changed), {"name": server})
    engine.dispose()


@pytest.mark.kvm
def test_a_paused_vm_whose_server_is_lost_has_ended(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/socket"
    with cluster(where) as site, ExitStack() as later:
        later.enter_context(site.lasting_agent("keeper"))
        site.does("vm", "launch", ECHO, "--name", "stands")
        site.does("vm", "pause", "stands")
        site.server.send(signal.SIGKILL)
        with cluster(where) as again:
            await_row(again, "client", "keeper", "online")
            again.refuses("vm", "resume", "stands")
            again.await_state("stands", "stopped")


# -- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_server_does_not_start_with_a_registry_that_it_can_t_use(
    tmp_path: Path, by_variable: bool
) -> None:
    where, url = ("--listen", f"unix:{tmp_path}/socket"), "sqlite:////nowhere/registry.db"
    arguments = () if by_variable else ("--registry", url)
    variables = {**environment(), "KVMSHIM_REGISTRY": url if by_variable else "sqlite://"}
    process = start(command("serve", *where, *arguments, program="devserver"), env=variables)
    said = process.communicate()[1].decode()
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert "can't be opened" in said


def test_a_registry_named_by_the_environment_is_in_no_command_line(tmp_path: Path) -> None:
    where, path = f"unix:{tmp_path}/socket", tmp_path / "registry.db"
    variables = {**environment(), "KVMSHIM_REGISTRY": f"sqlite:///{path}"}
    server = start(command("serve", "--listen", where, program="devserver"), env=variables)
    with server:
        try:
            assert server.stdout is not None
            read_until(server.stdout, b"\n")
            asked = command("vm", "list", "--server", where, program="devserver")
            assert start(asked).wait(AT_MOST_S) == 0
            assert path.exists()
            lines = [line.read_bytes() for line in Path("/proc").glob("[0-9]*/cmdline")]
            assert not [line for line in lines if bytes(path) in line]
        finally:
            server.terminate()


def test_who_comes_is_told_that_the_registry_is_locked_until_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    where = f"unix:{tmp_path}/socket"
    with cluster(where, arguments=("--registry", f"sqlite:///{path}")) as site:
        assert site.does("vm", "list").count("\n") == 1
        with closing(sqlite3.connect(path)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            assert "is locked by another program" in site.refuses("vm", "list")
        assert site.does("vm", "list").count("\n") == 1


@pytest.mark.kvm
@pytest.mark.postgresql
def test_vms_run_on_while_the_registry_can_t_be_had_and_it_is_told_afterwards(
    tmp_path: Path, own_postgresql: PostgreSql
) -> None:
    with cluster(
        f"unix:{tmp_path}/socket", "a", arguments=("--registry", own_postgresql.new_database())
    ) as site:
        site.does("vm", "launch", ECHO, "--name", "guest")
        with site.console("guest") as console:
            console.reads(b"ready")
            own_postgresql.stop()
            assert "can't be reached" in site.refuses("vm", "launch", ECHO, "--name", "second")
            console.types(b"still here")
            console.reads(b"still here")
            site.does("vm", "pause", "guest")
            own_postgresql.start_again()
            await_row(site, "vm", "guest", "paused")
