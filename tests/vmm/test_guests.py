"""Every bundled guest does what the manifest says, wherever its devices are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import DevServer, Result, devserver, kvmshim

from kvmshim.bundled import guests
from kvmshim.vmm.outcome import Outcome

pytestmark = pytest.mark.kvm

GUESTS = {name: guest.manifest for name, guest in guests().items()}
ENDINGS = {"crash": Outcome.CRASHED.value, "halted": Outcome.HALTED.value}
#: Guests that between them use every kind of request, interrupts and input.
TRAVELLERS = ("hello", "echo", "storm", "string_io", "unclaimed", "pit_modes", "elf32")
#: Guests that live on interrupts.
INTERRUPTED = ("echo", "pit_rtc", "rtc", "storm", "tally")

each_guest = pytest.mark.parametrize("name", GUESTS)
each_traveller = pytest.mark.parametrize("name", TRAVELLERS)


@pytest.fixture(scope="module")
def reference_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    where = tmp_path_factory.mktemp("server") / "socket"
    with devserver(f"unix:{where}", arguments=("--engine", "python")) as server:
        yield server


def run_guest(name: str, *arguments: str | Path) -> Result:
    """Runs a guest with the manifest's input and arguments."""
    entry = GUESTS[name]
    given = entry["input"].encode() if "input" in entry else None
    append = ("--append", entry["append"]) if "append" in entry else ()
    limit = ("--timeout", "40")
    return kvmshim("run", name, *append, *entry.get("args", ()), *limit, *arguments, given=given)


def check(name: str, result: Result) -> None:
    """Holds a run against the manifest."""
    entry = GUESTS[name]
    said = result.stderr.decode()
    assert result.returncode == ENDINGS.get(entry["status"], entry["status"]), said
    if "expect_regex" in entry:
        assert re.fullmatch(entry["expect_regex"], result.stdout.decode()), result.stdout
    else:
        assert result.stdout.decode() == entry["expect"]
    assert "Traceback" not in said
    assert bool(said) == (result.returncode in ENDINGS.values())


@each_guest
def test_a_guest_does_what_the_manifest_says_with_its_devices_on_a_server(name: str) -> None:
    check(name, run_guest(name))


@each_guest
def test_a_guest_does_the_same_with_its_devices_beside_it(name: str) -> None:
    check(name, run_guest(name, "--placement", "local"))


@each_guest
def test_a_guest_does_the_same_with_interrupt_controllers_on_a_server(name: str) -> None:
    check(name, run_guest(name, "--irqchip", "remote"))


@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_guest_does_the_same_with_interrupt_controllers_beside_it(name: str) -> None:
    check(name, run_guest(name, "--irqchip", "remote", "--placement", "local"))


@each_traveller
def test_a_guest_does_the_same_on_the_reference_server(
    name: str, reference_server: DevServer
) -> None:
    check(name, run_guest(name, "--server", reference_server.address))


def test_the_report_of_a_crash_has_the_registers_that_the_guest_set() -> None:
    report = run_guest("triple_fault").stderr.decode()
    assert "the guest crashed: triple fault" in report
    assert "bx=c0de0001" in report
    assert "cx=c0de0002" in report
