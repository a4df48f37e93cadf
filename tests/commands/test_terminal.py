"""``kvmshim run`` on a person's terminal: raw keys in, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import AT_MOST_S, children_of, command, environment, left_running
from pexpect.fdpexpect import fdspawn

pytestmark = pytest.mark.kvm

CTRL_C, CTRL_D, CTRL_BRACKET = b"\x03", b"\x04", b"\x1d"
#: Where tcgetattr(3) has the input, output and local modes.
_INPUT, _OUTPUT, _LOCAL = 0, 1, 3


class DetachedDevices:
    """A terminal with ``kvmshim run echo`` on it, and a person's hands and eyes before it."""

    def __init__(self) -> None:
        self._person, self._line = os.openpty()
        self.before = self.settings()
        self.eyes = fdspawn(self._person, timeout=AT_MOST_S)
        self._env = environment()
        self.process = subprocess.Popen(
            command("run", "echo"),
            stdin=self._line,
            stdout=self._line,
            stderr=self._line,
            env=self._env,
            cwd="/",
            start_new_session=True,
        )

    def settings(self) -> list[Any]:
        """The terminal's settings now."""
        return termios.tcgetattr(self._line)

    def press(self, keys: bytes) -> None:
        """Types."""
        os.write(self._person, keys)

    def see(self, text: bytes) -> bytes:
        """Waits until ``text`` is shown; what was shown before it."""
        self.eyes.expect_exact(text)
        before: bytes = self.eyes.before
        return before

    def ends_with(self, status: int) -> None:
        """The command ends with this status, the terminal is as it was, nothing runs on."""
        assert self.process.wait(AT_MOST_S) == status
        assert self.settings() == self.before
        assert left_running(self._env) == []

    def close(self) -> None:
        """Ends what a failed test left."""
        self.process.kill()
        self.process.wait()
        os.close(self._person)
        os.close(self._line)


@pytest.fixture
def seat() -> Iterator[DetachedDevices]:
    made = DetachedDevices()
    try:
        made.see(b"ready\r\r\n")  # the line feed's own carriage return is the terminal's
        yield made
    finally:
        made.close()


def test_the_escape_key_is_told_before_the_guest_says_anything(seat: DetachedDevices) -> None:
    assert b"kvmshim: Ctrl-] ends the guest" in seat.eyes.before


def test_keys_reach_the_guest_one_by_one_and_only_the_guest_echoes_them(
    seat: DetachedDevices,
) -> None:
    for key in b"h", b"i", b" ", b"\t", b"\r", b"\x7f":
        seat.press(key)
        assert seat.see(key) == b""


def test_the_terminal_is_raw_while_the_guest_runs_but_for_its_output(seat: DetachedDevices) -> None:
    now = seat.settings()
    assert not now[_LOCAL] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert not now[_INPUT] & (termios.ICRNL | termios.IXON)
    assert now[_OUTPUT] == seat.before[_OUTPUT]


def test_ctrl_c_is_a_key_for_the_guest(seat: DetachedDevices) -> None:
    seat.press(CTRL_C)
    assert seat.see(CTRL_C) == b""
    assert seat.process.poll() is None


def test_a_guest_that_ends_leaves_the_terminal_as_it_was(seat: DetachedDevices) -> None:
    seat.press(CTRL_D)
    seat.ends_with(0)


def test_the_escape_key_ends_the_guest(seat: DetachedDevices) -> None:
    seat.press(CTRL_BRACKET)
    seat.ends_with(130)


def kill_the_server(seat: DetachedDevices) -> None:
    (server,) = children_of(seat.process.pid)
    os.kill(server, signal.SIGKILL)


def terminate(seat: DetachedDevices) -> None:
    seat.process.terminate()


def interrupt(seat: DetachedDevices) -> None:
    seat.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("cause", "status"), [(terminate, 143), (interrupt, 130), (kill_the_server, 116)]
)
def test_any_other_end_leaves_the_terminal_as_it_was(
    cause: Callable[[DetachedDevices], None], status: int, seat: DetachedDevices
) -> None:
    cause(seat)
    seat.ends_with(status)


def test_a_terminal_that_hangs_up_ends_the_run_quietly(tmp_path: Path) -> None:
    person, line = os.openpty()
    env = environment()
    report = tmp_path / "report"

    def sit_down() -> None:
        os.login_tty(os.dup(line))  # the command's controlling terminal, which sends SIGHUP
        os.dup2(stderr.fileno(), 2)

    with report.open("wb") as stderr:
        process = subprocess.Popen(
            command("run", "echo"),
            stdin=line,
            stdout=line,
            preexec_fn=sit_down,
            env=env,
            cwd="/",
        )
    fdspawn(person, timeout=AT_MOST_S).expect_exact(b"ready")
    os.close(person)
    assert process.wait(AT_MOST_S) == 143
    os.close(line)
    assert report.read_text() == "kvmshim: Ctrl-] ends the guest\n"
    assert left_running(env) == []
