"""Writes that KVM takes by itself: they arrive in time, and cost nothing while the guest sleeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tinyguest
from commandline import AT_MOST_S
from library import Terminal, machine, run

from kvmshim.bench.guest import workload_plan
from kvmshim.machinefile import default_machine
from kvmshim.vmm.machine import Machine

pytestmark = pytest.mark.kvm

#: Sleeps for ever; interrupts are on, but there are none.
SLEEP = tinyguest.for_ever(b"\xfb\xf4")
TEXT = b"written without an exit"


def image(folder: Path, code: bytes) -> Path:
    path = folder / "guest.bin"
    path.write_bytes(code)
    return path


@contextmanager
def having_printed(what: Path) -> Iterator[None]:
    """While a guest that goes on for ever is past its printing."""
    printed, terminal = threading.Event(), Terminal()
    terminal.when(TEXT, printed.set)
    with machine(what) as made:
        thread = threading.Thread(target=made.run, kwargs={"output": terminal})
        thread.start()
        try:
            assert printed.wait(AT_MOST_S)
            yield
        finally:
            made.stop()
            thread.join()


@pytest.mark.parametrize("then", [tinyguest.SPIN, SLEEP], ids=["runs on", "sleeps"])
def test_what_a_guest_writes_arrives_though_it_never_exits(then: bytes, tmp_path: Path) -> None:
    with having_printed(image(tmp_path, tinyguest.say(TEXT) + then)):
        pass


def test_a_write_without_an_exit_is_served_before_the_access_behind_it(tmp_path: Path) -> None:
    scratch = tinyguest.COM1 + 7
    code = tinyguest.write(scratch, 1) + tinyguest.say(TEXT) + tinyguest.write(scratch, 42)
    code += tinyguest.read(scratch) + tinyguest.leave_with_al()
    result, text = run(image(tmp_path, code))
    assert (result.status, text) == (42, TEXT)
    assert result.stats["vcpu"]["coalesced_writes"] >= len(TEXT)


def test_a_guest_that_ends_with_a_write_in_the_ring_is_heard_to_its_end(tmp_path: Path) -> None:
    result, text = run(image(tmp_path, tinyguest.say(TEXT) + tinyguest.HALT))
    assert text == TEXT
    assert result.stats["vcpu"]["port_exits"] == 0


def test_a_flood_of_writes_goes_through_the_window_whole_and_in_order(tmp_path: Path) -> None:
    # mov cx, 60000; mov dx, COM1; l: mov al, cl; out dx, al; loop l
    flood = b"\xb9\x60\xea\xba\xf8\x03\x88\xc8\xee\xe2\xfb"
    result, text = run(image(tmp_path, flood + tinyguest.leave(0)))
    assert text == bytes(count & 0xFF for count in range(60000, 0, -1))
    assert result.stats["vcpu"]["port_exits"] < 60_000


def test_a_guest_that_halts_after_each_character_has_its_writes_wait() -> None:
    count, terminal = 3000, Terminal()
    with Machine(default_machine(), workload_plan("bench_print_irq", count)) as made:
        result = made.run(timeout_s=AT_MOST_S, output=terminal)
    assert terminal.text == bytes(left & 0xFF for left in range(count, 0, -1))
    assert result.stats["vcpu"]["waited_writes"] > 0
