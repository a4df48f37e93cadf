"""Every process of a site is killed at random moments of what it does; the VMs are there after."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest
from commandline import children_of
from environment import GUESTS, Cluster, cluster
from ownpostgres import PostgreSql

pytestmark = [pytest.mark.kvm, pytest.mark.soak]

ECHO = GUESTS / "echo.bin"
#: What is done with the VM, and the states that it may be in when that was cut off.
ORDERS = {
    "start": {"running", "defined", "stopped", "lost"},
    "pause": {"running", "paused"},
    "resume": {"running", "paused", "suspended"},
    "suspend": {"running", "suspended", "paused"},
    "migrate": {"running", "paused"},
    "shutdown": {"running", "stopped", "paused", "lost"},
}
ROUNDS = 200


def url_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/registry.db"
    database: PostgreSql = request.getfixturevalue("own_postgresql")
    return database.new_database()


def settled(site: Cluster, wanted: set[str]) -> str:
    """The VM's state, once that is one it can stay in."""
    end_s = time.monotonic() + 60
    while (state := site.state("guest")) not in wanted:
        assert time.monotonic() < end_s, f"the VM is {state}, not one of {sorted(wanted)}"
    return state


@pytest.mark.parametrize(
    "kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
)
def test_a_panel_that_is_killed_at_any_moment_loses_no_vm(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rounds = int(os.environ.get("KVMSHIM_SOAK_ROUNDS", ROUNDS))
    random, arguments = Random(rounds), ("--registry", url_of(kind, tmp_path, request))
    with cluster(f"unix:{tmp_path}/socket", "a", "b", arguments=arguments) as site:
        site.does("vm", "register", ECHO, "--name", "guest")
        site.does("vm", "start", "guest")
        state = "running"
        for _ in range(rounds):
            usual = {
                "running": ["suspend", "migrate", "pause", "shutdown"],
                "paused": ["resume", "suspend"],
            }
            order = random.choice(usual.get(state, ["resume" if state == "suspended" else "start"]))
            under_way = site.begins("vm", order, "guest")
            time.sleep(random.uniform(0.2, 1.5))
            for panel in children_of(site.server.process.pid):
                os.kill(panel, signal.SIGKILL)
            answered = under_way.wait(60) == 0
            under_way.communicate()
            state = settled(site, ORDERS[order])
            print(order, answered, state, flush=True)
            assert site.does("vm", "list").count("guest") == 1
            if state == "running":
                with site.console("guest") as console:
                    console.types(b"x")
                    console.reads(b"x")
