"""``kvmshim lab``: what the command finds in it, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest
from commandline import (
    AT_MOST_S,
    Result,
    command,
    environment,
    kvmshim,
    left_running,
    read_until,
    start,
    the_line,
)

pytestmark = pytest.mark.process

ROUND_TRIP = Path(__file__).with_name("roundtrip.py")
NAMESPACES = Path("/run/netns")
PYTHON = sys.executable
HELLO = "Hello from a real CPU; my devices are somewhere else."
#: Says that it is there, and then does nothing until its input ends.
WAITER = ("sh", "-c", "echo there; exec cat")

netns = pytest.mark.netns
kvm = pytest.mark.kvm


def lab(*arguments: str | Path, given: bytes | None = None) -> Result:
    """Runs ``kvmshim lab``; no process may be left, and no namespace."""
    env = environment()
    with start([*command("lab"), *map(str, arguments)], env=env) as process:
        output, errors = process.communicate(given, timeout=AT_MOST_S)
    assert left_running(env) == []
    assert namespaces_of(process.pid) == set()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def namespaces() -> set[str]:
    """The labs' namespaces that there are, those of other labs included."""
    return {path.name for path in NAMESPACES.glob("kvmshim-lab-*")}


def namespaces_of(pid: int) -> set[str]:
    return {name for name in namespaces() if name.startswith(f"kvmshim-lab-{pid}-")}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """A lab whose command has said that it is there; the environment marks its processes."""
    env = environment()
    with start([*command("lab"), *arguments, "--", *WAITER], env=env) as process:
        try:
            assert process.stdout is not None
            read_until(process.stdout, b"there\n")
            yield process, env
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(AT_MOST_S)
            finally:
                process.kill()


def about(result: Result) -> dict[str, object]:
    """The JSON object on the last line that a lab said before its command."""
    described: dict[str, object] = json.loads(result.stderr)
    return described


# -- what the command finds -----------------------------------------------------------------------


@netns
@kvm
@pytest.mark.parametrize("rtt", ["0", "2ms"])
def test_hello_comes_through_the_lab(rtt: str) -> None:
    result = lab("--rtt", rtt, "--", *command("run", "hello", "--stats"))
    assert result.returncode == 0
    assert result.stdout.decode().split("\r\n")[0].startswith(HELLO)
    assert b'"link tcp://10.77.1.2:7000"' in result.stderr


@netns
@pytest.mark.parametrize("rtt_ns", [0, 100_001, 3_000_000])
def test_a_round_trip_takes_at_least_as_long_as_asked_for(rtt_ns: int) -> None:
    result = lab("--rtt", f"{rtt_ns}ns", "--", PYTHON, ROUND_TRIP)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= rtt_ns


@netns
def test_each_of_two_servers_has_an_address_and_answers_there() -> None:
    result = lab("--servers", "2", "--rtt", "1ms", "--", PYTHON, ROUND_TRIP)
    assert result.returncode == 0, result.stderr
    first, second = map(int, result.stdout.split())
    assert min(first, second) >= 1_000_000


@netns
def test_the_lab_describes_itself_to_people_programs_and_its_command() -> None:
    shown = lab("--json", "--servers", "2", "--rtt", "2ms", "--loss", "0.5%", "--", "env", "-0")
    found = dict(entry.split("=", 1) for entry in shown.stdout.decode().split("\0") if entry)
    described = about(shown)
    servers = [found["KVMSHIM_SERVER_1"], found["KVMSHIM_SERVER_2"]]
    assert described["emulation"] in ("netem", "relay")
    assert (described["rtt_ns"], described["loss"]) == (2_000_000, 0.005)
    assert described["servers"] == servers
    assert found["KVMSHIM_SERVER"] == servers[0]
    assert json.loads(found["KVMSHIM_LAB"]) == described


@netns
def test_without_delay_and_loss_nothing_stands_between() -> None:
    assert about(lab("--json", "--", "true"))["emulation"] == "none"
    assert the_line(lab("--", "true")) == "kvmshim: lab with 1 server, no delay, no loss"


@netns
def test_people_are_told_who_delays() -> None:
    line = the_line(lab("--rtt", "1ms", "--", "true"))
    assert re.fullmatch(r"kvmshim: lab with 1 server, RTT 1 ms, (in the kernel|by a relay).*", line)


@netns
def test_the_command_has_the_labs_standard_streams_and_exit_status() -> None:
    result = lab("--", "sh", "-c", "cat; exit 7", given=b"some\0text")
    assert (result.returncode, result.stdout) == (7, b"some\0text")


@netns
def test_no_way_leads_out_of_the_lab() -> None:
    result = lab("--servers", "2", "--", "cat", "/proc/net/route")
    _, *routes = result.stdout.decode().splitlines()
    assert [route.split()[:2] for route in routes] == [
        ["server1", "00014D0A"],  # 10.77.1.0, in the host's byte order
        ["server2", "00024D0A"],
    ]


# -- the end --------------------------------------------------------------------------------------


