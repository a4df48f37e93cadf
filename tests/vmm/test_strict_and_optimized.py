"""A guest can't tell a machine that posts, coalesces and leases from one that waits every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from histories import assert_it_ran_down, run_program, sources
from random_program import random_program

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("seed", range(8))
def test_a_guest_sees_the_same_with_and_without_waiting(seed: int, tmp_path: Path) -> None:
    program = random_program(seed)
    strict = run_program(program, tmp_path, strict=True)
    optimized = run_program(program, tmp_path, strict=False)
    assert optimized.of_kind(program, "exact") == strict.of_kind(program, "exact")
    assert sources(program, optimized) == sources(program, strict)
    assert optimized.output == strict.output
    assert optimized.interrupts == strict.interrupts != b""
    for history in (strict, optimized):
        assert_it_ran_down(program, history)
    assert strict.posted == strict.leased == 0
    assert optimized.posted > optimized.leased > 0
