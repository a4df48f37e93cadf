"""A server, agents and an operator, as people start them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from commandline import AT_MOST_S, ROOT, DevServer, command, devserver, read_until, start

GUESTS = ROOT / "guests" / "built"


class Cluster:
    """A running server with a control panel, and agents that come and go."""

    def __init__(self, server: DevServer, stack: ExitStack) -> None:
        self.address = server.address
        self.server = server
        #: Those that :meth:`agent` has started, by their names.
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = stack

    def agent(self, name: str) -> subprocess.Popen[bytes]:
        """Starts an agent, and waits until the panel knows it."""
        process = self.agents[name] = self._stack.enter_context(self.lasting_agent(name))
        return process

    @contextmanager
    def lasting_agent(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """An agent that may outlive the server."""
        process = start(
            command("agent", "--server", self.address, "--name", name), stdin=subprocess.DEVNULL
        )
        assert process.stdout is not None
        try:
            read_until(process.stdout, b"serves")
            yield process
        finally:
            _end(process)

    def fake_agent(self, name: str, operation: str, how: str, *vm: str) -> bytes:
        """An agent that does something wrong (fakeagent.py); what it says."""
        script = Path(__file__).with_name("fakeagent.py")
        process = start([sys.executable, str(script), self.address, name, operation, how, *vm])
        self._stack.callback(_end, process)
        assert process.stdout is not None
        return read_until(process.stdout, b"\n")

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``devserver …``, to its end."""
        return subprocess.run(
            command(*arguments, "--server", self.address, program="devserver"),
            capture_output=True,
            text=True,
            timeout=AT_MOST_S,
            cwd=ROOT,
        )

    def begins(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """The same, under way."""
        return subprocess.Popen(
            command(*arguments, "--server", self.address, program="devserver"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def does(self, *arguments: str | Path) -> str:
        """The output of a command that must succeed."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def refuses(self, *arguments: str | Path) -> str:
        """The one line of a command that must fail."""
        done = self.run(*arguments)
        assert done.returncode in (1, 113)
        assert done.stderr.count("\n") == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    def state(self, vm: str) -> str:
        """A VM's state, as ``vm list`` has it; empty if it has no such VM."""
        rows = [line.split() for line in self.does("vm", "list").splitlines()[1:]]
        return {row[1]: row[2] for row in rows}.get(vm, "")

    def await_state(self, vm: str, wanted: str) -> None:
        """Asks until a VM is in a state that it comes to by itself."""
        end_s = time.monotonic() + AT_MOST_S
        while (state := self.state(vm)) != wanted:
            assert time.monotonic() < end_s, f"VM '{vm}' is {state}, not {wanted}"

    @contextmanager
    def console(self, vm: str, *arguments: str) -> Iterator[Console]:
        """A terminal at a VM's console."""
        process = start(
            command("vm", "console", vm, "--server", self.address, *arguments, program="devserver")
        )
        try:
            yield Console(process)
        finally:
            process.kill()
            process.communicate()


class Console:
    """A running ``devserver vm console``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def reads(self, wanted: bytes) -> bytes:
        """Waits until this was shown; all that was."""
        return read_until(_stream(self.process.stdout), wanted)

    def types(self, data: bytes) -> None:
        stdin = _stream(self.process.stdin)
        stdin.write(data)
        stdin.flush()

    def complaint(self) -> str:
        """What it says at its end."""
        return self.process.communicate(timeout=AT_MOST_S)[1].decode()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=AT_MOST_S)


@contextmanager
def cluster(where: str, *agents: str, arguments: Sequence[str | Path] = ()) -> Iterator[Cluster]:
    """A server that listens at ``where``, with these agents."""
    with devserver(where, arguments=arguments) as server, ExitStack() as stack:
        made = Cluster(server, stack)
        for name in agents:
            made.agent(name)
        yield made
