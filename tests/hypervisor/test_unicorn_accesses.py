"""A guest's accesses and interrupts are the same on the Unicorn engine as on KVM."""

from __future__ import annotations

from pathlib import Path

import pytest
from histories import assert_it_ran_down, run_program, sources
from random_program import random_program

pytestmark = [pytest.mark.unicorn, pytest.mark.process]


@pytest.mark.parametrize("seed", range(4))
def test_an_emulated_guest_sees_the_same_with_and_without_waiting(
    seed: int, tmp_path: Path
) -> None:
    program = random_program(seed)
    strict = run_program(program, tmp_path, strict=True, hypervisor="unicorn")
    optimized = run_program(program, tmp_path, strict=False, hypervisor="unicorn")
    assert optimized.of_kind(program, "exact") == strict.of_kind(program, "exact")
    assert optimized.output == strict.output
    assert optimized.interrupts == strict.interrupts != b""
    assert strict.posted == strict.leased == 0
    assert optimized.posted > optimized.leased > 0


@pytest.mark.kvm
@pytest.mark.parametrize("seed", range(100, 106))
def test_a_guest_sees_the_same_on_both_hypervisors(seed: int, tmp_path: Path) -> None:
    program = random_program(seed)
    real = run_program(program, tmp_path, strict=True)
    emulated = run_program(program, tmp_path, strict=False, hypervisor="unicorn")
    assert emulated.of_kind(program, "exact") == real.of_kind(program, "exact")
    assert sources(program, emulated) == sources(program, real)
    assert emulated.output == real.output
    assert emulated.interrupts == real.interrupts != b""
    for history in (real, emulated):
        assert_it_ran_down(program, history)
