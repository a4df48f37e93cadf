"""Many VMs on one host: what is for one comes to that one. No sockets."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from session_rig import KEY, TRIAL, Rig, write
from session_rig import read as read_trial
from trial_device import COUNT, IRQ, VALUE

from devserver.protocol.messages import Message, Request
from devserver.session.vm_table import VmTable

VMS = 5
STEPS = st.sampled_from(
    [read_trial(COUNT, 8), read_trial(VALUE), write(IRQ, 1), write(IRQ, 0), write(IRQ, 3)]
    + [write(VALUE, value) for value in range(4)]
)


def rig_of(vm_id: int, vms: VmTable) -> Rig:
    rig = Rig(vms=vms)
    rig.attach(TRIAL, vm_id=vm_id)
    rig.clock()
    return rig


def one_of(host: VmTable | None = None) -> VmTable:
    return host or VmTable(itertools.count(1).__next__, make_key=lambda: KEY)


def without_client(said: list[Message]) -> list[Any]:
    """What was said, but for the VM's and the client's names, which every host gives anew."""
    return [message._replace(vm_id=0, client_id=0) for message in said]  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.integers(1, VMS), STEPS), max_size=60))
def test_each_vm_sees_what_it_would_see_alone(steps: list[tuple[int, Request]]) -> None:
    host = one_of()
    together = {vm: rig_of(vm, host) for vm in range(1, VMS + 1)}
    alone = {vm: rig_of(vm, one_of()) for vm in range(1, VMS + 1)}
    for vm, request in steps:
        said = together[vm].say(request)
        assert all(message.vm_id == vm for message in said)  # type: ignore[union-attr]
        assert without_client(said) == without_client(alone[vm].say(request))
