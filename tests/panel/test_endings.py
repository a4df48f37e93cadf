"""SIGTERM ends every process, whatever it is doing, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import tinyguest
from commandline import (
    AT_MOST_S,
    ROOT,
    children_of,
    command,
    devserver,
    environment,
    read_until,
    start,
    wait_until_gone,
)
from environment import cluster
from hypothesis import given
from hypothesis import strategies as st

from kvmshim.agent.backoff import FIRST_S, LONGEST_S, pauses

TERMINATED = 143


@contextmanager
def ended_at_last(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def agent(address: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """An agent whose temporary files are in a folder of the test's."""
    folder.mkdir(exist_ok=True)
    line = command("agent", "--server", address, "--name", "a", *more)
    variables = {**environment(), "TMPDIR": str(folder)}
    with ended_at_last(start(line, env=variables, stdin=subprocess.DEVNULL)) as process:
        yield process


def ends(process: subprocess.Popen[bytes], folder: Path) -> None:
    """It ends by its own, with no word too many and nothing left of its files."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=AT_MOST_S)[1]
    assert process.returncode == TERMINATED
    assert b"Traceback" not in said
    assert list(folder.iterdir()) == []


@pytest.mark.kvm
def test_an_agent_with_vms_that_flood_their_consoles_ends(tmp_path: Path) -> None:
    image, folder = tmp_path / "flood.bin", tmp_path / "files"
    for_a_key = tinyguest.read(tinyguest.LINE_STATUS) + b"\xa8\x01\x74\xf8"  # test al, 1; jz
    image.write_bytes(for_a_key + tinyguest.for_ever(tinyguest.say(b"flood\r\n")))
    with cluster(f"unix:{tmp_path}/socket") as site, ExitStack() as stack:
        process = stack.enter_context(agent(site.address, folder))
        assert process.stdout is not None
        read_until(process.stdout, b"serves")
        names = ("one", "two", "three")
        for name in names:
            site.does("vm", "launch", image, "--name", name)
        consoles = [stack.enter_context(site.console(name)) for name in names]
        for console in consoles:
            console.types(b"x")
        for console in consoles:
            console.reads(b"flood")
        ends(process, folder)


@pytest.mark.process
def test_an_agent_ends_while_it_connects(tmp_path: Path) -> None:
    """Its server takes connections and says nothing."""
    folder = tmp_path / "files"
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        where = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with agent(where, folder) as process, mute.accept()[0]:
            ends(process, folder)


@pytest.mark.process
def test_an_agent_that_is_there_first_waits_for_its_server(tmp_path: Path) -> None:
    where, folder = f"unix:{tmp_path}/socket", tmp_path / "files"
    with agent(where, folder) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert b"waiting for it" in read_until(process.stderr, b"\n")
        with devserver(where):
            read_until(process.stdout, b"serves")
        with devserver(where):  # another one, in its place
            read_until(process.stdout, b"serves")
        ends(process, folder)


@pytest.mark.process
def test_an_agent_that_is_not_to_wait_says_so_and_ends(tmp_path: Path) -> None:
    with agent(f"unix:{tmp_path}/nobody", tmp_path / "files", "--no-wait-for-server") as process:
        said = process.communicate(timeout=AT_MOST_S)[1].decode()
        assert process.returncode == 115
        assert "can't reach the server" in said
        assert said.count("\n") == 1


@given(st.randoms(use_true_random=False))
def test_pauses_grow_to_a_bound_and_differ(chance: object) -> None:
    waits = pauses(chance.random)  # type: ignore[attr-defined]
    found = [next(waits) for _ in range(12)]
    spans = [min(FIRST_S * 2**n, LONGEST_S) for n in range(12)]
    assert all(span / 2 <= wait <= span for wait, span in zip(found, spans, strict=True))


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_can_t_be_asked_to_end_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Something that swallows every exception, and ends for nobody."""
    script = """
import signal, time
from kvmshim import termination
termination.watch()
with termination.asking(lambda: None), termination.at_last(lambda: print("last", flush=True)):
    while True:
        try:
            print("here", flush=True)
            while True:
                time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)
"""
    with ended_at_last(start([sys.executable, "-c", script], cwd=ROOT)) as process:
        assert process.stdout is not None
        read_until(process.stdout, b"here\n")
        process.send_signal(number)
        assert process.communicate(timeout=AT_MOST_S)[0] == b"last\n"
        assert process.returncode == TERMINATED


@pytest.mark.process
def test_a_run_whose_output_nobody_reads_ends(tmp_path: Path) -> None:
    image = tmp_path / "flood.bin"
    image.write_bytes(tinyguest.for_ever(tinyguest.say(b"flood\r\n")))
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        while True:
            os.write(writer, bytes(1 << 16))
    except BlockingIOError:
        os.set_blocking(writer, True)
    line = command("run", image, "--hypervisor", "kvm")
    with ended_at_last(start(line, stdout=writer, stdin=subprocess.DEVNULL)) as process:
        while not children_of(process.pid):  # until it has its server
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(AT_MOST_S) == TERMINATED
    os.close(reader)
    os.close(writer)


@pytest.mark.process
def test_a_server_and_its_panel_end_and_leave_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    where = f"unix:{tmp_path}/socket"
    line = command("serve", "--listen", where, "--hosts", "2", program="devserver")
    with ended_at_last(start(line, env={**environment(), "TMPDIR": str(folder)})) as server:
        assert server.stdout is not None
        read_until(server.stdout, b"\n")
        asked = command("vm", "list", "--server", where, program="devserver")
        assert start(asked).communicate(timeout=AT_MOST_S)[1] == b""  # so the panel runs
        children = children_of(server.pid)
        assert len(children) == 2
        for child in children:  # as a service manager does it: to all of them
            os.kill(child, signal.SIGTERM)
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=AT_MOST_S)[1]
        assert server.returncode == 0
        assert b"Traceback" not in said
        wait_until_gone(children)
    assert list(folder.iterdir()) == []
