"""Whatever holds up a run, ``--timeout`` and Ctrl-C end it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S, command, environment, left_running, read_until, start

pytestmark = pytest.mark.kvm

#: Prints for ever.
FLOOD = tinyguest.for_ever(tinyguest.say(b"x"))
TIME_IS_OVER = 124

NEVER_RETURNS = '''\
"""A device that hangs."""

from dataclasses import dataclass

from devserver.models.device import Device, Region, Register


class Hang(Device):
    kind = "hang"
    regions = (Region(name="io", size=1, registers=(Register(offset=0, name="R", storage="r"),)),)

    @dataclass
    class State:
        r: int = 0

    def read_r(self, now_ns: int) -> int:
        while True:
            pass
'''

#: Holds the interpreter's lock for longer than anybody waits.
BACKTRACKS = 'while not __import__("re").match("(a+)+$", "a" * 60 + "b"):'


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe's end to be written to, that nobody reads."""
    reader, writer = os.pipe()
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "guest.bin"


@pytest.mark.parametrize("placement", ["server", "local"])
def test_the_timeout_comes_though_nobody_reads_the_output(
    placement: str, image: Path, unread: int
) -> None:
    image.write_bytes(FLOOD)
    run = command("run", image, "--timeout", "1", "--placement", placement)
    result = subprocess.run(
        run,
        stdin=subprocess.DEVNULL,
        stdout=unread,
        stderr=subprocess.PIPE,
        timeout=AT_MOST_S,
        env=environment(),
    )
    assert result.returncode == TIME_IS_OVER
    assert b"the guest did not end within 1 s\n" in result.stderr
    assert b"cs:ip = 0000:00007c0" in result.stderr


def test_the_timeout_comes_though_nobody_reads_standard_error_either(
    image: Path, unread: int
) -> None:
    image.write_bytes(FLOOD)
    run = command("run", image, "--timeout", "1")
    env = environment()
    with start(run, stdin=subprocess.DEVNULL, stdout=unread, stderr=unread, env=env) as process:
        assert process.wait(AT_MOST_S) == TIME_IS_OVER
    assert left_running(env) == []


def test_the_timeout_comes_though_a_local_device_hangs(image: Path, tmp_path: Path) -> None:
    model = tmp_path / "hang.py"
    model.write_text(NEVER_RETURNS)
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    device = f"hang,port={tinyguest.OWN_PORT:#x},placement=local"
    env = environment()
    run = command("run", image, "--model", model, "--device", device, "--timeout", "1")
    with start(run, stdin=subprocess.DEVNULL, env=env) as process:
        _, said = process.communicate(timeout=AT_MOST_S)
    assert process.returncode in (TIME_IS_OVER, 119)
    assert said.startswith(b"kvmshim: ")
    assert left_running(env) == []


def test_a_server_of_ones_own_ends_with_the_run_though_its_model_holds_the_interpreter(
    image: Path, tmp_path: Path
) -> None:
    model = tmp_path / "hang.py"
    model.write_text(NEVER_RETURNS.replace("while True:", BACKTRACKS))
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    env = environment()
    device = f"hang,port={tinyguest.OWN_PORT:#x}"
    run = command("run", image, "--model", model, "--device", device, "--timeout", "1")
    with start(run, stdin=subprocess.DEVNULL, env=env) as process:
        assert process.wait(AT_MOST_S) == TIME_IS_OVER
    assert left_running(env) == []


def test_ctrl_c_ends_a_run_whose_output_nobody_reads(image: Path) -> None:
    image.write_bytes(FLOOD)
    with start(command("run", image)) as process:
        assert process.stdout is not None
        read_until(process.stdout, b"x")  # and no more
        process.send_signal(signal.SIGINT)
        assert process.wait(AT_MOST_S) == 130
