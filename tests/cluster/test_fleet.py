"""What the panel knows of clients and VMs, and what it refuses. No I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devserver.panel.fleet import ENDED, PLACED, Fleet, Vm, VmState
from devserver.rpc import RpcError

S = VmState


def fleet(*clients: str) -> Fleet:
    made = Fleet()
    for name in clients:
        made.client_came(name, "host", ["kvm"], [])
    return made


def running(made: Fleet, name: str, client: str) -> Vm:
    vm = made.new_vm(name, client)
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
        made.client_came("a", "host", [], [])
    made.client_went("a")
    assert made.client_came("a", "host", [], []).client_id == 1


@pytest.mark.parametrize("state", [s for s in S if s not in ENDED])
def test_a_vm_is_launched_once(state: VmState) -> None:
    made = fleet("a")
    made.new_vm("one", "a").state = state
    with pytest.raises(RpcError, match="VM 'one' is there already"):
        made.new_vm("one", "a")


@pytest.mark.parametrize("state", ENDED)
def test_the_name_of_a_vm_that_has_ended_is_free(state: VmState) -> None:
    made = fleet("a")
    made.new_vm("one", "a").state = state
    assert made.new_vm("one", "a").vm_id == 3
    assert [vm.name for vm in made.vms.values()] == ["one"]


def test_a_vm_is_found_by_name_and_by_number() -> None:
    made = fleet("a")
    vm = made.new_vm("one", "a")
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
    made.client_came("a", "host", ["kvm"], [report(there, S.PAUSED)])
    assert (there.state, not_there.state) == (S.PAUSED, S.LOST)
    assert "came back without it" in not_there.why


def test_vms_from_before_this_panel_are_taken_over() -> None:
    made = Fleet()
    made.client_came("a", "h", ["kvm"], [{"vm_id": 40, "name": "old", "state": "running"}])
    assert made.find("old").vm_id == 40
    assert made.new_vm("new", "a").vm_id > 40


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
    vm = made.new_vm("one", "a")
    for state in wanted:
        before = vm.state
        try:
            made.step(vm, state)
        except RpcError:
            assert vm.state is before
        else:
            assert vm.state is state
            assert before not in (S.STOPPED, S.FAILED)
            assert state is not S.SUSPENDED or before in (S.SUSPENDING, S.RESUMING)
            assert state is not S.PAUSED or before in (S.RUNNING, S.LOST)
    assert (vm.state in PLACED) != (vm.state in (*ENDED, S.SUSPENDED))
