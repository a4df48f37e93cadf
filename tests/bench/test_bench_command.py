"""``kvmshim bench`` as a user runs it. What the figures are is not tested, only that they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "name",
    "transport",
    "wait",
    "rtt_ns",
    "median_ns",
    "p99_ns",
    "floor",
    "floor_ns",
    "ratio",
    "count",
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvmshim", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def documented_rows() -> set[str]:
    manual = (ROOT / "docs" / "performance.md").read_text()
    table = manual.partition("## The rows")[2].partition("In JSON")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    done = bench(
        "--json", "--count", "50", "--wait", "spin", "--wait", "block", "--wait", "adaptive"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.kvm
def test_it_measures_every_row_that_the_manual_lists_and_no_other(
    measured: dict[str, Any],
) -> None:
    assert {row["name"] for row in measured["rows"]} == documented_rows()


@pytest.mark.kvm
def test_every_row_has_the_documented_fields(measured: dict[str, Any]) -> None:
    assert all(set(row) == FIELDS for row in measured["rows"])


@pytest.mark.kvm
def test_every_figure_is_there_and_stands_beside_its_floor(measured: dict[str, Any]) -> None:
    for row in measured["rows"]:
        assert 0 < row["median_ns"] <= row["p99_ns"]
        assert (row["ratio"] is None) == (row["floor_ns"] is None) == (not row["floor"])
        assert row["count"] >= 5


@pytest.mark.kvm
def test_it_says_what_it_was_measured_on(measured: dict[str, Any]) -> None:
    assert set(measured["host"]) == {"kernel", "cpu", "cpus", "python"}


@pytest.mark.kvm
def test_tcp_is_measured_when_asked_for() -> None:
    done = bench("--json", "--count", "20", "--transport", "tcp", "--wait", "adaptive")
    remote = [row for row in json.loads(done.stdout)["rows"] if row["name"] == "remote_in"]
    assert [row["transport"] for row in remote] == ["tcp"]


def test_a_count_out_of_range_is_refused_in_one_line() -> None:
    done = bench("--count", "3")
    assert done.returncode == 113
    assert "between 10 and 1000000" in done.stderr
    assert done.stderr.count("\n") == 1
