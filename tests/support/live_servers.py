"""Fixtures: a live server of each sort, for whoever imports them into its conftest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import LATCH_DEVICE, TRIAL_FILE, Peer, Server

#: Engine, transport and how the server waits; each engine meets each of the others once.
SERVERS = ["native unix spin", "native tcp adaptive", "python unix spin", "python tcp block"]


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with the trial device, as it serves every test of a module."""
    engine, transport, wait = request.param.split()
    path = tmp_path_factory.mktemp("server") / "socket"
    where = f"unix:{path}" if transport == "unix" else "tcp://127.0.0.1:0"
    arguments = ("--engine", engine, "--wait", wait, "--model", TRIAL_FILE)
    with Server(*arguments, listen=where) as running:
        yield running
        assert running.end() == 0


@pytest.fixture
def bystander(server: Server) -> Iterator[Peer]:
    """A client that has nothing to do with what others do to the server."""
    with Peer(server) as peer:
        peer.attach(LATCH_DEVICE)
        yield peer


@pytest.fixture
def where(tmp_path: Path) -> str:
    """An address for a server of a test's own."""
    return f"unix:{tmp_path}/server"
