"""What a sweep over numbers of VMs says of those that sleep, and that a small one works."""

import pytest

from kvmshim.bench.fleet import Fleet
from kvmshim.bench.sweeps import (
    CLIENT_NAMES,
    FLEET_NAMES,
    idle_table,
    sweep_clients,
    sweep_vms,
)

FLEET = Fleet(
    wait="adaptive",
    vms=8,
    posted_ns=1000.0,
    sync_ns=10_000.0,
    start_s=0.5,
    settle_s=2.0,
    client_bytes=23_000_000,
    server_bytes=20_000_000,
    client_idle=0.01,
    server_idle=0.0,
)


def test_the_table_of_idle_vms_gives_memory_and_processor_time() -> None:
    _, line = idle_table([FLEET])
    assert line.split() == [
        "8",
        "adaptive",
        "23",
        "MB",
        "20",
        "MB",
        "1.00%",
        "0.00%",
        "0.50",
        "s",
        "2",
        "s",
    ]


@pytest.mark.kvm
def test_two_vms_in_one_process_post_read_and_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvmshim.bench.sweeps.ROUNDS", 1)
    found = sweep_vms(2, 10, ("adaptive", "block"))
    assert [(row.name, row.wait, row.vms) for row in found.rows] == [
        (name, wait, 2) for wait in ("adaptive", "block") for name in FLEET_NAMES
    ]
    assert all(fleet.client_bytes > 0 for fleet in found.idle)


@pytest.mark.process
def test_a_server_is_asked_by_as_many_clients_as_are_wanted() -> None:
    rows = sweep_clients(3, 10)
    assert [(row.name, row.vms) for row in rows] == [(name, 3) for name in CLIENT_NAMES]
    assert all(row.per_s for row in rows)
