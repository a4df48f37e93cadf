"""Machines as a program that uses the library makes them."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commandline import AT_MOST_S, children_of

from kvmshim.machinefile import MachineSpec
from kvmshim.vmm.assemble import machine_for, machine_of, parse_device
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import RunResult


def spec_of(
    what: str | Path, *devices: str, placement: str = "server", irqchip: str = "kernel"
) -> MachineSpec:
    """The machine of a guest, an image or a machine file, with further devices."""
    spec = dataclasses.replace(machine_of(str(what)), irqchip=irqchip).with_controllers()
    every = (*spec.devices, *map(parse_device, devices))
    if placement != "server":
        every = tuple(dataclasses.replace(device, placement=placement) for device in every)
    return dataclasses.replace(spec, devices=every)


def machine(
    what: str | Path,
    *devices: str,
    placement: str = "server",
    irqchip: str = "kernel",
    **more: Any,
) -> Machine:
    """A machine to be entered; ``more`` goes to :func:`kvmshim.vmm.assemble.machine_for`."""
    return machine_for(spec_of(what, *devices, placement=placement, irqchip=irqchip), **more)


class Terminal:
    """Takes the output of a machine's serial line."""

    def __init__(self, device: str = "com1") -> None:
        self.text = b""
        self._device = device
        self._reactions: list[tuple[bytes, Callable[[], object]]] = []

    def when(self, wanted: bytes, reaction: Callable[[], object]) -> None:
        """Calls ``reaction`` once ``wanted`` was printed."""
        self._reactions.append((wanted, reaction))

    def __call__(self, device: str, channel: str, data: bytes) -> None:
        if (device, channel) != (self._device, "tx"):
            return
        self.text += data
        for wanted, reaction in [r for r in self._reactions if r[0] in self.text]:
            self._reactions.remove((wanted, reaction))
            reaction()


def run(what: str | Path, *devices: str, **more: Any) -> tuple[RunResult, bytes]:
    """Runs a machine to its end; the result and what it printed."""
    terminal = Terminal()
    with machine(what, *devices, **more) as made:
        return made.run(timeout_s=AT_MOST_S, output=terminal), terminal.text


@dataclasses.dataclass(frozen=True)
class Holdings:
    """What this process has and would have to give back: descriptors, threads, children."""

    descriptors: Sequence[str]
    threads: Sequence[str]
    children: Sequence[int]

    @staticmethod
    def now() -> Holdings:
        """Those of this moment."""
        descriptors = []
        for number in os.listdir("/proc/self/fd"):
            try:
                descriptors.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
            except OSError:  # the one that lists them
                continue
        threads = [thread.name for thread in threading.enumerate()]
        return Holdings(sorted(descriptors), sorted(threads), sorted(children_of(os.getpid())))
