"""Every bundled guest does on the Unicorn engine what the manifest says, as it does on KVM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commandline import Result, kvmshim, the_line

from kvmshim.bundled import guests
from kvmshim.vmm.outcome import Outcome

pytestmark = [pytest.mark.unicorn, pytest.mark.process]

GUESTS = {name: guest.manifest for name, guest in guests().items()}
ENDINGS = {"crash": Outcome.CRASHED.value, "halted": Outcome.HALTED.value}
NOTICE = "kvmshim: the Unicorn engine emulates the guest's processor; KVM is not used"

each_guest = pytest.mark.parametrize("name", GUESTS)


def run_guest(name: str, *arguments: str | Path) -> Result:
    """Runs a guest on the engine with the manifest's input and arguments."""
    entry = GUESTS[name]
    given = entry["input"].encode() if "input" in entry else None
    append = ("--append", entry["append"]) if "append" in entry else ()
    how = ("--hypervisor", "unicorn", "--timeout", "40")
    return kvmshim("run", name, *append, *entry.get("args", ()), *how, *arguments, given=given)


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
    assert said.startswith(NOTICE)
    assert (said == f"{NOTICE}\n") == (result.returncode not in ENDINGS.values())


@each_guest
def test_an_emulated_guest_does_what_the_manifest_says_with_its_devices_on_a_server(
    name: str,
) -> None:
    check(name, run_guest(name))


@each_guest
def test_an_emulated_guest_does_the_same_with_its_devices_beside_it(name: str) -> None:
    check(name, run_guest(name, "--placement", "local"))


def test_the_report_of_an_emulated_crash_has_the_registers_that_the_guest_set() -> None:
    report = run_guest("triple_fault").stderr.decode()
    assert "the guest crashed: triple fault" in report
    assert "bx=c0de0001" in report
    assert "cx=c0de0002" in report


def test_a_machine_file_chooses_the_engine(tmp_path: Path) -> None:
    machine = tmp_path / "machine.toml"
    image = guests()["hello"].path
    machine.write_text(f'[machine]\nhypervisor = "unicorn"\n[image]\npath = "{image}"\n')
    result = kvmshim("run", machine)
    assert (result.returncode, the_line(result)) == (0, NOTICE)


def test_an_unknown_hypervisor_is_refused_with_the_nearest_name() -> None:
    result = kvmshim("run", "hello", "--hypervisor", "unicron")
    assert result.returncode == 113
    assert "there is no hypervisor 'unicron'; did you mean 'unicorn'?" in the_line(result)
