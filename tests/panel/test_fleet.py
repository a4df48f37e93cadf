"""What the panel knows of clients and VMs, and what it refuses. No I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devserver.panel.fleet import ENDED, PLACED, Fleet, Vm, VmState
from devserver.rpc import RpcError

S = VmState


KVM = {"kind": "kvm", "version": "1", "capabilities": {}}


def came(made: Fleet, name: str, *reports: dict[str, object], kind: str = "kvm") -> list[int]:
    """A client connects; the VMs that it must let go."""
    number = sum(map(ord, name))
    return made.client_came(number, name, "host", [{**KVM, "kind": kind}], list(reports)).drop


def fleet(*clients: str) -> Fleet:
    made = Fleet()
    for name in clients:
        came(made, name)
    return made


def new_vm(made: Fleet, name: str, client: str = "a") -> Vm:
    return made.new_vm(max(made.vms, default=0) + 1, name, client)


def running(made: Fleet, name: str, client: str) -> Vm:
    vm = new_vm(made, name, client)
    made.step(vm, S.RUNNING)
    return vm


def report(vm: Vm, state: VmState = S.RUNNING) -> dict[str, object]:
    return {"vm_id": vm.vm_id, "name": vm.name, "state": str(state)}


def test_a_vm_is_launched_where_the_fewest_run() -> None:
    made = fleet("a", "b")
    running(made, "one", "a")
    assert made.choose_client(None).name == "b"


def test_a_client_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(RpcError, match="did you mean 'alpha'"):
        fleet("alpha").choose_client("alhpa")


def test_without_clients_nothing_can_be_launched() -> None:
    with pytest.raises(RpcError, match="kvmshim agent"):
        fleet().choose_client(None)


def test_a_client_s_name_stands_for_one_agent_at_a_time() -> None:
    made = fleet("a")
    with pytest.raises(RpcError, match="connected already"):
        made.check_name("a")
    made.client_went("a")
    made.check_name("a")


@pytest.mark.parametrize("state", [s for s in S if s not in ENDED])
def test_a_vm_is_launched_once(state: VmState) -> None:
    made = fleet("a")
    new_vm(made, "one").state = state
    with pytest.raises(RpcError, match="VM 'one' is there already"):
        new_vm(made, "one")


@pytest.mark.parametrize("state", ENDED)
def test_the_name_of_a_vm_that_has_ended_is_free(state: VmState) -> None:
    made = fleet("a")
    new_vm(made, "one").state = state
    new_vm(made, "one")
    assert [vm.name for vm in made.vms.values()] == ["one"]


def test_a_vm_is_found_by_name_and_by_number() -> None:
    made = fleet("a")
    vm = new_vm(made, "one")
    assert made.find("one") is vm
    assert made.find(str(vm.vm_id)) is vm
    with pytest.raises(RpcError, match="did you mean 'one'"):
        made.find("on")


def test_the_vms_of_a_client_that_is_gone_are_lost() -> None:
    made = fleet("a", "b")
    lost, kept = running(made, "one", "a"), running(made, "two", "b")
    made.client_went("a")
    assert (lost.state, kept.state) == (S.LOST, S.RUNNING)
    assert "client 'a' is gone" in lost.why


def test_what_a_client_says_when_it_comes_back_is_true() -> None:
    made = fleet("a")
    there, not_there = running(made, "one", "a"), running(made, "two", "a")
    made.client_went("a")
    assert came(made, "a", report(there, S.PAUSED)) == []
    assert (there.state, not_there.state) == (S.PAUSED, S.LOST)
    assert "came back without it" in not_there.why


def test_a_vm_that_is_suspended_or_somebody_else_s_must_be_let_go() -> None:
    made = fleet("a", "b")
    suspended, moved = running(made, "one", "a"), running(made, "two", "b")
    made.step(suspended, S.SUSPENDING)
    made.step(suspended, S.SUSPENDED)
    made.client_went("a")
    assert came(made, "a", report(suspended), report(moved)) == [1, 2]
    assert (suspended.state, moved.client) == (S.SUSPENDED, "b")


def test_a_vm_that_was_being_resumed_and_was_not_is_suspended_still() -> None:
    made = fleet("a")
    vm = new_vm(made, "one")
    vm.state, vm.has_state = S.RESUMING, True
    made.client_went("a")
    came(made, "a")
    assert vm.state is S.SUSPENDED


def test_what_was_known_is_lost_until_its_client_speaks() -> None:
    before = fleet("a")
    vm = running(before, "one", "a")
    after = Fleet()
    client = {"client_id": 1, "name": "a", "hostname": "h", "hypervisors": []}
    after.load([client], [{**vm.shown(), "machine": "", "image_name": ""}])
    assert "has not come back yet" in after.vms[1].why
    came(after, "a", report(vm))
    assert after.vms[1].state is S.RUNNING


def test_a_vm_goes_to_a_client_with_its_hypervisor() -> None:
    made = fleet("a")
    came(made, "b", kind="unicorn")
    assert made.choose_client(None, kind="unicorn").name == "b"
    with pytest.raises(RpcError, match="client 'a' has no hypervisor 'unicorn'"):
        made.choose_client("a", kind="unicorn")


def test_a_suspended_vm_is_no_client_s() -> None:
    made = fleet("a")
    vm = running(made, "one", "a")
    made.step(vm, S.SUSPENDING)
    made.step(vm, S.SUSPENDED)
    made.client_went("a")
    assert vm.state is S.SUSPENDED


@given(st.lists(st.sampled_from(list(S)), max_size=12))
def test_a_vm_never_leaves_an_end_and_never_skips_a_step(wanted: list[VmState]) -> None:
    made = fleet("a")
    vm = new_vm(made, "one")
    for state in wanted:
        before = vm.state
        try:
            made.step(vm, state)
        except RpcError:
            assert vm.state is before
        else:
            assert vm.state is state
            assert before not in (S.STOPPED, S.FAILED, S.DEFINED) or state is S.LAUNCHING
            assert state is not S.SUSPENDED or before in (S.SUSPENDING, S.RESUMING)
            assert state is not S.PAUSED or before in (S.RUNNING, S.LOST, S.MIGRATING, S.SUSPENDING)
    assert (vm.state in PLACED) != (vm.state in (*ENDED, S.SUSPENDED))
