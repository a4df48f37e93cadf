"""A panel that is killed at the moment of its answer: every VM is there, where it was said."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from commandline import children_of
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

ECHO = GUESTS / "echo.bin"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Cluster]:
    url = f"sqlite:///{tmp_path}/registry.db"
    with cluster(f"unix:{tmp_path}/socket", "a", arguments=("--registry", url)) as made:
        made.does("vm", "register", ECHO, "--name", "guest")
        yield made


def kill_panel(site: Cluster) -> None:
    (panel,) = children_of(site.server.process.pid)
    os.kill(panel, signal.SIGKILL)


def answers(site: Cluster, text: bytes) -> None:
    with site.console("guest") as console:
        console.types(text)
        console.reads(text)


def test_a_panel_that_is_killed_after_its_answer_takes_nothing_along(site: Cluster) -> None:
    site.does("vm", "start", "guest")
    kill_panel(site)
    site.await_state("guest", "running")
    answers(site, b"started")
    site.does("vm", "suspend", "guest")
    kill_panel(site)
    site.await_state("guest", "suspended")
    site.does("vm", "resume", "guest")
    kill_panel(site)
    site.await_state("guest", "running")
    answers(site, b"resumed")
    site.does("vm", "shutdown", "guest")
    kill_panel(site)
    site.await_state("guest", "stopped")


def test_a_registry_that_can_t_be_written_refuses_before_anything_is_begun(
    site: Cluster, tmp_path: Path
) -> None:
    full = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    site.does("vm", "start", "guest")
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as database:
        site.does("vm", "suspend", "guest")
        database.execute(f"CREATE TRIGGER full BEFORE DELETE ON blobs {full}")
        assert "can't be resumed" in site.refuses("vm", "resume", "guest")
        assert site.state("guest") == "suspended"
        kill_panel(site)
        site.await_state("guest", "suspended")
        database.execute("DROP TRIGGER full")
    site.does("vm", "resume", "guest")
    answers(site, b"once")


def test_a_lost_vm_is_not_started_again_while_its_client_may_come_back_with_it(
    site: Cluster,
) -> None:
    """A start is cut off, and its client is slower to find the new panel than the next start."""
    site.agent("b")
    site.does("vm", "start", "guest", "--client", "a")
    site.agents["a"].send_signal(signal.SIGSTOP)
    kill_panel(site)
    again = site.begins("vm", "start", "guest")
    site.await_state("guest", "lost")
    site.agents["a"].send_signal(signal.SIGCONT)
    said = again.communicate()[1]
    assert "VM 'guest' is running; it can't be started" in said
    assert site.state("guest") == "running"
    answers(site, b"still there")


def test_an_agent_that_does_not_come_back_holds_its_vm_for_a_moment_only(site: Cluster) -> None:
    site.agent("b")
    site.does("vm", "start", "guest", "--client", "a")
    site.agents["a"].kill()
    site.await_state("guest", "lost")
    site.does("vm", "start", "guest")
    answers(site, b"elsewhere")
