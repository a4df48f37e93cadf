"""How samples become rows, and rows become a table and JSON."""

import json

from kvmshim.bench.guest import delays, periods
from kvmshim.bench.rows import as_object, as_table, make_row


def test_a_row_holds_the_median_and_the_99th_percentile_of_its_samples() -> None:
    row = make_row("remote_in", list(range(1000, 0, -1)))
    assert (row.median_ns, row.p99_ns, row.count) == (500.5, 991, 1000)


def test_a_floor_is_the_sum_of_its_parts_medians() -> None:
    parts = [make_row("raw_exit", [100, 200, 300]), make_row("raw_pingpong", [50])]
    row = make_row("remote_in", [500], floor=parts)
    assert (row.floor, row.floor_ns, row.ratio) == ("raw_exit + raw_pingpong", 250, 2.0)


def test_a_row_without_a_floor_has_no_ratio() -> None:
    row = make_row("raw_exit", [100])
    assert row.floor_ns is None
    assert row.ratio is None


def test_samples_that_cover_several_accesses_are_divided_among_them() -> None:
    assert make_row("x", [1000, 3000], repeats=10).median_ns == 200


def test_the_table_has_a_line_per_row_and_aligned_columns() -> None:
    floor = make_row("raw_exit", [7640])
    row = make_row("remote_in", [15280], transport="unix", wait="spin", floor=[floor])
    head, first, second = as_table([floor, row])
    assert "7.64 us" in first
    assert second.split()[:3] == ["remote_in", "unix", "spin"]
    assert second.index("2.00") + len("2.00") == head.index("ratio") + len("ratio")


def test_the_object_is_plain_json_with_host_and_rows() -> None:
    found = json.loads(json.dumps(as_object({"cpus": [0]}, [make_row("raw_exit", [5])])))
    assert found["host"] == {"cpus": [0]}
    assert found["rows"][0]["name"] == "raw_exit"


def test_periods_are_the_times_between_exits_for_one_port() -> None:
    assert periods(((10, 0xE0), (15, 0x80), (30, 0xE0), (70, 0xE0)), 0xE0) == [20, 40]


def test_delays_are_those_from_a_cause_to_the_effect_that_follows_it_at_once() -> None:
    trace = ((10, 1), (15, 2), (20, 1), (21, 3), (25, 2), (30, 1), (38, 2))
    assert delays(trace, 1, 2) == [5, 8]
