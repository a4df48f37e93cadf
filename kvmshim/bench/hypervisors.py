"""``python -m kvmshim.bench.hypervisors``: what instructions and accesses cost on each hypervisor.

Each figure is the time between two writes to a port that nobody claims, divided by how often a
guest did something in between; the best of some runs.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvmshim.errors import HostError
from kvmshim.hypervisor.choose import choose
from kvmshim.loader.plan import BOOT_SECTOR_ADDRESS
from kvmshim.machinefile import ImageSpec, default_machine
from kvmshim.machinefile.spec import HYPERVISORS
from kvmshim.vmm.assemble import machine_for

_ROUNDS = 5
_MARK_PORT = 0xE8
_SCRATCH_REGISTER = 0x3FF  # of the first UART: a read of it always waits for its device
_FREE_PORT = 0x500


class Work(NamedTuple):
    """Something for a guest to do ``times`` times, with DX = ``port``."""

    name: str
    code: bytes
    port: int
    times: int
    #: What there is to count in it and in the loop around it.
    counted: int
    placement: str


_WORKS = (
    Work("an instruction", b"\x40\x31\xc3", 0, 200_000, 4, "local"),  # inc ax; xor bx, ax
    Work("IN, a port that nobody claims", b"\xec", _FREE_PORT, 5_000, 1, "local"),
    Work("IN, a device in the client", b"\xec", _SCRATCH_REGISTER, 5_000, 1, "local"),
    Work("IN, a device on a server", b"\xec", _SCRATCH_REGISTER, 5_000, 1, "server"),
)


def _image(work: Work) -> bytes:
    """mov ecx, times; mov dx, port; out; again: work; dec ecx; jnz again; out; leave."""
    mark = b"\xe6" + bytes([_MARK_PORT])
    body = work.code + b"\x66\x49"
    back = (-len(body) - 2 & 0xFF).to_bytes()
    head = (
        b"\x66\xb9" + work.times.to_bytes(4, "little") + b"\xba" + work.port.to_bytes(2, "little")
    )
    return head + mark + body + b"\x75" + back + mark + b"\xb0\x00\xe6\xf4\xf4"


def _once_ns(work: Work, hypervisor: str, image: Path) -> float:
    spec = default_machine()
    devices = tuple(dataclasses.replace(d, placement=work.placement) for d in spec.devices)
    boot = ImageSpec(path=image, load_address=BOOT_SECTOR_ADDRESS, bios=False)
    spec = dataclasses.replace(
        spec, devices=devices, image=boot, hypervisor=hypervisor, strict=True
    )
    with machine_for(spec) as machine:
        result = machine.run(timeout_s=60, trace_exits=2 * work.times)
    marks = [time_ns for time_ns, port in result.trace if port == _MARK_PORT]
    return (marks[1] - marks[0]) / work.times / work.counted


def measure(hypervisor: str) -> Iterator[tuple[str, float]]:
    """What each work costs, in ns. Raises :class:`HostError` if the hypervisor is not there."""
    with tempfile.TemporaryDirectory() as folder:
        for work in _WORKS:
            image = Path(folder) / "guest.bin"
            image.write_bytes(_image(work))
            yield work.name, min(_once_ns(work, hypervisor, image) for _ in range(_ROUNDS))


def main() -> None:
    """Prints a table for each hypervisor that is there."""
    for name in HYPERVISORS:
        try:
            choose(name).open().close()
        except HostError as error:
            print(f"{name}: {error}")
            continue
        print(f"{name}:")
        for work, cost_ns in measure(name):
            print(f"  {work:<32} {cost_ns:10.1f} ns")


if __name__ == "__main__":
    main()
