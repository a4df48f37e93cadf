"""What plots show, and that they are drawn."""

from pathlib import Path

import pytest

from kvmshim.bench.plots import draw, series
from kvmshim.bench.rows import Conditions, Row, make_row


def sweep() -> list[Row]:
    rtts = [
        make_row(name, [10_000 + rtt_ns], Conditions("tcp", policy=policy, rtt_ns=rtt_ns))
        for rtt_ns in (1_000_000, 0)
        for name, policy in (("remote_in", ""), ("print_polled", "strict"))
    ]
    vms = [make_row("vms_sync_per_s", [n * 100], Conditions(vms=n)) for n in (1, 8)]
    clients = [make_row("server_sync_per_s", [n * 10], Conditions(vms=n)) for n in (1, 8)]
    return rtts + vms + clients


def test_a_line_is_a_row_under_one_policy_in_the_order_of_its_points() -> None:
    lines = series(sweep()[:4], lambda row: row.rtt_ns, lambda row: row.median_ns)
    assert lines == {
        "remote_in": [(0, 10_000), (1_000_000, 1_010_000)],
        "print_polled strict": [(0, 10_000), (1_000_000, 1_010_000)],
    }


def test_each_sweep_is_drawn_as_svg_and_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = draw(sweep(), tmp_path / "new folder")
    assert sorted(path.name for path in files) == [
        "latency_over_rtt.png",
        "latency_over_rtt.svg",
        "throughput_over_clients.png",
        "throughput_over_clients.svg",
        "throughput_over_vms.png",
        "throughput_over_vms.svg",
    ]
    assert files[0].read_bytes().startswith(b"<?xml")
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_what_has_only_one_point_is_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw([make_row("remote_in", [1])], tmp_path) == []
