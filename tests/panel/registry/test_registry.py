"""What the registry keeps, and what it grants once only, on both databases."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from ownpostgres import PostgreSql

from devserver.panel.fleet import KEPT_ENDED
from devserver.panel.registry.blobs import IMAGE, PART_BYTES, STATE
from devserver.panel.registry.errors import RegistryError, Taken
from devserver.panel.registry.registry import Registry

KVM = {"kind": "kvm", "version": "API 12", "capabilities": {"KVM_CAP_IRQCHIP": 1}}
UART = {"name": "com1", "kind": "uart16550", "version": 1, "place": "devserver"}


class Tomorrow(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=1)


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with closing(Registry(url, "one")) as made:
        made.server_up("tcp://one:7000")
        yield made


@pytest.fixture
def other(url: str, registry: Registry) -> Iterator[Registry]:
    """The same, of another server."""
    with closing(Registry(url, "two")) as made:
        made.server_up("tcp://two:7000")
        yield made


def shown(vm_id: int, state: str, **more: Any) -> dict[str, Any]:
    plain = {"client": "a", "hypervisor": "kvm", "why": "", "memory_bytes": 4096, "devices": []}
    return {"vm_id": vm_id, "state": state, **plain, **more}


def test_what_was_written_is_there_for_the_next_one(url: str, registry: Registry) -> None:
    registry.client_came("a", "host", [KVM])
    vm_id = registry.new_vm("vm", "a")
    registry.save_vms([shown(vm_id, "paused", devices=[UART])])
    with closing(Registry(url, "one")) as again:
        (vm,) = again.vms()
        assert (vm["name"], vm["state"], vm["devices"]) == ("vm", "paused", [UART])
        (client,) = again.clients()
        assert (client["name"], client["hypervisors"]) == ("a", [KVM])


def test_what_a_vm_exited_with_is_known_to_all_until_it_is_placed_again(
    registry: Registry, other: Registry
) -> None:
    vm_id = registry.new_vm("vm", "a")
    registry.save_vms([shown(vm_id, "stopped", exit_status=33)])
    assert other.vms()[0]["exit_status"] == 33
    registry.place_vm(vm_id, "a", "launching")
    assert other.vms()[0]["exit_status"] is None


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.postgresql
def test_a_host_whose_clock_is_wrong_takes_no_other_server_for_down(
    own_postgresql: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_postgresql.new_database()
    with closing(Registry(url, "one")) as one, closing(Registry(url, "two")) as two:
        one.server_up("tcp://one:7000")
        monkeypatch.setattr("devserver.panel.registry.clock.datetime", Tomorrow)
        assert [server["up"] for server in two.servers()] == [True]
        two.server_up("tcp://two:7000")
        monkeypatch.undo()
        assert [server["up"] for server in one.servers()] == [True, True]


def test_servers_have_numbers_of_their_own_and_keep_them(
    registry: Registry, other: Registry
) -> None:
    first, second = registry.server_up("tcp://one:7000"), other.server_up("tcp://two:7000")
    assert first != second
    other.server_down()
    assert other.server_up("tcp://elsewhere:7000") == second


def test_a_server_s_name_is_one_server_s(url: str, registry: Registry) -> None:
    with closing(Registry(url, "one")) as impostor, pytest.raises(Taken, match="tcp://one:7000"):
        impostor.server_up("tcp://another:7000")


def test_io_servers_come_and_go(registry: Registry) -> None:
    registry.heard([{"name": "io", "address": "tcp://io:1"}])
    registry.heard([])
    states = {row["name"]: (row["up"], row["owner"]) for row in registry.servers()}
    assert states == {"one": (True, ""), "io": (False, "one")}


# -- clients --------------------------------------------------------------------------------------


def test_a_client_has_one_number_however_often_it_comes(registry: Registry) -> None:
    number = registry.register_client("a")
    assert registry.client_came("a", "host", [KVM]) == number
    registry.client_went("a")
    assert registry.client_came("a", "host", [], only_registered=True) == number
    assert registry.clients()[0]["hypervisors"] == []


def test_a_stranger_may_be_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="devserver client register a"):
        registry.client_came("a", "host", [], only_registered=True)


def test_a_client_is_connected_to_one_server(registry: Registry, other: Registry) -> None:
    registry.client_came("a", "host", [])
    with pytest.raises(Taken, match="connected to server 'one'"):
        other.client_came("a", "host", [])
    registry.server_down()
    other.client_came("a", "host", [])


# -- VMs ------------------------------------------------------------------------------------------


def test_a_vm_s_name_stands_for_one_vm_on_all_servers(registry: Registry, other: Registry) -> None:
    vm_id = registry.new_vm("vm", "a")
    with pytest.raises(Taken, match="server 'one' has it, launching on client 'a'"):
        other.new_vm("vm", "b")
    registry.save_vms([shown(vm_id, "stopped")])
    assert other.new_vm("vm", "b") > vm_id


def test_a_vm_that_a_client_brings_is_taken_in_once(registry: Registry) -> None:
    registry.adopt_vm(40, "old", "a")
    assert registry.new_vm("new", "a") > 40
    for vm_id, name in ((40, "other"), (41, "old"), (42, "new")):
        with pytest.raises(Taken):
            registry.adopt_vm(vm_id, name, "b")


def test_a_suspended_vm_is_claimed_by_one_server(registry: Registry, other: Registry) -> None:
    vm_id = registry.new_vm("vm", "a")
    registry.save_vms([shown(vm_id, "running")])
    with pytest.raises(Taken, match="server 'one' has it, running"):
        other.claim(vm_id)
    registry.save_vms([shown(vm_id, "suspended")])
    other.claim(vm_id)
    other.save_vms([shown(vm_id, "running")])
    with pytest.raises(Taken, match="server 'two' has it"):
        registry.claim(vm_id)
    registry.save_vms([shown(vm_id, "lost")])  # it is not this server's any more
    assert other.vms()[0]["state"] == "running"


def test_a_removed_vm_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    vm_id = registry.new_vm("vm", "a")
    registry.save_vms([shown(vm_id, "stopped", devices=[UART])])
    (tmp_path / "image").write_bytes(b"image")
    registry.put_blob(vm_id, IMAGE, tmp_path / "image")
    registry.remove_vm(vm_id)
    assert registry.vms() == []
    with pytest.raises(RegistryError, match="missing"):
        registry.get_blob(vm_id, IMAGE, io.BytesIO())


# -- images and states ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_a_state_comes_back_as_it_was(registry: Registry, tmp_path: Path, size: int) -> None:
    vm_id = registry.new_vm("vm", "a")
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "state").write_bytes(content)
    registry.put_blob(vm_id, STATE, tmp_path / "state")
    registry.put_blob(vm_id, STATE, tmp_path / "state")
    back = io.BytesIO()
    registry.get_blob(vm_id, STATE, back)
    assert back.getvalue() == content
    assert registry.vms()[0]["has_state"]
    registry.without_state(vm_id, "stopped")
    assert not registry.vms()[0]["has_state"]


# -- both or neither ------------------------------------------------------------------------------


def test_whoever_is_to_have_a_vm_gets_a_new_epoch(registry: Registry) -> None:
    vm_id = registry.new_vm("vm", "a")
    assert registry.vms()[0]["epoch"] == 1
    assert registry.place_vm(vm_id, "b", "launching") == 2
    registry.save_vms([shown(vm_id, "running", client="a", epoch=1)])  # behind the times
    (vm,) = registry.vms()
    assert (vm["client"], vm["state"], vm["epoch"]) == ("b", "launching", 2)
    registry.save_vms([shown(vm_id, "running", client="b", epoch=4)])
    assert registry.vms()[0]["epoch"] == 4


def test_a_vm_is_suspended_with_its_state_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    vm_id = registry.new_vm("vm", "a")
    with pytest.raises(OSError, match="No such file"):
        registry.suspended(vm_id, tmp_path / "nowhere")
    assert (registry.vms()[0]["state"], registry.vms()[0]["epoch"]) == ("launching", 1)
    (tmp_path / "state").write_bytes(b"state")
    assert registry.suspended(vm_id, tmp_path / "state") == 2
    assert registry.has_blob(vm_id, STATE)
    assert registry.vms()[0]["state"] == "suspended"
    registry.without_state(vm_id, "running")
    assert not registry.has_blob(vm_id, STATE)
    assert registry.vms()[0]["state"] == "running"


def test_another_server_s_vm_is_not_placed(registry: Registry, other: Registry) -> None:
    vm_id = registry.new_vm("vm", "a")
    with pytest.raises(Taken, match="server 'one' has it"):
        other.place_vm(vm_id, "b", "launching")


def test_a_vm_whose_server_has_another_name_now_is_taken_over_with_its_client(
    registry: Registry, other: Registry
) -> None:
    vm_id = registry.new_vm("vm", "a")
    with pytest.raises(Taken):
        other.adopt_vm(vm_id, "vm", "b", epoch=9)  # not the client that had it
    with pytest.raises(Taken):
        other.adopt_vm(vm_id, "vm", "a", epoch=0)  # somebody else has it since
    other.adopt_vm(vm_id, "vm", "a", epoch=1)
    assert registry.vms()[0]["server"] == "two"


def test_vms_that_have_ended_are_forgotten_in_time(registry: Registry) -> None:
    kept = registry.new_vm("kept", "", registered=True, state="stopped")
    for number in range(KEPT_ENDED + 20):
        registry.save_vms([shown(registry.new_vm(f"vm{number}", "a"), "stopped")])
    rows = registry.vms()
    assert len(rows) == KEPT_ENDED + 2
    assert rows[0]["vm_id"] == kept
    assert rows[-1]["name"] == f"vm{KEPT_ENDED + 19}"


def guest(vm_id: int, name: str = "guest") -> dict[str, Any]:
    more = {"hypervisor": "kvm", "memory_bytes": 1, "devices": []}
    return {"vm_id": vm_id, "name": name, "client": "host", **more}


def test_guests_are_told_by_what_has_changed(registry: Registry) -> None:
    registry.save_guests([guest(n) for n in range(1000)], None)
    registry.save_guests([guest(5, "other")], range(10, 1000))
    assert [(row["vm_id"], row["name"]) for row in registry.guests()] == [
        (n, "other" if n == 5 else "guest") for n in range(10)
    ]
    registry.save_guests([guest(1)], None)
    assert [row["vm_id"] for row in registry.guests()] == [1]
