"""``devserver serve --isolate``: a model that takes its process down harms its own VMs only."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from commandline import read_until
from live import AT_MOST_S, LATCH, LATCH_DEVICE, Peer, Server, read, run

from devserver.protocol.messages import (
    Attach,
    Attached,
    Error,
    Feedback,
    Hello,
    Hypervisor,
    Status,
    WantedDevice,
    Welcome,
)

pytestmark = pytest.mark.process

MODEL = """\
import os
from devserver.models import Access, Device, Region, Register

class Deadly(Device):
    '''Ends its process.'''
    kind = "deadly"
    regions = (Region(name="io", size=1, registers=(
        Register(offset=0, name="X", access=Access.RO),)),)

    def read_x(self, now_ns):
        os._exit(7)
"""
DEADLY = WantedDevice("d1", "deadly", {"": 0x500})


def place_of(server: Server) -> tuple[int, str]:
    """The server that has the deadly device: asked until its host has joined."""
    until_s = time.monotonic() + AT_MOST_S
    while time.monotonic() < until_s:
        with Peer(server) as peer:
            peer.say(Hello())
            peer.expect(Welcome)
            peer.say(Attach(Hypervisor.KVM, devices=[DEADLY]))
            answer = peer.hear()
            if isinstance(answer, Attached):
                (elsewhere,) = answer.elsewhere
                return elsewhere.server_id, elsewhere.name
            assert isinstance(answer, Error)
            assert "devserver-deadly-1" in answer.message
    raise AssertionError("the host of the model has not joined")


def test_a_model_that_ends_its_process_ends_no_other_vm(tmp_path: Path) -> None:
    file = tmp_path / "deadly.py"
    file.write_text(MODEL)
    more = ("--model", file, "--isolate")
    with Server(*more, listen=f"unix:{tmp_path}/s") as server, Peer(server) as good:
        good.attach(LATCH_DEVICE)
        server_id, name = place_of(server)
        assert name == "devserver-deadly-1"
        with Peer(server) as bad:
            bad.attach(DEADLY, server_id=server_id)
            bad.say(read(0x500))
            bad.closed()
        good.say(read(LATCH))
        assert good.expect(Feedback).status == Status.OK
        assert server.process.stderr is not None
        wanted = b"'devserver-deadly-1' has ended (status 7); starting another"
        read_until(server.process.stderr, wanted)
        assert place_of(server)[1] == name


def test_models_of_a_file_can_be_listed(tmp_path: Path) -> None:
    file = tmp_path / "deadly.py"
    file.write_text(MODEL)
    done = run("models", "--model", file)
    assert "deadly       version 1  Ends its process" in done.stdout
