"""Three clients, two servers, many VMs; devices and VMs that move about while guests checksum."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from commandline import command, devserver, read_until, start
from environment import GUESTS
from wires import switch

from devserver.rpc import Peer, RpcError, connect_panel

pytestmark = [pytest.mark.kvm, pytest.mark.netns]

TALLY = GUESTS / "tally.bin"
SUMS = re.compile(rb"ports [0-9A-F]{8} memory [0-9A-F]{8}\r\n")
CLIENTS = ("a", "b", "c")
DEVICES = ("pit", "rtc", "post", "testdev", "debugcon", "exit", "com1", "pic")
PLACES = ("devserver", "io", "local")


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Five machines on a switch; the address of the owner's panel."""
    with switch() as network, ExitStack() as stack:
        at_owner, address = network.host("owner")
        owner = f"tcp://{address}:7000"
        where = f"unix:{folder}/panel"
        stack.enter_context(devserver(owner, where, before=at_owner))
        at_io, address = network.host("io")
        join = ("host", "--join", owner, "--listen", f"tcp://{address}:7000", "--name", "io")
        stack.callback(_end, _serving([*at_io, *command(*join, program="devserver")], b"joined"))
        for name in CLIENTS:
            at_client, _ = network.host(name)
            agent = command("agent", "--server", owner, "--name", name)
            stack.callback(_end, _serving([*at_client, *agent], b"serves"))
        yield where


def _serving(line: list[str], wanted: bytes) -> subprocess.Popen[bytes]:
    process = start(line, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    read_until(process.stdout, wanted)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.communicate()


class Disturber:
    """Launches VMs, reads their consoles, and leaves them no peace until they end."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self.texts: dict[int, bytes] = {}
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.endings: dict[int, str] = {}
        self._peer = peer
        self._random = Random(seed)

    def handlers(self) -> dict[str, Any]:
        return {"output": self._output, "console_closed": self._closed}

    async def _output(self, vm_id: int, data: bytes) -> None:
        self.texts[vm_id] += data

    async def _closed(self, vm_id: int, why: str) -> None:
        if why != "suspended":
            self.endings[vm_id] = why

    async def launch(self, name: str, irqchip: str) -> None:
        image = await self._peer.send_parcel(TALLY)
        machine = f'[machine]\nirqchip = "{irqchip}"\n[image]\npath = "tally"\n'
        vm = await self._peer.call(
            "launch", name=name, machine=machine, image=image, image_name="tally", client=None
        )
        await self._watch(vm["vm_id"])

    async def _watch(self, vm_id: int) -> None:
        self.texts.setdefault(vm_id, b"")
        answer = await self._peer.call("console", vm=str(vm_id), write=False)
        self.texts[vm_id] += answer["backlog"]

    async def disturb(self) -> None:
        while alive := sorted(set(self.texts) - set(self.endings)):
            vm_id = self._random.choice(alive)
            kind = self._random.choice(["move"] * 3 + ["migrate"] * 2 + ["pause", "suspend"])
            try:
                await getattr(self, f"_{kind}")(str(vm_id))
                self.done[kind] += 1
            except RpcError as error:  # it has ended meanwhile, or is where it is to go
                self.refused[str(error)] += 1

    async def _move(self, vm: str) -> None:
        device, target = self._random.choice(DEVICES), self._random.choice(PLACES)
        await self._peer.call("move_device", vm=vm, device=device, target=target)

    async def _migrate(self, vm: str) -> None:
        await self._peer.call("migrate", vm=vm, client=self._random.choice(CLIENTS))

    async def _pause(self, vm: str) -> None:
        await self._peer.call("pause", vm=vm)
        await self._peer.call("resume", vm=vm, client=None)

    async def _suspend(self, vm: str) -> None:
        await self._peer.call("suspend", vm=vm)
        await self._peer.call("resume", vm=vm, client=self._random.choice(CLIENTS))
        await self._watch(int(vm))


async def run(where: str, vms: int, seed: int) -> Disturber:
    reader, writer = await connect_panel(where, "operator", "")
    handlers: dict[str, Any] = {}
    peer = Peer(reader, writer, handlers)
    disturber = Disturber(peer, seed)
    handlers.update(disturber.handlers())
    serving = asyncio.create_task(peer.serve())
    try:
        for number in range(vms):
            await disturber.launch(f"vm{number}", ("kernel", "remote")[number % 2])
        await disturber.disturb()
    finally:
        peer.close()
        await serving
    return disturber


@pytest.mark.parametrize("vms", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_every_guest_ends_with_the_right_sums(tmp_path: Path, vms: int) -> None:
    with site(tmp_path) as where:
        disturber = asyncio.run(run(where, vms, vms))
    print(disturber.done, disturber.refused)
    sums = {vm_id: SUMS.findall(text) for vm_id, text in disturber.texts.items()}
    assert [disturber.endings[vm_id] for vm_id, found in sums.items() if len(found) != 1] == []
    assert len(sums) == vms
    assert len({found[0] for found in sums.values()}) == 1
    assert disturber.done["move"] > 0
    assert disturber.done["migrate"] > 0
