"""``kvmshim bench`` as a user runs it. What the figures are is not tested, only that they are."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from kvmshim.bench.rows import Row
from kvmshim.bench.suite import NAMES
from kvmshim.bench.sweeps import FLEET_NAMES

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("raw_exit", "raw_coalesced_exit", "raw_irq_delivery", "raw_pingpong", "remote_in")


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvmshim", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def manual_table(heading: str) -> list[str]:
    manual = (ROOT / "docs" / "performance.md").read_text()
    table = manual.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    done = bench("--json", "--count", "20", "--wait", "adaptive", "--only", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_manual_lists_every_row_in_order_and_no_other() -> None:
    assert tuple(manual_table("The rows")) == (*NAMES, *FLEET_NAMES)


def test_the_manual_lists_every_field_of_a_row_and_no_other() -> None:
    assert manual_table("In JSON") == [field.name for field in fields(Row)]


@pytest.mark.kvm
def test_it_measures_what_was_asked_for_and_nothing_else(measured: dict[str, Any]) -> None:
    assert {row["name"] for row in measured["rows"]} == set(QUICK)


@pytest.mark.kvm
def test_every_figure_is_there_and_stands_beside_its_floor(measured: dict[str, Any]) -> None:
    for row in measured["rows"]:
        assert set(row) == {field.name for field in fields(Row)}
        assert 0 < row["median_ns"] <= row["p99_ns"]
        assert (row["ratio"] is None) == (row["floor_ns"] is None) == (not row["floor"])
        assert row["count"] >= 5


@pytest.mark.kvm
def test_it_says_what_it_was_measured_on(measured: dict[str, Any]) -> None:
    assert set(measured["host"]) == {"kernel", "cpu", "cpus", "python"}


@pytest.mark.kvm
def test_tcp_is_measured_when_asked_for() -> None:
    arguments = ("--transport", "tcp", "--wait", "adaptive", "--only", "remote_in")
    done = bench("--json", "--count", "10", *arguments)
    assert [row["transport"] for row in json.loads(done.stdout)["rows"]] == ["tcp"]


@pytest.mark.kvm
def test_a_workload_is_measured_under_each_policy() -> None:
    done = bench("--json", "--count", "10", "--only", "rep_insw_1m")
    rows = json.loads(done.stdout)["rows"]
    assert {row["policy"] for row in rows} == {"strict", "declared", "local"}


@pytest.mark.kvm
def test_a_comparison_stands_in_the_object_too(measured: dict[str, Any], tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(measured))
    done = bench("--json", "--count", "10", "--only", "raw_exit", "--compare", str(old))
    compared = json.loads(done.stdout)["compared"]
    assert [change["title"] for change in compared["changes"]] == ["raw_exit"]
    assert "remote_in unix adaptive any" in compared["missing"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--count", "3"), "between 10 and 1000000"),
        (("--only", "remote_inn"), "did you mean 'remote_in'?"),
        (("--compare", "/nowhere/old.json"), "can't read /nowhere/old.json"),
        (("--cores", "two"), "invalid choice: 'two'"),
        (("--plots", "figures"), "give --sweep"),
        (("--sweep", "vms", "--only", "remote_in"), "leave one out"),
        (("--sweep", "vms", "--server", "unix:/s"), "leave --server out"),
        (("--sweep", "vms", "--cores", "same"), "leave --transport and --cores out"),
        (("--server", "ftp://x"), "ftp://x"),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (113, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_plots_without_their_library_name_the_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    done = bench("--sweep", "vms", "--plots", "x", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stderr.count("\n")) == (114, 1)
    assert "pip install 'kvmshim[plots]'" in done.stderr
