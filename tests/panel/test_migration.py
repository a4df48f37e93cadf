"""VMs that move from client to client while they run: real agents, real guests."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import io_server
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

ECHO = GUESTS / "echo.bin"
TALLY = GUESTS / "tally.bin"
END = b"\x04"
#: What the guest prints when no access was lost or made twice, however it ran.
SUMS = re.compile(rb"ports ([0-9A-F]{8}) memory ([0-9A-F]{8})\r\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server and two client platforms."""
    with cluster(f"unix:{tmp_path_factory.mktemp('site')}/socket", "alpha", "beta") as made:
        yield made


def launch(site: Cluster, image: Path, name: str, client: str = "alpha") -> None:
    site.does("vm", "launch", image, "--name", name, "--client", client)


def client_of(site: Cluster, vm: str) -> str:
    shown = site.does("vm", "show", vm)
    return next(line.split()[1] for line in shown.splitlines() if line.startswith("client"))


def test_a_running_vm_goes_on_at_another_client(site: Cluster) -> None:
    launch(site, ECHO, "wanderer")
    with site.console("wanderer") as console:
        console.reads(b"ready")
        for number, client in enumerate(("beta", "alpha", "beta")):
            said = site.does("vm", "migrate", "wanderer", "--client", client)
            assert f"'wanderer' is on client '{client}'" in said
            assert "downtime" in said
            console.types(b"%02d" % number)
            console.reads(b"%02d" % number)
        console.types(END)
        assert "the guest ended with status 0" in console.complaint()


def test_nothing_that_is_typed_on_the_way_is_lost(site: Cluster) -> None:
    launch(site, ECHO, "busy")
    with site.console("busy") as console:
        console.reads(b"ready\r\n")
        typed = b""
        for client in ("beta", "alpha"):
            migrating = site.begins("vm", "migrate", "busy", "--client", client)
            while migrating.poll() is None:
                console.types(part := b"%04d" % (len(typed) // 4))
                console.reads(part)
                typed += part
            assert migrating.communicate()[1] == ""
        console.types(END)
        console.complaint()
    assert len(typed) > 8


def test_its_sums_are_right_however_often_it_moves(site: Cluster) -> None:
    launch(site, TALLY, "reference", "beta")
    launch(site, TALLY, "counted")
    with (
        site.console("reference", "--read-only") as reference,
        site.console("counted", "--read-only") as console,
    ):
        for client in itertools.cycle(("beta", "alpha")):
            done = site.run("vm", "migrate", "counted", "--client", client)
            if done.returncode:  # it has come to its end
                assert "stopped" in done.stderr
                break
        texts = [shown.process.communicate()[0] for shown in (reference, console)]
    sums = {match.group() for text in texts if (match := SUMS.search(text))}
    assert len(sums) == 1
    assert all(SUMS.search(text) for text in texts)


def test_its_devices_stay_where_they_are(site: Cluster) -> None:
    launch(site, ECHO, "spread")
    with io_server(site.address, "io"), site.console("spread") as console:
        console.reads(b"ready")
        site.does("device", "move", "spread", "com1", "io")
        before = site.does("device", "list", "spread")
        for number, client in enumerate(("beta", "alpha")):
            site.does("vm", "migrate", "spread", "--client", client)
            assert site.does("device", "list", "spread") == before
            console.types(b"%02d" % number)
            console.reads(b"%02d" % number)


def test_local_devices_go_along(site: Cluster) -> None:
    launch(site, ECHO, "selfish")
    with site.console("selfish") as console:
        console.reads(b"ready")
        site.does("device", "move", "selfish", "com1", "local")
        site.does("vm", "migrate", "selfish", "--client", "beta")
        console.types(b"here")
        console.reads(b"here")


def test_a_paused_vm_moves_and_stays_paused(site: Cluster) -> None:
    launch(site, ECHO, "sleeper")
    site.does("vm", "pause", "sleeper")
    site.does("vm", "migrate", "sleeper", "--client", "beta")
    assert site.state("sleeper") == "paused"
    site.does("vm", "resume", "sleeper")
    with site.console("sleeper") as console:
        console.types(b"awake")
        console.reads(b"awake")


@pytest.mark.parametrize(
    ("client", "why"),
    [("alpha", "is on client 'alpha' already"), ("bata", "did you mean 'beta'?")],
)
def test_a_migration_to_nowhere_is_one_line(site: Cluster, client: str, why: str) -> None:
    launch(site, ECHO, "fixed")
    assert why in site.refuses("vm", "migrate", "fixed", "--client", client)
    assert site.state("fixed") == "running"
    site.does("vm", "kill", "fixed")


def test_a_target_that_hangs_and_dies_leaves_the_vm_where_it_was(site: Cluster) -> None:
    gamma = site.agent("gamma")
    launch(site, ECHO, "safe")
    with site.console("safe") as console:
        console.reads(b"ready")
        gamma.send_signal(signal.SIGSTOP)
        migrating = site.begins("vm", "migrate", "safe", "--client", "gamma")
        site.await_state("safe", "migrating")
        gamma.send_signal(signal.SIGKILL)
        assert "can't be migrated" in migrating.communicate()[1]
        site.await_state("safe", "running")
        assert client_of(site, "safe") == "alpha"
        console.types(b"still here")
        console.reads(b"still here")


def test_a_source_that_dies_loses_the_vm_and_the_target_keeps_nothing(site: Cluster) -> None:
    gamma = site.agent("delta")
    launch(site, ECHO, "unlucky", "delta")
    gamma.send_signal(signal.SIGSTOP)
    migrating = site.begins("vm", "migrate", "unlucky", "--client", "beta")
    site.await_state("unlucky", "migrating")
    gamma.send_signal(signal.SIGKILL)
    assert "can't be migrated" in migrating.communicate()[1]
    assert site.state("unlucky") == "lost"
    launch(site, ECHO, "unlucky", "beta")


@pytest.mark.parametrize("how", ["refuse", "die"])
@pytest.mark.parametrize("operation", ["receive", "memory", "land", "go"])
def test_wherever_it_fails_the_vm_runs_on_where_it_was(
    site: Cluster, operation: str, how: str
) -> None:
    false = f"{operation}-{how}"
    site.fake_agent(false, operation, how)
    launch(site, ECHO, "steady")
    with site.console("steady") as console:
        console.reads(b"ready")
        assert "can't be migrated" in site.refuses("vm", "migrate", "steady", "--client", false)
        site.await_state("steady", "running")
        assert client_of(site, "steady") == "alpha"
        console.types(b"still here")
        console.reads(b"still here")
        site.does("vm", "migrate", "steady", "--client", "beta")
        console.types(b"and there" + END)
        console.reads(b"and there")
        assert "status 0" in console.complaint()


def test_a_device_on_an_io_server_comes_back_too(site: Cluster) -> None:
    site.fake_agent("false", "land", "refuse")
    launch(site, ECHO, "far")
    with io_server(site.address, "io"), site.console("far") as console:
        console.reads(b"ready")
        site.does("device", "move", "far", "com1", "io")
        site.refuses("vm", "migrate", "far", "--client", "false")
        console.types(b"still here")
        console.reads(b"still here")
