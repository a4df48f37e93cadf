"""Registers in memory, where the guest has none: served as ports are."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import tinyguest
from commandline import AT_MOST_S
from library import spec_of
from ownmodels import add_in_memory, adder, with_adder

from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.outcome import RunResult

pytestmark = pytest.mark.kvm

VALUES = Random(3).choices(range(256), k=300)
SUM = sum(VALUES) & 0xFF


def added_up(folder: Path, placement: str = "server", policy: str = "") -> RunResult:
    """A guest that writes all the values and leaves with the sum that it reads."""
    image = folder / "guest.bin"
    image.write_bytes(add_in_memory(VALUES) + tinyguest.leave_with_al())
    spec = with_adder(spec_of(image), placement, policy)
    with machine_for(spec, models=[str(adder(folder))]) as made:
        return made.run(timeout_s=AT_MOST_S)


def test_writes_to_memory_that_may_be_coalesced_make_no_exits_but_of_a_full_ring(
    tmp_path: Path,
) -> None:
    result = added_up(tmp_path)
    vcpu = result.stats["vcpu"]
    assert result.status == SUM
    assert vcpu["memory_exits"] < 10
    assert vcpu["coalesced_writes"] + vcpu["memory_exits"] == len(VALUES) + 1


@pytest.mark.parametrize(("policy", "counter"), [("posted", "posted"), ("finish", "requests")])
def test_others_make_one_each(policy: str, counter: str, tmp_path: Path) -> None:
    result = added_up(tmp_path, policy=policy)
    (link,) = (found for name, found in result.stats.items() if name.startswith("link"))
    assert result.status == SUM
    assert result.stats["vcpu"]["memory_exits"] == len(VALUES) + 1
    assert link[counter] >= len(VALUES)


def test_a_device_in_this_process_may_be_in_memory_too(tmp_path: Path) -> None:
    assert added_up(tmp_path, placement="local").status == SUM
