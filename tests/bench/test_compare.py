"""What a comparison with an earlier run says."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kvmshim.bench.compare import as_lines, compare, read_rows
from kvmshim.bench.rows import Conditions, Part, Row, as_object, make_row
from kvmshim.errors import InputError


def row(name: str, median_ns: int, floor_ns: float = 0, **at: Any) -> Row:
    floor = [Part("raw_exit", floor_ns)] if floor_ns else []
    return make_row(name, [median_ns], Conditions(**at), floor=floor)


def written(path: Path, *rows: Row) -> str:
    path.write_text(json.dumps(as_object({}, rows)))
    return str(path)


def test_rows_with_floors_are_compared_by_their_ratios(tmp_path: Path) -> None:
    before = read_rows(written(tmp_path / "old.json", row("remote_in", 300, 100)))
    (change,) = compare(before, [row("remote_in", 330, 220)]).changes
    assert (change.by, change.old, change.new, change.change) == ("ratio", 3.0, 1.5, 0.5)


def test_rows_without_floors_are_compared_by_their_medians(tmp_path: Path) -> None:
    before = read_rows(written(tmp_path / "old.json", row("raw_exit", 8000)))
    (change,) = compare(before, [row("raw_exit", 10000)]).changes
    assert (change.by, change.change) == ("median", 1.25)


def test_rows_of_one_run_only_are_named(tmp_path: Path) -> None:
    old = written(tmp_path / "old.json", row("remote_in", 1, transport="unix", wait="spin"))
    found = compare(read_rows(old), [row("remote_in", 1, transport="unix", wait="block")])
    assert found.changes == ()
    assert (found.missing, found.new) == (("remote_in unix spin",), ("remote_in unix block",))


def test_rows_under_different_conditions_are_different_rows(tmp_path: Path) -> None:
    rows = [row("print_polled", 1, policy="strict"), row("print_polled", 1, rtt_ns=1000)]
    before = read_rows(written(tmp_path / "old.json", *rows, row("vms_sync_per_s", 1, vms=8)))
    titles = {change.title for change in compare(before, rows).changes}
    assert titles == {"print_polled strict", "print_polled rtt 1.00 us"}
    assert compare(before, rows).missing == ("vms_sync_per_s 8 vms",)


def test_a_file_of_a_version_that_knew_fewer_fields_can_be_compared(tmp_path: Path) -> None:
    known = ("name", "transport", "wait", "rtt_ns", "median_ns", "ratio")
    older = {field: asdict(row("remote_in", 200, 100))[field] for field in known}
    (tmp_path / "old.json").write_text(json.dumps({"rows": [older]}))
    found = compare(read_rows(str(tmp_path / "old.json")), [row("remote_in", 100, 100)])
    assert [change.change for change in found.changes] == [0.5]


def test_people_see_the_change_and_what_is_missing(tmp_path: Path) -> None:
    rows = [row("remote_in", 300, 100), row("model_in", 800)]
    before = read_rows(written(tmp_path / "old.json", *rows))
    _, line, missing = as_lines(before, [row("remote_in", 150, 100)])
    assert line.split() == ["remote_in", "ratio", "3.00", "1.50", "x", "0.50"]
    assert missing == "not measured this time: model_in"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"rows": 3}',
        '{"rows": [3]}',
        '{"rows": [{"name": "a"}]}',
        '{"rows": [{"name": "a", "median_ns": 0}]}',
        '{"rows": [{"name": "a", "median_ns": "x"}]}',
        '{"rows": [{"name": [], "median_ns": 1}]}',
        '{"rows": [{"name": "a", "wait": {}, "median_ns": 1}]}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_benchmarks_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(InputError, match=r"old\.json (is not JSON|holds no rows)") as refused:
        read_rows(str(tmp_path / "old.json"))
    assert "\n" not in str(refused.value)


def test_the_same_row_on_other_cores_is_another_row(tmp_path: Path) -> None:
    places = [
        row("raw_pingpong", ns, wait="block", cores=at) for at, ns in (("same", 8), ("any", 9))
    ]
    before = read_rows(written(tmp_path / "old.json", *places))
    found = compare(before, [row("raw_pingpong", 16, wait="block", cores="same")])
    assert [(change.title, change.change) for change in found.changes] == [
        ("raw_pingpong block same", 2.0)
    ]
    assert found.missing == ("raw_pingpong block any",)


def test_a_file_that_does_not_say_the_cores_stands_for_any(tmp_path: Path) -> None:
    before = read_rows(written(tmp_path / "old.json", row("remote_in", 10, wait="block")))
    found = compare(before, [row("remote_in", 30, wait="block", cores="same")])
    assert [change.change for change in found.changes] == [3.0]
    assert (found.missing, found.new) == ((), ())
