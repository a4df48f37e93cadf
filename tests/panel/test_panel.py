"""VMs managed from the server's side: real agents, real guests."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from commandline import children_of, io_server, kvmshim, the_line
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

ECHO = GUESTS / "echo.bin"
END = b"\x04"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server and two client platforms."""
    with cluster(f"unix:{tmp_path_factory.mktemp('site')}/socket", "alpha", "beta") as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A server of the test's own, without agents."""
    with cluster(f"unix:{tmp_path}/socket") as made:
        yield made


def launch(site: Cluster, name: str, client: str = "alpha") -> None:
    said = site.does("vm", "launch", ECHO, "--name", name, "--client", client)
    assert f"'{name}' runs on client '{client}'" in said


def test_a_vm_is_launched_typed_to_and_ends(site: Cluster) -> None:
    launch(site, "one")
    with site.console("one") as console:
        console.reads(b"ready\r\n")
        console.types(b"abc")
        console.reads(b"abc")
        console.types(END)
        assert "the guest ended with status 0" in console.complaint()
    assert site.state("one") == "stopped"


def test_a_vm_is_spread_to_where_the_fewest_run(own: Cluster) -> None:
    own.agent("a")
    own.agent("b")
    said = [own.does("vm", "launch", ECHO, "--name", f"vm{n}") for n in range(4)]
    assert sorted(line.split("client ")[1] for line in said) == ["'a'\n"] * 2 + ["'b'\n"] * 2
    assert own.does("client", "list").count("online") == 2


def test_a_machine_file_goes_along_with_its_image(site: Cluster, tmp_path: Path) -> None:
    machine = tmp_path / "small.toml"
    machine.write_text(f'[machine]\nmemory = "2M"\n[image]\npath = "{GUESTS}/echo.bin"\n')
    site.does("vm", "launch", machine)
    shown = site.does("vm", "show", "small")
    assert "memory       2M" in shown
    assert "com1" in shown
    site.does("vm", "shutdown", "small")


def test_a_vm_that_is_suspended_goes_on_on_another_client(site: Cluster) -> None:
    launch(site, "mover", "alpha")
    with site.console("mover") as console:
        console.reads(b"ready")
        console.types(b"before")
        console.reads(b"before")
    assert "is suspended" in site.does("vm", "suspend", "mover")
    assert "is running" in site.does("vm", "resume", "mover", "--client", "beta")
    assert "client       beta" in site.does("vm", "show", "mover")
    with site.console("mover") as console:
        console.types(b"after" + END)
        console.reads(b"after")
        assert "status 0" in console.complaint()


def test_a_vm_stands_still_while_it_is_paused(site: Cluster) -> None:
    launch(site, "still")
    site.does("vm", "pause", "still")
    assert site.state("still") == "paused"
    assert "it can't be paused" in site.refuses("vm", "pause", "still")
    site.does("vm", "resume", "still")
    with site.console("still") as console:
        console.types(b"x" + END)
        console.reads(b"x")
        console.complaint()


def test_a_device_moves_while_its_guest_runs(own: Cluster) -> None:
    own.agent("a")
    launch(own, "lively", "a")
    with io_server(own.address, "io"), own.console("lively") as console:
        console.reads(b"ready")
        for number, place in enumerate([*["io", "local", "devserver"] * 4, "io"]):
            own.does("device", "move", "lively", "com1", place)
            console.types(b"%02d" % number)
            console.reads(b"%02d" % number)
        shown = own.does("device", "list", "lively")
        assert any("com1" in line and "'io'" in line for line in shown.splitlines())
        assert own.state("lively") == "running"
        console.types(END)
        console.complaint()


def test_a_device_goes_to_places_that_there_are(site: Cluster) -> None:
    launch(site, "fixed")
    why = site.refuses("device", "move", "fixed", "com1", "locale")
    assert "'locale' is no place for a device; did you mean 'local'?" in why
    assert "no device 'com7'" in site.refuses("device", "move", "fixed", "com7", "local")
    assert "is on devserver already" in site.refuses("device", "move", "fixed", "com1", "devserver")
    site.does("vm", "shutdown", "fixed")


def test_what_was_refused_is_counted(own: Cluster) -> None:
    assert "refused" not in own.does("server", "list")
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(own.address.removeprefix("unix:"))
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(4096):
                pass
    assert "messages refused by the owner: malformed 3" in own.does("server", "list")


def test_many_look_and_one_types(site: Cluster) -> None:
    launch(site, "shown")
    with (
        site.console("shown") as writer,
        site.console("shown", "--read-only") as viewer,
    ):
        writer.reads(b"ready")
        viewer.reads(b"ready")
        with site.console("shown") as second:
            assert "somebody else types on the console" in second.complaint()
        writer.types(b"both see this")
        writer.reads(b"both see this")
        viewer.reads(b"both see this")
    site.does("vm", "kill", "shown")
    assert site.state("shown") == "stopped"


def test_a_vm_is_launched_once(site: Cluster) -> None:
    launch(site, "single")
    why = site.refuses("vm", "launch", ECHO, "--name", "single")
    assert "VM 'single' is there already: it is running on client 'alpha'" in why
    site.does("vm", "shutdown", "single")
    launch(site, "single")
    site.does("vm", "shutdown", "single")


