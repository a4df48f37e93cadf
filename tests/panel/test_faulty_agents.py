"""Agents that vanish in the middle of something, or say what is not so: what becomes of the VMs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

ECHO = GUESTS / "echo.bin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(f"unix:{tmp_path_factory.mktemp('site')}/socket", "good") as made:
        yield made


def launch(site: Cluster, name: str, client: str = "good") -> None:
    site.does("vm", "launch", ECHO, "--name", name, "--client", client)


def works(site: Cluster, name: str) -> None:
    """A VM's guest answers; then it is ended."""
    with site.console(name) as console:
        console.types(b"x")
        console.reads(b"x")
    site.does("vm", "kill", name)


def test_an_agent_that_vanishes_in_a_launch_loses_the_vm_and_leaves_its_name(site: Cluster) -> None:
    site.fake_agent("bad-launch", "launch", "die")
    why = site.refuses("vm", "launch", ECHO, "--name", "one", "--client", "bad-launch")
    assert "VM 'one' can't be launched: the connection was lost" in why
    assert site.state("one") == "lost"
    launch(site, "one")
    works(site, "one")


def test_an_agent_that_vanishes_in_a_suspension_loses_the_vm(site: Cluster) -> None:
    site.fake_agent("bad-suspend", "suspend", "die", "700", "two")
    assert site.state("two") == "running"
    assert "VM 'two' can't be suspended: the connection" in site.refuses("vm", "suspend", "two")
    assert site.state("two") == "lost"
    assert "no state of it is kept" in site.refuses("vm", "resume", "two")


def test_an_agent_that_refuses_to_suspend_keeps_the_vm(site: Cluster) -> None:
    site.fake_agent("lazy", "suspend", "refuse", "701", "three")
    assert "no suspend here" in site.refuses("vm", "suspend", "three")
    assert site.state("three") == "running"


@pytest.mark.parametrize("how", ["refuse", "die"])
def test_a_vm_that_could_not_be_resumed_somewhere_is_resumed_elsewhere(
    site: Cluster, how: str
) -> None:
    site.fake_agent(f"bad-restore-{how}", "restore", how)
    launch(site, "four")
    with site.console("four") as console:
        console.reads(b"ready")
    site.does("vm", "suspend", "four")
    why = site.refuses("vm", "resume", "four", "--client", f"bad-restore-{how}")
    assert "VM 'four' can't be resumed" in why
    assert site.state("four") == "suspended"
    site.does("vm", "resume", "four", "--client", "good")
    works(site, "four")


def test_a_vm_that_two_clients_claim_is_the_first_one_s(site: Cluster) -> None:
    launch(site, "five")
    shown = site.does("vm", "show", "five")
    vm_id = next(line.split()[1] for line in shown.splitlines() if line.startswith("vm_id"))
    said = site.fake_agent("impostor", "go", "refuse", vm_id, "five")
    assert f"must let go: [{vm_id}]".encode() in said
    assert "client       good" in site.does("vm", "show", "five")
    works(site, "five")


def test_a_vm_whose_name_is_another_s_by_now_is_let_go(site: Cluster) -> None:
    launch(site, "six")
    said = site.fake_agent("late", "go", "refuse", "702", "six")
    assert b"must let go: [702]" in said
    works(site, "six")


def test_a_vm_whose_number_is_another_s_in_a_new_registry_is_not_ended(site: Cluster) -> None:
    launch(site, "seven")
    shown = site.does("vm", "show", "seven")
    vm_id = next(line.split()[1] for line in shown.splitlines() if line.startswith("vm_id"))
    said = site.fake_agent("of-old", "go", "refuse", vm_id, "of-another-registry")
    assert b"must let go: []" in said
    works(site, "seven")
