"""Machines on the Unicorn engine, and guests of a few instructions for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import library
from commandline import AT_MOST_S
from library import Terminal

from kvmshim.machinefile import MachineSpec
from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import RunResult


def emulated_spec(what: str | Path, *devices: str, placement: str = "local") -> MachineSpec:
    """The machine of a guest or an image, on the engine."""
    spec = library.spec_of(what, *devices, placement=placement)
    return dataclasses.replace(spec, hypervisor="unicorn")


def emulated(what: str | Path, *devices: str, placement: str = "local", **more: Any) -> Machine:
    """A machine on the engine, to be entered."""
    return machine_for(emulated_spec(what, *devices, placement=placement), **more)


def emulate(what: str | Path, *devices: str, **more: Any) -> tuple[RunResult, bytes]:
    """Runs one to its end; the result and what it printed."""
    terminal = Terminal()
    with emulated(what, *devices, **more) as made:
        return made.run(timeout_s=AT_MOST_S, output=terminal), terminal.text
