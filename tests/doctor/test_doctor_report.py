"""The report as a table, as JSON, and as an exit status."""

from __future__ import annotations

import argparse
import io
import json

import pytest
from fakehost import EMULATED, FakeHost, FakeKvm, host_with, without_kvm

from kvmshim.commands import doctor
from kvmshim.doctor import Finding, Report, Status, as_table, examine
from kvmshim.doctor.report import EMULATED_BELOW, Measurements

ONE_OF_EACH = Report(
    (
        Finding("good", Status.OK, "present", use="something (required)"),
        Finding("poor", Status.WARNING, "absent", "get one", use="a longer thing (optional)"),
        Finding("bad", Status.MISSING, "gone", "word " * 40),
        Finding("fact", Status.INFO, "6.1.0"),
    )
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(host: FakeHost, *, as_json: bool = False) -> int:
    return doctor.run(argparse.Namespace(json=as_json), host)


def test_the_table_has_status_name_value_and_use_in_columns() -> None:
    lines = as_table(ONE_OF_EACH, colour=False)

    assert lines[0] == "ok       good  present  something (required)"
    assert lines[1] == "warning  poor  absent   a longer thing (optional)"
    assert lines[2].strip() == "-> get one"


def test_long_advice_is_wrapped() -> None:
    lines = as_table(ONE_OF_EACH, colour=False)

    assert sum("word" in line for line in lines) > 1
    assert max(len(line) for line in lines) <= 100


def test_the_table_ends_in_a_summary_that_names_what_is_missing() -> None:
    assert as_table(ONE_OF_EACH, colour=False)[-1] == "Guests can't run here. Missing: bad."


def test_the_summary_says_who_runs_guest_code_and_what_to_look_at() -> None:
    good, poor = examine(host_with()), examine(host_with(cpus=1, kvm=FakeKvm(speed=EMULATED)))

    assert good.summary() == "Guests can run here, run by the processor."
    assert poor.summary() == (
        "Guests can run here, emulated in software. Worth a look: guest-speed, cpus."
    )


def test_colours_are_escape_sequences_and_nothing_else() -> None:
    plain, coloured = (as_table(ONE_OF_EACH, colour=colour) for colour in (False, True))

    assert "\033" not in "".join(plain)
    assert coloured[0].startswith("\033[32mok")
    assert coloured[0].replace("\033[32m", "").replace("\033[0m", "") == plain[0]


@pytest.mark.parametrize(
    ("stream", "environment", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_for_terminals_whose_owner_does_not_object(
    stream: io.StringIO, environment: dict[str, str], colour: bool
) -> None:
    assert doctor.wants_colour(stream, environment) is colour


@pytest.mark.parametrize(
    ("rate", "emulated"), [(EMULATED_BELOW - 1, True), (EMULATED_BELOW, False)]
)
def test_emulated_or_not_is_told_by_the_rate(rate: float, emulated: bool) -> None:
    assert Measurements(rate, 1, 1).emulated is emulated


def test_the_json_object_has_its_stable_form(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(host_with(), as_json=True)
    printed = json.loads(capsys.readouterr().out)

    assert status == 0
    assert set(printed) == {"ok", "findings", "measurements"}
    assert printed["ok"] is True
    assert set(printed["findings"][0]) == {"name", "status", "value", "advice", "use"}
    assert printed["measurements"] == {
        "instructions_per_second": 900_000_000,
        "exit_ns": {"median": 1200, "p99": 2500},
        "emulated": False,
    }


def test_without_kvm_the_json_has_no_measurements_and_the_status_is_114(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = run(without_kvm(), as_json=True)
    printed = json.loads(capsys.readouterr().out)

    assert status == 114
    assert printed["ok"] is False
    assert printed["measurements"] is None


def test_without_kvm_the_table_says_so_and_the_status_is_114(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(without_kvm()) == 114
    assert capsys.readouterr().out.endswith("Missing: kvm-device, kvm-open.\n")
