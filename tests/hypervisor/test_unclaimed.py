"""Why a guest did not run: what it accessed that nobody claims is told, place by place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import library
import pytest
import tinyguest
from commandline import AT_MOST_S, kvmshim
from emulated import emulated

from kvmshim.vmm import pcmap
from kvmshim.vmm.outcome import Outcome, RunResult
from kvmshim.vmm.unclaimed import UnclaimedPlace

ATA_STATUS, PARALLEL, PCI_ADDRESS = 0x1F7, 0x378, 0xCF8
#: A protected-mode kernel's own: nothing of these is there without a device or an option.
HPET = 0xFED0_00F0
ORIGIN = 0x7C00

HYPERVISORS = [pytest.param("kvm", marks=pytest.mark.kvm), "unicorn"]


@pytest.fixture(params=HYPERVISORS)
def hypervisor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(hypervisor: str, folder: Path, code: bytes, **more: Any) -> RunResult:
    """Runs a guest of these instructions to its end."""
    image = folder / "guest.bin"
    image.write_bytes(code)
    make = library.machine if hypervisor == "kvm" else emulated
    with make(image, placement="local") as machine:
        return machine.run(timeout_s=AT_MOST_S, **more)


def repeat(times: int, code: bytes) -> bytes:
    """Does ``code``, which leaves CX alone, so often."""
    return (
        b"\xb9" + times.to_bytes(2, "little") + code + b"\xe2" + (-len(code) - 2 & 0xFF).to_bytes()
    )


def place_of(result: RunResult, port: int) -> UnclaimedPlace:
    (found,) = (p for p in result.unclaimed.places if p.is_port and p.low == port)
    return found


# -- what is told -------------------------------------------------------------------------------


def test_each_port_is_counted_with_its_first_and_last_access_and_its_name(
    hypervisor: str, tmp_path: Path
) -> None:
    code = (
        repeat(5, tinyguest.read(ATA_STATUS))
        + tinyguest.write(ATA_STATUS, 0xD1)
        + tinyguest.write(PARALLEL, 7)
        + tinyguest.HALT
    )
    result = run(hypervisor, tmp_path, code)
    disk, printer = place_of(result, ATA_STATUS), place_of(result, PARALLEL)
    assert result.outcome is Outcome.HALTED
    assert (disk.reads, disk.writes, disk.name) == (
        5,
        1,
        "ATA primary channel, status and command",
    )
    assert (disk.first.is_write, disk.first.value) == (False, 0xFF)
    assert (disk.last.is_write, disk.last.value) == (True, 0xD1)
    assert disk.first.time_ns < disk.last.time_ns <= printer.first.time_ns
    assert (printer.reads, printer.writes, printer.name) == (0, 1, "parallel port LPT1")
    assert result.stats["vcpu"]["unclaimed"] == 7


def test_the_guests_place_at_the_first_access_is_the_instruction_or_the_next(
    hypervisor: str, tmp_path: Path
) -> None:
    before = tinyguest.SPIN[:1] + b"\x02" + bytes(2)  # jmp over two bytes
    result = run(hypervisor, tmp_path, before + tinyguest.read(ATA_STATUS) + tinyguest.HALT)
    at = ORIGIN + len(before) + 3  # behind mov dx
    assert place_of(result, ATA_STATUS).code in (at, at + 1)


def test_the_most_used_place_comes_first_whatever_came_before_it(tmp_path: Path) -> None:
    every_port = repeat(0xFFFF, b"\xec\x42")  # in al, dx; inc dx
    waits = repeat(3000, tinyguest.read(PCI_ADDRESS))
    result = run("unicorn", tmp_path, b"\x31\xd2" + every_port + waits + tinyguest.HALT)
    hottest = result.unclaimed.places[0]
    assert (hottest.low, hottest.name) == (PCI_ADDRESS, "PCI configuration, address")
    assert hottest.reads == 3000
    assert len(result.unclaimed.places) <= 256
    told = sum(place.count for place in result.unclaimed.places)
    assert told + result.unclaimed.elsewhere == result.stats["vcpu"]["unclaimed"]


def test_memory_is_told_range_by_range(hypervisor: str, tmp_path: Path) -> None:
    unreal = bytes.fromhex(
        "fa"  # cli
        "2e 0f 01 16 28 7c"  # lgdt [cs:7c28h]
        "0f 20 c0 66 83 c8 01 0f 22 c0"  # cr0.PE = 1
        "bb 08 00 8e db"  # ds = a segment of 4 GiB
        "66 83 e0 fe 0f 22 c0"  # back to real mode
        "66 bb f0 00 d0 fe"  # mov ebx, HPET
        "67 8b 03"  # mov ax, [ebx]
        "f4"
    )
    table = b"\x0f\x00\x2e\x7c\x00\x00" + bytes(8) + bytes.fromhex("ffff 0000 00 92 cf 00")
    code = unreal.ljust(0x28, b"\x90") + table
    result = run(hypervisor, tmp_path, code)
    (place,) = result.unclaimed.places
    assert (place.is_port, place.low, place.high) == (False, HPET, HPET + 1)
    assert (place.name, place.reads, place.first.size) == ("HPET timers", 1, 2)
    assert "memory FED000F0h (HPET timers): 1 read, at " in place.line()


@pytest.mark.parametrize("device", [(), ("postcode,port=0x180",)], ids=["none", "elsewhere"])
def test_the_last_post_codes_are_told_though_no_device_is_there(
    hypervisor: str, device: Sequence[str], tmp_path: Path
) -> None:
    codes = b"".join(tinyguest.write(0x80, code) for code in range(1, 20))
    machine = tmp_path / "bare.toml"
    machine.write_text(
        f'[machine]\nboard = "none"\nhypervisor = "{hypervisor}"\n[image]\npath = "guest.bin"\n'
    )
    (tmp_path / "guest.bin").write_bytes(codes + tinyguest.HALT)
    with library.machine(machine, *device, placement="local") as bare:
        result = bare.run(timeout_s=AT_MOST_S)
    assert result.unclaimed.post_codes == tuple(range(4, 20))


@pytest.mark.parametrize("placement", ["local", pytest.param("server", marks=pytest.mark.kvm)])
def test_the_last_post_codes_are_told_though_a_device_takes_them(
    placement: str, tmp_path: Path
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(tinyguest.write(0x80, 0x41) + tinyguest.write(0x80, 0x42) + tinyguest.HALT)
    make = library.machine if placement == "server" else emulated
    with make(image, placement=placement) as machine:
        result = machine.run(timeout_s=AT_MOST_S)
    assert result.unclaimed.post_codes == (0x41, 0x42)
    assert result.reasons()[0] == "the last POST codes (port 80h): 41 42"


def test_text_that_nobody_shows_is_told(hypervisor: str, tmp_path: Path) -> None:
    put = b"".join(
        b"\xc6\x06" + (2 * at).to_bytes(2, "little") + bytes([character])  # mov byte [at], c
        for at, character in enumerate(b"No disk")
    )
    result = run(hypervisor, tmp_path, b"\xb8\x00\xb8\x8e\xd8" + put + tinyguest.HALT)
    assert result.screen == ("No disk",)
    assert result.reasons()[0].startswith("the guest's text screen (B8000h)")


# -- when it is told ------------------------------------------------------------------------------

POLLS = tinyguest.for_ever(tinyguest.read(PCI_ADDRESS))
#: lidt [500h], which is zeros; into protected mode; int3: no handler for anything.
TRIPLE_FAULT = bytes.fromhex("fa 0f011e0005 0f20c0 0c01 0f22c0 cc")


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("ends", "options", "status"),
    [
        (POLLS, ("--timeout", "0.2"), 124),
        (tinyguest.HALT, (), 118),
        (TRIPLE_FAULT, (), 117),
    ],
    ids=["timeout", "halted", "crashed"],
)
def test_an_end_that_is_not_the_guests_own_names_what_nobody_claims(
    ends: bytes, options: Sequence[str], status: int, tmp_path: Path
) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(tinyguest.read(PCI_ADDRESS) + ends)
    result = kvmshim("run", image, *options)
    assert result.returncode == status
    assert b"port cf8h (PCI configuration, address): " in result.stderr
    assert b"the image was taken for kind 'flat'" in result.stderr


@pytest.mark.kvm
def test_an_end_of_the_guests_own_is_quiet_and_its_counters_tell(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(tinyguest.read(PCI_ADDRESS) + tinyguest.leave(0))
    assert kvmshim("run", image).stderr == b""
    told = json.loads(kvmshim("run", image, "--stats").stderr)["vcpu"]
    (place,) = told["unclaimed_places"]
    assert (place["low"], place["reads"], place["name"]) == (
        PCI_ADDRESS,
        1,
        "PCI configuration, address",
    )


# -- the names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [pcmap.PORTS, pcmap.MEMORY], ids=["ports", "memory"])
def test_every_range_of_a_pc_names_something(ranges: tuple[pcmap.Range, ...]) -> None:
    for at, here in enumerate(ranges):
        before = ranges[:at]
        assert here.first <= here.last
        assert any(
            not any(other.first <= address <= other.last for other in before)
            for address in (here.first, here.last, *(r.last + 1 for r in before))
            if here.first <= address <= here.last
        ), f"{here} is hidden"
