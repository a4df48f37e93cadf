"""Interrupt lines that several sources drive, as KVM's interrupt controller sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmshim.abi import lib
from kvmshim.hypervisor.kvm.system import System
from kvmshim.vmstate.chips import save_chips

pytestmark = pytest.mark.kvm

LINE, SOURCES = 5, 3
#: struct kvm_pic_state (arch/x86/include/uapi/asm/kvm.h): the inputs as last seen, and requests.
LAST_IRR, IRR = 0, 1


class Pic:
    """A VM's lines, and what its master 8259A has seen of them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._vm = system.create_vm()
        self._vm.create_irqchip()
        self.control: Any = lib.control_new(self._vm.fd)

    def close(self) -> None:
        lib.control_free(self.control)
        self._vm.close()

    def drive(self, source: int, level: bool) -> None:
        assert lib.control_line(self.control, source, LINE, level) == 0

    def hold(self, held: bool) -> None:
        assert lib.control_hold_lines(self.control, held) == 0

    def seen(self, register: int) -> bool:
        state = save_chips(self._vm, self._system).controllers["pic master"]
        return bool(state[register] >> LINE & 1)


@pytest.fixture
def pic() -> Iterator[Pic]:
    with System() as system:
        made = Pic(system)
        yield made
        made.close()


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(st.tuples(st.integers(0, SOURCES - 1), st.booleans()), max_size=20))
def test_a_line_is_high_while_anybody_holds_it(pic: Pic, changes: list[tuple[int, bool]]) -> None:
    held = [False] * SOURCES
    for source in range(SOURCES):
        pic.drive(source, False)
    for source, level in changes:
        pic.drive(source, level)
        held[source] = level
        assert pic.seen(LAST_IRR) == any(held)


def test_a_line_that_changes_hands_while_it_is_held_makes_no_edge(pic: Pic) -> None:
    pic.drive(1, True)
    pic.hold(True)
    pic.drive(1, False)
    assert pic.seen(LAST_IRR)
    pic.drive(2, True)
    pic.hold(False)
    assert pic.seen(LAST_IRR)
    pic.drive(2, False)
    assert not pic.seen(LAST_IRR)


def test_what_changed_while_lines_were_held_is_told_at_the_end(pic: Pic) -> None:
    pic.hold(True)
    pic.drive(1, True)
    assert not pic.seen(LAST_IRR)
    pic.hold(False)
    assert pic.seen(LAST_IRR)
    assert pic.seen(IRR)
