"""A cluster whose VMs run on different kinds of hypervisors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from environment import GUESTS, Cluster, cluster

pytestmark = [pytest.mark.kvm, pytest.mark.unicorn]

ECHO = GUESTS / "echo.bin"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Cluster]:
    """A server and two client platforms that have both kinds."""
    with cluster(f"unix:{tmp_path}/socket", "alpha", "beta") as made:
        yield made


@pytest.fixture
def emulated(site: Cluster, tmp_path: Path) -> str:
    """An emulated VM that runs on the first of them."""
    machine = tmp_path / "machine.toml"
    machine.write_text(f'[machine]\nhypervisor = "unicorn"\n[image]\npath = "{ECHO}"\n')
    site.does("vm", "launch", machine, "--name", "emulated", "--client", "alpha")
    return "emulated"


def test_vms_of_both_kinds_run_side_by_side_on_one_server(site: Cluster, emulated: str) -> None:
    site.does("vm", "launch", ECHO, "--name", "real", "--client", "alpha")
    for name, kind in ((emulated, "unicorn"), ("real", "kvm")):
        shown = site.does("vm", "show", name)
        assert f"hypervisor {kind}" in " ".join(shown.split())
        with site.console(name) as console:
            console.types(name.encode())
            console.reads(name.encode())


def test_an_emulated_vm_is_resumed_on_another_client(site: Cluster, emulated: str) -> None:
    site.does("vm", "suspend", emulated)
    site.does("vm", "resume", emulated, "--client", "beta")
    with site.console(emulated) as console:
        console.types(b"awake")
        console.reads(b"awake")


def test_an_emulated_vm_that_can_not_migrate_runs_on(site: Cluster, emulated: str) -> None:
    why = site.refuses("vm", "migrate", emulated, "--client", "beta")
    assert "a machine on the hypervisor 'unicorn' can't migrate while it runs" in why
    assert site.state(emulated) == "running"
    with site.console(emulated) as console:
        console.types(b"still here")
        console.reads(b"still here")
