"""What the doctor found, as data, as a JSON object, and as a table for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: Guest instructions a second below which KVM must be emulating guest code: processors that run
#: it themselves do more than 100 million, KVM's instruction emulator about 2 million.
EMULATED_BELOW = 20_000_000

_WIDTH = 100


class Status(StrEnum):
    """What a finding means for running guests."""

    OK = "ok"
    MISSING = "missing"  # guests can't run without it
    WARNING = "warning"  # guests run, but slower or with something less
    INFO = "info"


_COLOURS = {Status.OK: "32", Status.MISSING: "31;1", Status.WARNING: "33", Status.INFO: "36"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``name`` never changes its meaning; ``value`` and ``advice`` are prose.

    ``use`` says what a capability is for.
    """

    name: str
    status: Status
    value: str
    advice: str = ""
    use: str = ""

    def as_object(self) -> dict[str, str]:
        """For JSON; every key is always there."""
        return {
            "name": self.name,
            "status": self.status.value,
            "value": self.value,
            "advice": self.advice,
            "use": self.use,
        }


@dataclass(frozen=True)
class Measurements:
    """How fast a guest ran: real-mode instructions a second, and an exit to user space in ns."""

    instructions_per_second: float
    exit_median_ns: int
    exit_p99_ns: int

    @property
    def emulated(self) -> bool:
        """Whether KVM interprets guest code in software here."""
        return self.instructions_per_second < EMULATED_BELOW

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "instructions_per_second": round(self.instructions_per_second),
            "exit_ns": {"median": self.exit_median_ns, "p99": self.exit_p99_ns},
            "emulated": self.emulated,
        }


@dataclass(frozen=True)
class Report:
    """All findings in the order of looking; ``measurements`` is None if no guest could run."""

    findings: tuple[Finding, ...]
    measurements: Measurements | None = None

    @property
    def ok(self) -> bool:
        """Whether guests can run here."""
        return not self.names(Status.MISSING)

    def names(self, status: Status) -> list[str]:
        """The names of the findings with that status."""
        return [finding.name for finding in self.findings if finding.status is status]

    def as_object(self) -> dict[str, Any]:
        """The JSON object that docs/doctor.md describes."""
        measured = self.measurements.as_object() if self.measurements else None
        return {
            "ok": self.ok,
            "findings": [finding.as_object() for finding in self.findings],
            "measurements": measured,
        }

    def summary(self) -> str:
        """One line: can guests run here, how fast, and what to look at."""
        missing, warnings = self.names(Status.MISSING), self.names(Status.WARNING)
        if missing:
            return f"Guests can't run here. Missing: {', '.join(missing)}."
        text = "Guests can run here"
        if self.measurements is not None:
            how = "emulated in software" if self.measurements.emulated else "run by the processor"
            text += f", {how}"
        return f"{text}. Worth a look: {', '.join(warnings)}." if warnings else f"{text}."


def as_table(report: Report, *, colour: bool) -> list[str]:
    """Lines for people: status, name, value and use in columns, advice below, a summary last."""
    name_width = max((len(finding.name) for finding in report.findings), default=0)
    value_width = max((len(f.value) for f in report.findings if f.use), default=0)
    lines = []
    for finding in report.findings:
        status = _paint(finding.status, f"{finding.status.value:7}", colour)
        value = f"{finding.value:{value_width}}  {finding.use}" if finding.use else finding.value
        lines.append(f"{status}  {finding.name:{name_width}}  {value}".rstrip())
        lines += _advice(finding.advice, indent=name_width + 11)
    verdict = Status.OK if report.ok else Status.MISSING
    return [*lines, "", _paint(verdict, report.summary(), colour)]


def _advice(advice: str, indent: int) -> Sequence[str]:
    return textwrap.wrap(
        advice,
        _WIDTH,
        initial_indent=f"{'':{indent}}-> ",
        subsequent_indent=" " * (indent + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _paint(status: Status, text: str, colour: bool) -> str:
    return f"\033[{_COLOURS[status]}m{text}\033[0m" if colour else text
