"""A running VM goes to another client platform; its devices stay where they are.

Its memory is copied in rounds while it runs, each round what was written to during the one before.
When little is left the VM stops, the rest goes over, and it runs on at the other client. Until that
has said so it can go back at any moment: its old client has all of it, and takes its devices again.
Whose it is, is written in the registry while it stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from devserver.panel.fleet import Fleet, Vm, VmState
from devserver.panel.records import Records
from devserver.panel.registry.registry import Registry
from devserver.rpc import LONG_S, Gone, Peer, RpcError

log = logging.getLogger("devserver.panel")

#: When a round has sent no more than this the next one is the last.
_LITTLE_BYTES = 64 * 1024
#: A guest that writes faster than it can be copied is stopped after so many rounds.
MAX_ROUNDS = 8


class Way(NamedTuple):
    """From one client's agent to another's."""

    source: Peer
    target: Peer
    target_name: str


class Migration:
    """One VM's way from a client to another."""

    def __init__(
        self, fleet: Fleet, records: Records, vm: Vm, way: Way, is_watched: Callable[[], bool]
    ) -> None:
        """``is_watched``: whether somebody looks at the VM's console."""
        self._fleet = fleet
        self._records = records
        self._is_watched = is_watched
        self._vm = vm
        self._source, self._target, self._target_name = way
        #: Set when it has come to its end, whatever that was.
        self.over = asyncio.Event()
        self._before = vm.state
        self._rounds: list[int] = []

    async def memory(self, data: bytes) -> None:
        """The source sends a part of the VM's memory."""
        await self._target.call("memory", vm_id=self._vm.vm_id, data=data)

    async def run(self) -> dict[str, Any]:
        """Does it all, for a VM that has just been put into its state MIGRATING; what it took.

        Raises :class:`RpcError`, with the VM where it was.
        """
        vm, fleet = self._vm, self._fleet
        source_name = vm.client
        went = False
        try:
            await self._copy_while_it_runs()
            stopped_s = time.monotonic()
            last = await self._move_rest()
            # From here on it is the target's, whoever dies.
            vm.epoch = await self._records.do(
                Registry.place_vm, vm.vm_id, self._target_name, str(VmState.MIGRATING)
            )
            vm.client, went = self._target_name, True
            more = {"run": last["was_running"], "watched": self._is_watched()}
            answer = await self._target.call("go", vm_id=vm.vm_id, **more)
        except RpcError as error:
            await self._back(error, source_name, went=went)
            raise RpcError(f"VM '{vm.name}' can't be migrated: {error}") from None
        downtime_s = time.monotonic() - stopped_s
        vm.devices = answer["devices"]
        if vm.state is VmState.MIGRATING:  # it may have ended by now
            fleet.step(vm, VmState.RUNNING if last["was_running"] else VmState.PAUSED)
        with contextlib.suppress(RpcError):
            await self._source.call("departed", vm_id=vm.vm_id)
        return {"rounds": self._rounds, "downtime_ns": int(downtime_s * 1e9)}

    async def _copy_while_it_runs(self) -> None:
        vm_id = self._vm.vm_id
        answer = await self._source.call("depart", vm_id=vm_id)
        prospect = await self._pass_on(answer["parcel"])
        more = {"name": self._vm.name, "parcel": prospect, "epoch": self._vm.epoch + 1}
        await self._target.call("receive", vm_id=vm_id, **more)
        while len(self._rounds) < MAX_ROUNDS:
            sent: int = (await self._source.call("copy", LONG_S, vm_id=vm_id))["bytes"]
            self._rounds.append(sent)
            if sent <= _LITTLE_BYTES or (len(self._rounds) > 2 and sent >= self._rounds[-2]):
                return

    async def _move_rest(self) -> dict[str, Any]:
        vm_id = self._vm.vm_id
        last: dict[str, Any] = await self._source.call("leave", vm_id=vm_id)
        self._rounds.append(last["bytes"])
        header = await self._pass_on(last["parcel"])
        more = {key: last[key] for key in ("detached", "console", "was_running")}
        await self._target.call("land", vm_id=vm_id, parcel=header, **more)
        return last

    async def _pass_on(self, parcel: int) -> int:
        with self._source.parcels.open(parcel) as file:
            return await self._target.send_parcel(Path(file.name))

    async def _back(self, error: RpcError, source_name: str, *, went: bool) -> None:
        """It did not work: the VM stays with the client that it was with."""
        vm, fleet = self._vm, self._fleet
        with contextlib.suppress(RpcError):
            await self._target.call("abort", vm_id=vm.vm_id)
        epoch = vm.epoch + 2  # whatever of the target's was written, or is still to be told
        try:
            await self._source.call("stay", vm_id=vm.vm_id, epoch=epoch)
        except RpcError as why:
            log.error("VM '%s' can't go on where it was: %s", vm.name, why)
            if vm.state is VmState.MIGRATING:
                # Where the target has vanished with it, only the target can tell how it is.
                state = VmState.LOST if went or isinstance(why, Gone) else VmState.FAILED
                fleet.step(vm, state, f"migrating failed: {error}; going back: {why}")
            return
        vm.client, vm.epoch = source_name, epoch
        if vm.state is VmState.MIGRATING:
            fleet.step(vm, self._before, f"migrating failed: {error}")
