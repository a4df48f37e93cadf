"""What becomes of a VM that a client says it has, or had: what runs is the truth. No I/O."""

from __future__ import annotations

from typing import Any

import pytest

from devserver.panel.fleet import ENDED, KEPT_ENDED, Doubt, Fleet, Verdict, Vm, VmState

S = VmState
KVM = {"kind": "kvm", "version": "1", "capabilities": {}}
DROP, GO, KEEP, WAIT = (
    Verdict([1], [], []),
    Verdict([], [1], []),
    Verdict([], [], []),
    ([], [], [1]),
)


def fleet(*clients: str, **vm: Any) -> tuple[Fleet, Vm]:
    """These clients are connected, and there is one VM."""
    made = Fleet()
    for number, name in enumerate(clients):
        made.client_came(number, name, "host", [KVM], [])
    one = made.new_vm(1, "one", vm.pop("client", "a"))
    for name, value in {"state": S.RUNNING, "epoch": 5, **vm}.items():
        setattr(one, name, value)
    return made, one


def comes(made: Fleet, client: str, **report: Any) -> Verdict:
    """A client comes with the VM."""
    plain = {"vm_id": 1, "name": "one", "state": "running", "epoch": 5, "doubt": ""}
    return made.client_came(9, client, "host", [KVM], [{**plain, **report}])


@pytest.mark.parametrize("state", [S.LOST, S.STOPPED, S.FAILED, S.LAUNCHING, S.RUNNING])
@pytest.mark.parametrize("epoch", [5, 6])
def test_a_vm_that_runs_is_there_whatever_the_registry_says(state: VmState, epoch: int) -> None:
    made, vm = fleet(state=state)
    assert comes(made, "a", epoch=epoch) == KEEP
    assert (vm.state, vm.client, vm.epoch) == (S.RUNNING, "a", epoch)


@pytest.mark.parametrize("state", [S.SUSPENDED, S.DEFINED])
def test_a_registry_that_was_put_back_is_mended(state: VmState) -> None:
    """It is from before the VM was resumed, or started."""
    made, vm = fleet(state=state, has_state=state is S.SUSPENDED)
    assert comes(made, "a", epoch=6) == KEEP
    assert (vm.state, vm.epoch) == (S.RUNNING, 6)


@pytest.mark.parametrize("state", [s for s in S if s not in ENDED])
@pytest.mark.parametrize("doubt", [d for d in Doubt if d is not Doubt.LEAVING])
def test_a_vm_of_an_older_epoch_is_somebody_else_s(state: VmState, doubt: Doubt) -> None:
    made, vm = fleet("b", client="b", state=state)
    assert comes(made, "a", epoch=4, doubt=doubt) == DROP
    assert (vm.state, vm.client) == (state, "b")


def test_what_another_client_says_of_its_end_is_of_an_older_run() -> None:
    made, vm = fleet("a", client="a")
    assert comes(made, "b", state="stopped") == KEEP
    assert vm.state is S.RUNNING


def test_the_end_of_an_older_run_on_the_same_client_is_not_that_of_this_one() -> None:
    made, vm = fleet("a")
    vm.state = S.LOST
    comes(made, "a", state="stopped", epoch=4)
    assert vm.state is S.LOST
    comes(made, "a", state="stopped", epoch=5)
    assert vm.state is S.STOPPED


def test_what_a_vm_exited_with_is_told_later_and_kept() -> None:
    made, vm = fleet("a")
    vm.state = S.LOST
    comes(made, "a", state="stopped", exit_status=33)
    after = Fleet()
    after.load([], [{**vm.shown(), "machine": "", "image_name": ""}])
    assert after.vms[1].exit_status == 33


# -- in doubt -------------------------------------------------------------------------------------


def test_a_suspension_that_was_not_written_down_did_not_happen() -> None:
    made, vm = fleet(state=S.LOST)
    assert comes(made, "a", doubt="suspending") == GO
    assert vm.state is S.RUNNING


def test_a_suspension_that_was_written_down_did() -> None:
    made, vm = fleet(state=S.SUSPENDED, epoch=6, has_state=True)
    assert comes(made, "a", doubt="suspending") == DROP
    assert vm.state is S.SUSPENDED


@pytest.mark.parametrize("state", [S.LOST, S.SUSPENDED, S.RESUMING])
def test_a_vm_whose_state_is_kept_was_never_to_run(state: VmState) -> None:
    made, _ = fleet(state=state, has_state=True)
    assert comes(made, "a", doubt="restoring") == DROP


def test_a_vm_whose_state_was_dropped_is_to_run() -> None:
    made, vm = fleet(state=S.LOST)
    assert comes(made, "a", doubt="restoring", state="paused") == GO
    assert vm.state is S.PAUSED


@pytest.mark.parametrize(("epoch", "verdict"), [(5, GO), (6, DROP)])
def test_a_vm_that_came_runs_if_it_was_given_to_this_client(epoch: int, verdict: Verdict) -> None:
    made, _ = fleet(client="b", state=S.LOST)
    assert comes(made, "b", doubt="arriving", epoch=epoch) == verdict


def test_a_source_whose_vm_was_not_given_away_has_it() -> None:
    made, vm = fleet(state=S.LOST)
    assert comes(made, "a", doubt="leaving") == GO
    assert (vm.client, vm.state) == ("a", S.RUNNING)


def test_a_source_waits_until_the_target_is_back_with_the_vm() -> None:
    made, _ = fleet(client="b", state=S.LOST, epoch=6)
    assert comes(made, "a", doubt="leaving") == WAIT
    assert comes(made, "b", doubt="arriving", epoch=6) == GO
    assert comes(made, "a", doubt="leaving") == DROP


# -- what is kept ---------------------------------------------------------------------------------


def test_a_resumption_that_did_not_end_left_the_vm_suspended() -> None:
    _, vm = fleet()
    after = Fleet()
    row = {**vm.shown(), "machine": "", "image_name": "", "state": "resuming", "has_state": True}
    after.load([], [row])
    assert after.vms[1].state is S.SUSPENDED


def test_a_client_that_goes_before_it_may_run_a_vm_does_not_have_it() -> None:
    made, vm = fleet("a", state=S.RESUMING, has_state=True)
    made.client_went("a")
    assert vm.state is S.SUSPENDED


def test_what_ever_ran_is_not_kept_for_ever() -> None:
    made, first = fleet("a")
    first.registered, first.state = True, S.STOPPED
    for number in range(2, 2 * KEPT_ENDED):
        made.new_vm(number, f"vm{number}", "a").state = S.STOPPED
    assert len(made.vms) <= KEPT_ENDED + 2
    assert first.vm_id in made.vms
    assert 2 * KEPT_ENDED - 1 in made.vms