@netns
def test_nothing_is_left_of_a_command_that_was_killed() -> None:
    assert lab("--rtt", "1ms", "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


@netns
def test_nothing_is_left_of_what_a_command_left_behind() -> None:
    result = lab("--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo done")
    assert (result.returncode, result.stdout) == (0, b"done\n")


@netns
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)]
)
def test_a_signal_ends_the_lab_and_nothing_is_left(number: signal.Signals, status: int) -> None:
    with running("--rtt", "1ms", "--servers", "2") as (process, env):
        assert len(namespaces_of(process.pid)) == 3
        process.send_signal(number)
        assert process.wait(AT_MOST_S) == status
        assert namespaces_of(process.pid) == set()
        assert left_running(env) == []


@netns
def test_ctrl_c_on_a_terminal_ends_the_command_and_with_it_the_lab() -> None:
    env = environment()
    program, *arguments = [*command("lab"), "--rtt", "1ms", "--", *WAITER]
    terminal = pexpect.spawn(program, arguments, env=env, timeout=AT_MOST_S)
    terminal.expect_exact("there")
    terminal.sendintr()
    terminal.expect_exact(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 128 + signal.SIGINT
    assert left_running(env) == []
    assert namespaces_of(terminal.pid) == set()


@netns
def test_a_terminals_ctrl_c_is_left_to_a_command_that_goes_on() -> None:
    program, *arguments = command("lab")
    stubborn = ("sh", "-c", "trap 'echo heard' INT; echo there; read line; read line; exit 5")
    terminal = pexpect.spawn(
        program, [*arguments, "--", *stubborn], env=environment(), timeout=AT_MOST_S
    )
    terminal.expect_exact("there")
    terminal.sendintr()
    terminal.expect_exact("heard")
    terminal.sendline("one")
    terminal.sendline("two")
    terminal.expect_exact(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 5


@netns
def test_the_next_lab_removes_what_a_killed_one_left() -> None:
    with running("--rtt", "1ms") as (process, env):
        process.kill()
        process.wait(AT_MOST_S)
        assert namespaces_of(process.pid)
        assert lab("--", "true").returncode == 0
        assert namespaces_of(process.pid) == set()
        assert left_running(env) == []


@netns
def test_two_labs_at_once_do_not_meet() -> None:
    with running("--rtt", "1ms") as (first, _), running("--rtt", "1ms") as (second, _):
        assert lab("--", PYTHON, ROUND_TRIP).returncode == 0
        for process in (first, second):
            output, _ = process.communicate(b"still here", timeout=AT_MOST_S)
            assert (process.returncode, output) == (0, b"still here")
            assert namespaces_of(process.pid) == set()


@netns
def test_a_lab_changes_nothing_outside() -> None:
    def outside() -> tuple[str, str]:
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
        return links, os.readlink("/proc/self/ns/net")

    before = outside()
    with running("--servers", "2"):
        assert outside() == before
    assert outside() == before


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--rtt", "1", "--", "true"], "'1' is not a duration"),
        (["--loss", "1", "--", "true"], "'1' is not a percentage"),
        (["--servers", "0", "--", "true"], "from 1 to 64"),
        (["--servers", "65", "--", "true"], "from 1 to 64"),
        (["--servers", "x", "--", "true"], "invalid int value: 'x'"),
        (["--", "no-such-program"], "there is no program 'no-such-program'"),
        ([], "COMMAND"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], why: str) -> None:
    result = kvmshim("lab", *arguments)
    assert result.returncode == 113
    assert why in the_line(result)


def lab_where(changes: str) -> Result:
    """Runs a lab after some lines of Python that make the host another one."""
    code = (
        f"{changes}\nimport sys; from kvmshim.commands.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [PYTHON, "-c", code, "lab", "--", "true"],
        env=environment(),
        capture_output=True,
        timeout=AT_MOST_S,
    )


def test_whoever_is_not_root_is_told_so() -> None:
    result = lab_where("import os; os.geteuid = lambda: 1000")
    assert result.returncode == 114
    assert "needs root" in the_line(result)


def test_a_missing_pyroute2_says_how_to_get_it() -> None:
    result = lab_where(
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'pyroute2' else find(name, *rest)"
    )
    assert result.returncode == 114
    assert "pip install 'kvmshim[lab]'" in the_line(result)


# -- kvmshim run in a lab -------------------------------------------------------------------------


@kvm
def test_run_looks_for_its_server_in_the_environment() -> None:
    nowhere = {**environment(), "KVMSHIM_SERVER": "tcp://127.0.0.1:1"}
    result = kvmshim("run", "hello", env=nowhere)
    assert result.returncode == 115
    assert "tcp://127.0.0.1:1" in the_line(result)


@kvm
def test_an_empty_variable_and_devices_placed_here_need_no_server() -> None:
    empty = {**environment(), "KVMSHIM_SERVER": ""}
    assert kvmshim("run", "hello", env=empty).returncode == 0
    nowhere = {**environment(), "KVMSHIM_SERVER": "tcp://127.0.0.1:1"}
    assert kvmshim("run", "hello", "--placement", "local", env=nowhere).returncode == 0
