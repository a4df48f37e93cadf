"""Runs the commands as a user would; every process carries a mark, so that none is overlooked."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
#: For what takes a second at most: a test that meets it has failed.
AT_MOST_S = 60.0
_MARK = "KVMSHIM_TEST_MARK"

Result = subprocess.CompletedProcess[bytes]


def environment() -> dict[str, str]:
    """An environment of one's own, whose processes :func:`left_running` finds."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KVMSHIM_")}
    return {**inherited, "PYTHONPATH": str(ROOT), _MARK: uuid.uuid4().hex}


def command(*arguments: str | Path, program: str = "kvmshim") -> list[str]:
    """The command line of ``kvmshim`` (or ``devserver``) with ``arguments``."""
    return [sys.executable, "-m", program, *map(str, arguments)]


def start(arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a command with pipes for all three streams, unless ``options`` say otherwise."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, **{**pipes, "env": environment(), "cwd": "/", **options})


def kvmshim(
    *arguments: str | Path,
    given: bytes | None = None,
    before: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Runs ``kvmshim`` to its end, with ``given`` as its input; nothing may be left of it.

    ``before`` is a command that runs it, such as ``ip netns exec``.
    """
    env = environment()
    stdin = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
    result = subprocess.run(
        [*before, *command(*arguments)],
        capture_output=True,
        timeout=AT_MOST_S,
        **{"env": env, "cwd": "/", **stdin, **options},
    )
    assert left_running(env) == []
    return result


def left_running(env: dict[str, str]) -> list[int]:
    """The processes that still run with this environment's mark."""
    wanted = f"{_MARK}={env[_MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it has ended since
            continue
    return found


def wait_until_gone(pids: Sequence[int]) -> None:
    """Waits for the end of processes that are not this one's children."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], AT_MOST_S)[0], f"process {pid} runs on"
        finally:
            os.close(descriptor)


def children_of(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # no process, or one that has ended since
            continue
        if entry.name.isdigit() and int(fields[1]) == pid:
            found.append(int(entry.name))
    return found


def read_until(stream: IO[bytes], wanted: bytes) -> bytes:
    """Reads a pipe until ``wanted`` has come; what was read."""
    seen = b""
    while wanted not in seen:
        assert select.select([stream], [], [], AT_MOST_S)[0], f"only {seen!r} came"
        part = os.read(stream.fileno(), 4096)
        assert part, f"the output ended with {seen!r}"
        seen += part
    return seen


def the_line(result: Result) -> str:
    """The one line that a command said on standard error."""
    text = result.stderr.decode()
    assert "Traceback" not in text
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


class DevServer:
    """A running ``devserver serve``; ``addresses`` are where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], addresses: list[str]) -> None:
        self.process = process
        self.addresses = addresses

    @property
    def address(self) -> str:
        return self.addresses[0]

    def send(self, number: signal.Signals) -> None:
        """Sends the process a signal."""
        self.process.send_signal(number)


@contextmanager
def devserver(
    *listen: str,
    arguments: Sequence[str | Path] = (),
    before: Sequence[str] = (),
    log: IO[bytes] | None = None,
    around: Mapping[str, str] | None = None,
) -> Iterator[DevServer]:
    """A device server that listens at ``listen``; killed at the end, whatever became of it.

    ``around`` is added to its environment.
    """
    where = [part for address in listen for part in ("--listen", address)]
    process = start(
        [*before, *command("serve", *where, *arguments, program="devserver")],
        stdin=subprocess.DEVNULL,
        stderr=log or subprocess.DEVNULL,
        env={**environment(), **(around or {})},
    )
    with process:
        try:
            assert process.stdout is not None
            said = read_until(process.stdout, b"\n")
            while said.count(b"\n") < len(listen):
                said += read_until(process.stdout, b"\n")
            yield DevServer(process, [line.split()[-1] for line in said.decode().splitlines()])
        finally:
            process.kill()


@contextmanager
def io_server(
    owner: str, name: str, listen: str = "tcp://127.0.0.1:0", arguments: Sequence[str | Path] = ()
) -> Iterator[DevServer]:
    """A server that has joined the one at ``owner``; killed at the end."""
    where = ("--join", owner, "--listen", listen, "--name", name)
    process = start(
        command("host", *where, *arguments, program="devserver"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdout is not None
            said = read_until(process.stdout, b"\n").decode()
            yield DevServer(process, [said.split(" listening on ")[1].split(",")[0]])
        finally:
            process.kill()
