"""A model that does not come back, or raises what nobody catches: its own VM ends, and no other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from live import LATCH, LATCH_DEVICE, Peer, Server, read

from devserver.protocol.connection import blank
from devserver.protocol.messages import Clock, Event, EventKind, Feedback, Status, WantedDevice

pytestmark = pytest.mark.process

PORT = 0x500
LIMIT_S = 0.4

MODEL = """\
import sys, time
from devserver.models import Access, Device, Region, Register

class Bad(Device):
    '''Misbehaves.'''
    kind = "bad"
    regions = (Region(name="io", size=1, registers=(
        Register(offset=0, name="X", access=Access.RO),)),)

    def read_x(self, now_ns):
        print("here I", end=" ")
        print("am")
        {body}
"""
BODIES = {
    "loops": "while True: pass",
    "sleeps": "time.sleep(1000)",
    "catches what it can": """
        while True:
            try: time.sleep(0.01)
            except Exception: pass""",
    "exits": "sys.exit(3)",
    "is interrupted": "raise KeyboardInterrupt",
    "recurses": "return self.read_x(now_ns)",
}
BAD = WantedDevice("b1", "bad", {"": PORT})


def model(folder: Path, body: str) -> Path:
    file = folder / "bad.py"
    file.write_text(MODEL.format(body=body))
    return file


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(folder: Path, engine: str, body: str) -> Server:
    more = ("--model", model(folder, body), "--model-timeout", LIMIT_S, "--engine", engine)
    return Server(*more, listen=f"unix:{folder}/s")


def fault_of(peer: Peer) -> str:
    """Reads the bad device; what the server says of it."""
    peer.say(read(PORT))
    said = ""
    while not isinstance(message := peer.hear(), Feedback):
        if isinstance(message, Event) and message.kind == EventKind.FAULT:
            said = message.text
    assert message.status == Status.FAULT
    return said


@pytest.mark.parametrize("what", BODIES)
def test_only_the_vm_of_such_a_model_ends(tmp_path: Path, engine: str, what: str) -> None:
    with serve(tmp_path, engine, BODIES[what]) as server, Peer(server) as good, Peer(server) as bad:
        good.attach(LATCH_DEVICE)
        bad.attach(BAD)
        said = fault_of(bad)
        assert said.startswith("device 'b1' (bad) failed: ")
        assert f"{tmp_path}/bad.py:" in said.partition("\n")[0]
        if what in ("loops", "sleeps", "catches what it can"):
            assert f"it did not return within {LIMIT_S:g} s" in said
        good.say(read(LATCH))
        assert good.expect(Feedback).status == Status.OK
        server.end()
        errors = server.errors()
        assert errors.count("device 'b1' (bad) failed") == 1
        assert "device 'b1' (bad): here I am\n" in errors


def test_a_deadline_that_does_not_return_is_interrupted_too(tmp_path: Path, engine: str) -> None:
    body = "return 0\n    def deadline_ns(self): return 5\n    def advance(self, now_ns):\n" + (
        "        while True: pass"
    )
    with serve(tmp_path, engine, body) as server, Peer(server) as bad:
        bad.attach(BAD)
        bad.say(blank(Clock, running=1, time_ns=10))
        event = bad.expect(Event)
        assert "it did not return within" in event.text


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(1000)"])
def test_a_server_ends_at_once_though_a_model_does_not_return(tmp_path: Path, body: str) -> None:
    more = ("--model", model(tmp_path, body), "--model-timeout", 3600)
    with Server(*more, listen=f"unix:{tmp_path}/s") as server, Peer(server) as bad:
        bad.attach(BAD)
        bad.say(read(PORT))
        assert server.process.stderr is not None
        assert b"here I am" in server.process.stderr.readline()  # it is in the model
        assert server.end(signal.SIGTERM) == 0


def test_one_that_can_not_be_interrupted_ends_its_server_with_its_name(tmp_path: Path) -> None:
    body = """
        while True:
            try: time.sleep(1000)
            except BaseException: pass"""
    with serve(tmp_path, "native", body) as server, Peer(server) as bad:
        bad.attach(BAD)
        bad.say(read(PORT))
        bad.closed()
        assert server.process.wait(20) == 119
        assert "device 'b1' (bad) does not return, and can't be interrupted" in server.errors()
