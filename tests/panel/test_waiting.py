"""Launches that are waited for, guests by name, and what is said of how a VM ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tinyguest
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

ECHO = GUESTS / "echo.bin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(f"unix:{tmp_path_factory.mktemp('site')}/socket", "a") as made:
        yield made


def shown(site: Cluster, vm: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.does("vm", "show", vm, "--json"))
    return found


@pytest.mark.parametrize("status", [0, 7])
def test_a_launch_that_waits_has_the_guest_s_status(
    site: Cluster, tmp_path: Path, status: int
) -> None:
    image = tmp_path / f"leaves{status}.bin"
    image.write_bytes(tinyguest.leave(status))
    done = site.run("vm", "launch", image, "--wait")
    assert (done.returncode, done.stderr) == (status, "")
    assert f"the guest ended with status {status}" in done.stdout
    assert site.run("vm", "wait", image.stem).returncode == status
    assert shown(site, image.stem)["exit_status"] == status
    assert image.stem not in site.does("client", "list", "--json")


def test_a_bundled_guest_is_launched_by_its_name(site: Cluster, tmp_path: Path) -> None:
    assert site.run("vm", "launch", "hello", "--wait").returncode == 0
    machine = tmp_path / "mine.toml"
    machine.write_text('[image]\npath = "hello"\n')
    assert site.run("vm", "launch", machine, "--wait").returncode == 0
    why = site.run("vm", "launch", "helo").stderr
    assert "did you mean 'hello'" in why


def test_a_killed_vm_is_recorded_as_killed(site: Cluster) -> None:
    site.does("vm", "launch", ECHO, "--name", "victim")
    site.does("vm", "kill", "victim")
    assert (shown(site, "victim")["state"], shown(site, "victim")["why"]) == ("stopped", "killed")


def test_a_mistake_in_a_machine_file_is_named_with_the_user_s_path(
    site: Cluster, tmp_path: Path
) -> None:
    machine = tmp_path / "wrong.toml"
    machine.write_text(f'[image]\npath = "{ECHO}"\n[machine]\nmemroy = "1M"\n')
    why = site.refuses("vm", "launch", machine)
    assert f"{machine}:4" in why
    assert "kvmshim-agent-" not in why
    empty = tmp_path / "empty.bin"
    empty.write_bytes(b"")
    why = site.refuses("vm", "launch", empty)
    assert str(empty) in why
    assert "kvmshim-agent-" not in why


def test_a_device_goes_to_the_owner_by_the_word_for_it(site: Cluster) -> None:
    site.does("vm", "launch", ECHO, "--name", "mover")
    site.does("device", "move", "mover", "com1", "local")
    site.does("device", "move", "mover", "com1", "server")
    site.does("vm", "shutdown", "mover")
