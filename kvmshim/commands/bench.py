"""``kvmshim bench``: measures what accesses cost, beside the floors of the same run."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devserver.commandline.progress import Progress
from kvmshim.errors import HostError, InputError

if TYPE_CHECKING:
    from kvmshim.bench.fleet import Fleet
    from kvmshim.bench.rows import Row
    from kvmshim.bench.suite import Choice

_TRANSPORTS = ("unix", "unix-socket", "tcp")
_WAITS = ("spin", "block", "adaptive")
_CORES = ("auto", "any", "same", "apart")
_SWEEPS = ("rtt", "vms", "clients")


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "bench", help="measure what accesses cost, beside what they can't be cheaper than"
    )
    parser.add_argument("--transport", choices=_TRANSPORTS, action="append")
    parser.add_argument("--wait", choices=_WAITS, action="append")
    parser.add_argument(
        "--cores",
        choices=_CORES,
        default="auto",
        help="where both ends of a row and of its floor run (auto: on one core to block, else any)",
    )
    parser.add_argument("--count", type=_count, default=3000, help="accesses per figure")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="only these rows")
    parser.add_argument(
        "--server", metavar="ADDRESS", help="measure against this server instead of own ones"
    )
    parser.add_argument(
        "--sweep",
        choices=_SWEEPS,
        action="append",
        default=[],
        help="measure over round trips (in a lab; needs root), VMs or clients of a server, instead",
    )
    parser.add_argument("--plots", metavar="DIR", help="draw the sweeps there (needs matplotlib)")
    parser.add_argument(
        "--compare", metavar="OLD.json", help="set the ratios beside those of an earlier --json"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table or the JSON object; progress goes to standard error."""
    _check(options)
    from kvmshim.bench.compare import Earlier, Key, read_rows

    before: dict[Key, Earlier] | None = read_rows(options.compare) if options.compare else None
    fleets: list[Fleet] = []
    rows = _sweep(options, fleets) if options.sweep else _measure(_choice(options))
    if options.json:
        print(json.dumps(_document(rows, fleets, before), indent=2))
    else:
        print("\n".join(_for_people(rows, fleets, before)))
    if options.plots:
        from kvmshim.bench.plots import draw

        for path in draw(rows, Path(options.plots)):
            print(f"kvmshim: wrote {path}", file=sys.stderr)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raises before anything is measured what would otherwise come after it."""
    if options.plots:
        if not options.sweep:
            raise InputError("--plots shows sweeps; give --sweep as well")
        from kvmshim.bench.plots import check_matplotlib

        check_matplotlib()
    if options.sweep and options.only:
        raise InputError("--only chooses among the rows of a run without --sweep; leave one out")
    if options.sweep and (options.transport or options.cores != "auto"):
        raise InputError("--sweep chooses transport and cores; leave --transport and --cores out")
    if options.sweep and options.server:
        raise InputError("--sweep starts servers of its own; leave --server out")
    if "rtt" in options.sweep:
        from kvmshim.bench.sweeps import check_lab

        check_lab()


def _document(rows: list[Row], fleets: list[Fleet], before: Any) -> dict[str, Any]:
    from kvmshim.bench.compare import compare
    from kvmshim.bench.rows import as_object
    from kvmshim.bench.suite import describe_host

    document = as_object(describe_host(), rows)
    if fleets:
        document["fleets"] = [asdict(fleet) for fleet in fleets]
    if before is not None:
        document["compared"] = asdict(compare(before, rows))
    return document


def _for_people(rows: list[Row], fleets: list[Fleet], before: Any) -> list[str]:
    from kvmshim.bench.compare import as_lines
    from kvmshim.bench.rows import as_table

    lines = as_table(rows) if before is None else as_lines(before, rows)
    if fleets:
        from kvmshim.bench.sweeps import idle_table

        lines += ["", *idle_table(fleets)]
    return lines


def _choice(options: argparse.Namespace) -> Choice:
    from devserver.protocol.address import AddressError, parse_address
    from kvmshim.bench.suite import NAMES, Choice
    from kvmshim.bench.sweeps import rtt_of_this_lab

    for name in options.only:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(NAMES)}"
            raise InputError(f"--only {name}: there is no such row; {hint}")
    if options.server is not None:
        try:
            parse_address(options.server)
        except AddressError as error:
            raise InputError(str(error)) from None
    return Choice(
        transports=options.transport or ("unix",),
        waits=options.wait or ("spin", "block"),
        cores=options.cores,
        count=options.count,
        only=options.only,
        server=options.server,
        rtt_ns=rtt_of_this_lab() if options.server else 0,
    )


def _measure(choice: Choice) -> list[Row]:
    from kvmshim.bench.suite import Suite

    rows: list[Row] = []
    with Progress() as progress:
        steps = Suite(choice, lambda line: progress.note(f"kvmshim: {line}")).steps()
        for number, step in enumerate(steps, 1):
            progress.show(f"{number}/{len(steps)} {step.title()}")
            try:
                rows += step.run()
            except HostError as error:
                if not step.optional:
                    raise
                progress.note(f"kvmshim: {', '.join(step.names)} left out: {error}")
    return [row for row in rows if not choice.only or row.name in choice.only]


def _sweep(options: argparse.Namespace, fleets: list[Fleet]) -> list[Row]:
    """The rows of the sweeps; what idle VMs took goes into ``fleets``."""
    with Progress() as progress:
        return _swept(options, fleets, progress)


def _swept(options: argparse.Namespace, fleets: list[Fleet], progress: Progress) -> list[Row]:
    from kvmshim.bench import sweeps
    from kvmshim.bench.rows import in_words

    rows: list[Row] = []
    waits = options.wait or ("adaptive",)
    for rtt_ns in sweeps.RTTS_NS if "rtt" in options.sweep else ():
        progress.show(f"a round trip of {in_words(rtt_ns)}")
        rows += sweeps.sweep_rtt(rtt_ns, options.count, waits)
    for vms in sweeps.VMS if "vms" in options.sweep else ():
        progress.show(f"{vms} VMs")
        try:
            found = sweeps.sweep_vms(vms, options.count, waits)
        except HostError as error:  # too many for this host: what was measured still counts
            progress.note(f"kvmshim: {error}; its rows are left out")
            continue
        rows += found.rows
        fleets += found.idle
    for clients in sweeps.CLIENTS if "clients" in options.sweep else ():
        progress.show(f"{clients} clients")
        rows += sweeps.sweep_clients(clients, options.count)
    return rows


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 10 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 10 and 1000000")
    return value
