"""Guests that are suspended to a file and resumed by another process."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from commandline import command, devserver, kvmshim, read_until, start, the_line
from pausing import tally

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("place", ["server", "local"])
def test_a_guest_that_is_suspended_again_and_again_ends_with_the_same_sums(
    place: str, tmp_path: Path
) -> None:
    file = tmp_path / "state"
    to = ("--suspend-to", file, "--suspend-after", "0.4")
    result = kvmshim("run", "tally", "--placement", place, *to)
    text, times = result.stdout, 0
    while result.returncode == 121:
        assert f"'kvmshim resume {file}' goes on" in the_line(result)
        times += 1
        result = kvmshim("resume", file, *to)
        text += result.stdout
    assert (result.returncode, text) == (0, tally())
    assert times > 0


def test_a_signal_suspends_and_another_server_takes_over(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with devserver(f"unix:{tmp_path}/one") as one:
        process = start(command("run", "echo", "--server", one.address, "--suspend-to", file))
        with process:
            assert process.stdout is not None
            read_until(process.stdout, b"ready")
            process.send_signal(signal.SIGUSR1)
            assert process.wait() == 121
    with devserver(f"unix:{tmp_path}/two") as two:
        result = kvmshim("resume", file, "--server", two.address, given=b"after\x04")
    assert (result.returncode, result.stdout) == (0, b"after")


def test_a_file_that_is_no_good_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "state"
    assert kvmshim("run", "tally", "--suspend-to", file, "--suspend-after", "0").returncode == 121
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in the_line(kvmshim("resume", file))
    assert "no such file" in the_line(kvmshim("resume", tmp_path / "nothing")).lower()


def test_a_time_without_a_file_is_a_mistake() -> None:
    result = kvmshim("run", "hello", "--suspend-after", "1")
    assert result.returncode == 113
    assert "say where to" in the_line(result)
