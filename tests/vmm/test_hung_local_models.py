"""A local model that does not come back: the run ends, with its name, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.kvm]

MODEL = """\
import time
from devserver.models import Access, Device, Region, Register

class Bad(Device):
    '''Misbehaves.'''
    kind = "bad"
    regions = (Region(name="io", size=1, registers=(
        Register(offset=0, name="X", access=Access.RO),)),)

    def read_x(self, now_ns):
        print("here I am")
        {body}
"""
#: mov dx, 500h; in al, dx; jmp $-1
GUEST = b"\xba\x00\x05\xec\xeb\xfd"
CATCHES = """
        while True:
            try: time.sleep(1000)
            except BaseException: pass"""


def command(folder: Path, body: str, *more: str, placement: str = "local") -> list[str]:
    (folder / "bad.py").write_text(MODEL.format(body=body))
    (folder / "guest.bin").write_bytes(GUEST)
    device = f"bad,name=b1,port=0x500,placement={placement}"
    files = [str(folder / "guest.bin"), "--kind", "flat", "--model", str(folder / "bad.py")]
    return [sys.executable, "-m", "kvmshim", "run", *files, "--device", device, *more]


def run(folder: Path, body: str, *more: str, placement: str = "local") -> tuple[int, str, str]:
    done = subprocess.run(
        command(folder, body, *more, placement=placement),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("placement", ["local", "server"])
@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(1000)"])
def test_a_model_that_does_not_return_ends_its_run(
    tmp_path: Path, body: str, placement: str
) -> None:
    status, out, said = run(tmp_path, body, "--model-timeout", "0.5", placement=placement)
    assert status == 119
    assert out == ""
    assert "device 'b1' (bad): here I am\n" in said
    assert said.count("device 'b1' (bad) failed: it did not return within 0.5 s") == 1
    assert f"{tmp_path}/bad.py:" in said


def test_one_that_can_not_be_interrupted_ends_its_run_too(tmp_path: Path) -> None:
    status, _, said = run(tmp_path, CATCHES, "--model-timeout", "0.3")
    assert status == 119
    assert "device 'b1' (bad) failed: it did not return within 0.3 s" in said


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(1000)"])
def test_the_timeout_is_kept_while_a_model_does_not_return(tmp_path: Path, body: str) -> None:
    status, _, said = run(tmp_path, body, "--timeout", "0.5", "--model-timeout", "3600")
    assert status == 124
    assert "the guest did not end within 0.5 s" in said


def test_ctrl_c_is_heard_while_a_model_does_not_return(tmp_path: Path) -> None:
    asked = command(tmp_path, "time.sleep(1000)", "--model-timeout", "3600")
    with subprocess.Popen(asked, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert b"here I am" in process.stderr.readline()
        before_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - before_s < 30  # and not an hour


def test_what_raises_is_said_once_with_the_models_name(tmp_path: Path) -> None:
    for placement in ("local", "server"):
        status, _, said = run(tmp_path, "raise SystemExit(3)", placement=placement)
        assert status == 119
        assert said.count("device 'b1' (bad) failed: SystemExit: 3") == 1
