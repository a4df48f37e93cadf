"""Says what a host offers for running guests, and what to do about what it lacks."""

from __future__ import annotations

from kvmshim.doctor.environment import environment_findings, server_finding
from kvmshim.doctor.host import Host, Kvm, Limit, Node, ThisHost
from kvmshim.doctor.kvm import KvmExamination
from kvmshim.doctor.report import Finding, Measurements, Report, Status, as_table
from kvmshim.doctor.surroundings import look_around

__all__ = [
    "Finding",
    "Host",
    "Kvm",
    "Limit",
    "Measurements",
    "Node",
    "Report",
    "Status",
    "ThisHost",
    "as_table",
    "examine",
]


def examine(host: Host) -> Report:
    """Looks at everything; takes about a second. Lacks are findings, never exceptions."""
    around = look_around(host)
    kvm = KvmExamination(host, around)
    findings = list(kvm.findings())
    native, *rest = findings
    if native.status is Status.OK:
        rest.append(server_finding(host))
    rest += environment_findings(host, around)
    return Report((native, *rest), kvm.measurements)
