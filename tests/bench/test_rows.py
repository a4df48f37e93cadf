"""How samples become rows, and rows become a table and JSON."""

import json

from kvmshim.bench.guest import delays, periods
from kvmshim.bench.rows import Conditions, Part, as_object, as_table, in_words, make_row


def test_a_row_holds_the_median_and_the_99th_percentile_of_its_samples() -> None:
    row = make_row("remote_in", list(range(1000, 0, -1)))
    assert (row.median_ns, row.p99_ns, row.count) == (500.5, 991, 1000)


def test_the_spread_is_from_the_first_quartile_to_the_third() -> None:
    assert make_row("remote_in", [50, 10, 40, 20, 30]).iqr_ns == 20
    assert make_row("remote_in", [7]).iqr_ns == 0


def test_a_floor_is_the_sum_of_its_parts() -> None:
    row = make_row("remote_in", [500], floor=[Part("raw_exit", 200), Part("raw_pingpong", 50)])
    assert (row.floor, row.floor_ns, row.ratio) == ("raw_exit + raw_pingpong", 250, 2.0)


def test_a_row_without_a_floor_has_no_ratio() -> None:
    row = make_row("raw_exit", [100])
    assert row.floor_ns is None
    assert row.ratio is None


def test_samples_that_cover_several_accesses_are_divided_among_them() -> None:
    assert make_row("x", [1000, 3000], repeats=10).median_ns == 200


def test_a_rate_is_given_per_second_as_well() -> None:
    assert make_row("server_sync_per_s", [10_000]).per_s == 100_000
    assert make_row("remote_in", [10_000]).per_s is None


def test_a_row_names_its_conditions() -> None:
    at = Conditions("unix", "block", "same", "strict", rtt_ns=5, vms=8)
    row = make_row("x", [1], at)
    assert (row.transport, row.wait, row.cores) == ("unix", "block", "same")
    assert (row.policy, row.rtt_ns, row.vms) == ("strict", 5, 8)


def test_the_table_has_a_line_per_row_and_aligned_columns() -> None:
    floor = make_row("raw_exit", [7640])
    at = Conditions("unix", "spin")
    row = make_row("remote_in", [15280], at, floor=[Part("raw_exit", 7640)])
    head, first, second = as_table([floor, row])
    assert "7.64 us" in first
    assert second.split()[:3] == ["remote_in", "unix", "spin"]
    assert second.index("2.00") + len("2.00") == head.index("ratio") + len("ratio")


def test_the_table_leaves_out_columns_that_say_nothing() -> None:
    head, _ = as_table([make_row("raw_exit", [7640])])
    assert head.split() == ["name", "median", "iqr", "p99"]


def test_times_have_the_unit_that_suits_them() -> None:
    assert (in_words(1500), in_words(2_500_000)) == ("1.50 us", "2.50 ms")


def test_the_object_is_plain_json_with_host_and_rows() -> None:
    found = json.loads(json.dumps(as_object({"cpus": [0]}, [make_row("raw_exit", [5])])))
    assert found["host"] == {"cpus": [0]}
    assert found["rows"][0]["name"] == "raw_exit"


def test_periods_are_the_times_between_exits_for_one_port() -> None:
    assert periods(((10, 0xE0), (15, 0x80), (30, 0xE0), (70, 0xE0)), 0xE0) == [20, 40]


def test_delays_are_those_from_a_cause_to_the_effect_that_follows_it_at_once() -> None:
    trace = ((10, 1), (15, 2), (20, 1), (21, 3), (25, 2), (30, 1), (38, 2))
    assert delays(trace, 1, 2) == [5, 8]
