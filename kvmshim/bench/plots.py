"""Plots of sweeps: latency over the round trip, throughput over the number of VMs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvmshim.bench.rows import Row
from kvmshim.errors import HostError

_FORMATS = ("svg", "png")
_SIZE_INCHES = (7.0, 4.5)
_PNG_DPI = 144


def check_matplotlib() -> None:
    """Raises HostError where there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise HostError("--plots needs matplotlib; install it with: pip install 'kvmshim[plots]'")


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draws what the rows of a sweep show; the files, one of each format for each plot."""
    check_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    over_rtt = [row for row in rows if row.per_s is None]
    over_vms = [row for row in rows if row.name.startswith("vms_")]
    over_clients = [row for row in rows if row.name.startswith("server_")]
    files = []
    if _points(over_rtt, _rtt_us):
        files += _save(folder / "latency_over_rtt", lambda axes: _latency(axes, over_rtt))
    if _points(over_vms, _vms):
        many = "virtual machines"
        files += _save(folder / "throughput_over_vms", lambda a: _throughput(a, over_vms, many))
    if _points(over_clients, _vms):
        many = "clients of one server"
        files += _save(
            folder / "throughput_over_clients", lambda a: _throughput(a, over_clients, many)
        )
    return files


def series(
    rows: Sequence[Row], x: Callable[[Row], float], y: Callable[[Row], float]
) -> dict[str, list[tuple[float, float]]]:
    """The lines of a plot by their names: points in the order of ``x``."""
    lines: dict[str, list[tuple[float, float]]] = {}
    several = len({row.wait for row in rows if row.wait}) > 1
    for row in rows:
        name = f"{row.name} {row.policy} {row.wait if several else ''}".strip()
        lines.setdefault(name, []).append((x(row), y(row)))
    return {name: sorted(points) for name, points in lines.items()}


def _points(rows: Sequence[Row], x: Callable[[Row], float]) -> bool:
    """Whether a line has at least two points."""
    return len({x(row) for row in rows}) > 1


def _rtt_us(row: Row) -> float:
    return row.rtt_ns / 1000


def _vms(row: Row) -> float:
    return float(row.vms)


def _latency(axes: Any, rows: Sequence[Row]) -> None:
    for name, points in series(rows, _rtt_us, lambda row: row.median_ns / 1000).items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xscale("symlog", linthresh=50)
    axes.set_yscale("log")
    axes.set_xlabel("round trip of the network [µs]")
    axes.set_ylabel("median time [µs]")


def _throughput(axes: Any, rows: Sequence[Row], many: str) -> None:
    for name, points in series(rows, _vms, lambda row: row.per_s or 0.0).items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(many)
    axes.set_ylabel("accesses per second, all together")


def _save(stem: Path, fill: Callable[[Any], None]) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    fill(axes)
    axes.grid(visible=True, which="major", alpha=0.4)
    axes.legend(fontsize="small")
    files = [stem.with_suffix(f".{kind}") for kind in _FORMATS]
    for file in files:
        figure.savefig(file, dpi=_PNG_DPI)
    return files
