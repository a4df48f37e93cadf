"""VMs of which their clients can't tell whether they have gone to another one.

The panel was lost in the middle of a migration, when the source had sent everything. The registry
knows whose the VM is. If it is the target's, the source stands still until the target is back: with
the VM, and the source lets go, or without, and the source goes on. A target that does not come in
time does not get it; the device servers give a VM's devices to one client only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from devserver.panel.fleet import PLACED, Fleet, VmState
from devserver.rpc import Peer, RpcError

log = logging.getLogger("devserver.panel")

#: For so long a source waits for its target: agents come back every second.
AT_MOST_S = 20.0


class Doubts:
    """The sources that wait."""

    def __init__(self, fleet: Fleet, peer_of: Callable[[str], Peer | None]) -> None:
        """``peer_of`` gives the agent of a name, if it is connected."""
        self._fleet = fleet
        self._peer_of = peer_of
        #: The client that waits, by VM, and until when by the loop's clock.
        self._waiting: dict[int, tuple[str, float]] = {}
        self._timers: set[asyncio.Task[None]] = set()

    def wait(self, source: str, vm_ids: Iterable[int]) -> None:
        """These VMs stand still on that client."""
        loop = asyncio.get_running_loop()
        for vm_id in vm_ids:
            self._waiting[vm_id] = (source, loop.time() + AT_MOST_S)
            task = loop.create_task(self._later())
            self._timers.add(task)
            task.add_done_callback(self._timers.discard)

    async def _later(self) -> None:
        await asyncio.sleep(AT_MOST_S)
        await self.settle()

    async def settle(self) -> None:
        """Tells those who wait, where that can be told by now."""
        now_s = asyncio.get_running_loop().time()
        for vm_id, (source, until_s) in list(self._waiting.items()):
            vm = self._fleet.vms.get(vm_id)
            if vm is not None and not self._fleet.is_online(vm.client) and now_s < until_s:
                continue
            self._waiting.pop(vm_id, None)
            peer = self._peer_of(source)
            if peer is None:
                continue
            try:
                if vm is None or (vm.state in PLACED and self._fleet.is_online(vm.client)):
                    await peer.call("departed", vm_id=vm_id)
                    continue
                epoch = vm.epoch + 1
                goes_on = await peer.call("stay", vm_id=vm_id, epoch=epoch)
            except RpcError as error:
                log.error("VM %d can't be settled on client '%s': %s", vm_id, source, error)
                continue
            vm.client, vm.epoch, vm.why = source, epoch, ""
            vm.state = VmState.RUNNING if goes_on else VmState.PAUSED