def test_a_launch_that_fails_says_why_and_leaves_it_on_record(
    site: Cluster, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.bin"
    empty.write_bytes(b"")
    why = site.refuses("vm", "launch", empty, "--client", "beta")
    assert "VM 'empty' can't be launched" in why
    assert site.state("empty") == "failed"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("vm", "show", "nobody"), "there is no VM 'nobody'"),
        (("vm", "launch", "/nowhere.bin"), "can't read image /nowhere.bin"),
        (("vm", "launch", ECHO, "--client", "alhpa"), "did you mean 'alpha'"),
        (("vm", "resume", "nobody"), "there is no VM 'nobody'"),
    ],
)
def test_a_mistake_is_one_line(site: Cluster, arguments: tuple[str, ...], why: str) -> None:
    assert why in site.refuses(*arguments)


def test_without_agents_nothing_is_launched(own: Cluster) -> None:
    assert "kvmshim agent" in own.refuses("vm", "launch", ECHO)


def test_a_second_agent_of_one_name_is_refused(own: Cluster) -> None:
    own.agent("same")
    refused = kvmshim("agent", "--server", own.address, "--name", "same")
    assert refused.returncode == 115
    assert "a client named 'same' is connected already" in the_line(refused)


def test_an_agent_that_dies_loses_its_vms_and_their_names_are_free(own: Cluster) -> None:
    agent = own.agent("brief")
    launch(own, "victim", "brief")
    with own.console("victim") as console:
        console.reads(b"ready")
        agent.send_signal(signal.SIGKILL)
        assert "client 'brief' is gone" in console.complaint()
    assert own.state("victim") == "lost"
    own.agent("brief")
    launch(own, "victim", "brief")


def test_an_agent_that_dies_while_a_vm_is_suspended_does_not_take_it_along(own: Cluster) -> None:
    agent = own.agent("first")
    launch(own, "kept", "first")
    own.does("vm", "suspend", "kept")
    agent.send_signal(signal.SIGKILL)
    own.agent("second")
    assert "is running" in own.does("vm", "resume", "kept")
    assert "client       second" in own.does("vm", "show", "kept")


def test_vms_end_with_their_agent(own: Cluster) -> None:
    agent = own.agent("polite")
    launch(own, "guest", "polite")
    agent.send_signal(signal.SIGTERM)
    agent.communicate()
    own.await_state("guest", "lost")


def test_a_panel_that_dies_comes_back_and_learns_from_the_agents(own: Cluster) -> None:
    own.agent("steady")
    launch(own, "running", "steady")
    (panel,) = children_of(own.server.process.pid)
    os.kill(panel, signal.SIGKILL)
    own.await_state("running", "running")
    with own.console("running") as console:
        console.reads(b"ready")


# -- what is kept ---------------------------------------------------------------------------------


def suspended(where: str, url: str) -> None:
    """A server that suspends a VM called 'kept', and is killed."""
    with cluster(where, "old", arguments=("--registry", url)) as site:
        launch(site, "kept", "old")
        with site.console("kept") as console:
            console.reads(b"ready")
        site.does("vm", "suspend", "kept")


def test_a_suspended_vm_outlives_its_server(tmp_path: Path) -> None:
    where, url = f"unix:{tmp_path}/socket", f"sqlite:///{tmp_path}/registry.db"
    suspended(where, url)
    with cluster(where, "new", arguments=("--registry", url)) as site:
        assert site.state("kept") == "suspended"
        assert "is running" in site.does("vm", "resume", "kept")
        with site.console("kept") as console:
            console.types(b"again" + END)
            console.reads(b"again")
            assert "status 0" in console.complaint()


def test_a_state_that_is_no_good_is_refused_and_kept(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    with cluster(f"unix:{tmp_path}/socket", "a", arguments=("--registry", url)) as site:
        launch(site, "kept", "a")
        site.does("vm", "suspend", "kept")
        with closing(sqlite3.connect(tmp_path / "registry.db")) as database:
            ((whole,),) = database.execute("SELECT data FROM blobs WHERE what = 'state'")
            for part, why in (
                (whole[:-100], "truncated"),
                (whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], "damaged"),
                (whole[:8] + (99).to_bytes(4, "little") + whole[12:], "99"),
            ):
                database.execute("UPDATE blobs SET data = ? WHERE what = 'state'", (part,))
                database.commit()
                assert why in site.refuses("vm", "resume", "kept")
                assert site.state("kept") == "suspended"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[[module]]\npath = 'env'\n", "has modules: only the image is sent"),
        (
            "[[device]]\nname = 'fw_cfg'\n[device.options.files]\na = { path = 'x' }\n",
            "has files of device 'fw_cfg' by path: only the image is sent",
        ),
    ],
)
def test_a_machine_whose_further_files_are_not_sent_is_refused(
    site: Cluster, text: str, what: str, tmp_path: Path
) -> None:
    machine = tmp_path / "machine.toml"
    machine.write_text(f"[image]\npath = '{ECHO}'\n{text}")
    assert what in site.refuses("vm", "launch", machine)
