"""The fleet and the registry kept alike: read at the beginning, written whenever something changed.

What has to be decided once for all servers (a name, a claim) goes to the registry first. All else
happens in the fleet and is written behind; while the database can't be had that is tried again and
again, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from devserver.panel.fleet import Fleet
from devserver.panel.registry.registry import Registry, Row
from devserver.protocol.messages import Hypervisor
from devserver.rpc import RpcError

log = logging.getLogger("devserver.panel")

#: The registry hears from this server at least so often.
_BEAT_S = 2.0
_RETRY_S = 1.0
_T = TypeVar("_T")

#: Asks the device host for the servers that it knows and what it has refused.
AskHost = Callable[[], Awaitable[dict[str, Any]]]


class Records:
    """One server's side of the registry at ``url``."""

    def __init__(
        self, url: str, server: str, address: str, fleet: Fleet, ask_host: AskHost
    ) -> None:
        self.server = server
        self._url = url
        self._address = address
        self._fleet = fleet
        self._ask_host = ask_host
        self._registry: Registry | None = None
        #: One at a time: a database in memory has one connection.
        self._thread = ThreadPoolExecutor(1, "registry")
        self._opening = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._touched = asyncio.Event()
        self._written: dict[int, Row] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._failing = False
        self._guests: dict[int, Row] | None = None
        self._closed = False

    async def open(self) -> None:
        """Reads what was known when the server ran last, unless that is done.

        Raises :class:`RegistryError`; it may be called again.
        """
        async with self._opening:
            if self._registry is None:
                self._registry = await self._in_thread(Registry, self._url, self.server)
                try:
                    await self.do(Registry.server_up, self._address)
                    clients = await self.do(Registry.clients)
                    vms = await self.do(Registry.vms)
                except RpcError:
                    self._registry = None
                    raise
                self._fleet.load(clients, [vm for vm in vms if vm["server"] == self.server])
                self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Writes what is left, and says that the server is down."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(RpcError):
                await self._save_vms()
                await self.do(Registry.server_down)
        self._closed = True
        if self._registry is not None:
            self._registry.close()
        self._thread.shutdown()

    async def do(self, work: Callable[..., _T], *arguments: Any, **more: Any) -> _T:
        """A method of :class:`Registry`, in its thread. Raises :class:`RegistryError`."""
        assert self._registry is not None
        return await self._in_thread(work, self._registry, *arguments, **more)

    def touch(self) -> None:
        """The fleet may have changed."""
        self._touched.set()

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any, **more: Any) -> _T:
        if self._closed:
            raise RpcError("the server is going down")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(*arguments, **more))

    # -- writing behind -----------------------------------------------------------------------

    async def _keep(self) -> None:
        wait_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._touched.wait()
            self._touched.clear()
            try:
                await self._write()
            except RpcError as error:
                self._fail(error)
                wait_s = _RETRY_S
            except Exception:  # whatever it was, the next change is to be written
                log.exception("the registry was not written")
                wait_s = _RETRY_S
            else:
                if self._failing:
                    log.info("the registry can be written again")
                self._failing, wait_s = False, _BEAT_S

    async def save(self) -> None:
        """Writes the VMs that have changed; later, if the registry can't be had now."""
        if self._registry is not None and not self._failing:
            try:
                await self._save_vms()
            except RpcError as error:
                self._fail(error)

    async def _save_vms(self) -> None:
        now = {vm.vm_id: vm.shown() for vm in self._fleet.vms.values()}
        changed = [row for vm_id, row in now.items() if self._written.get(vm_id) != row]
        if changed:
            await self.do(Registry.save_vms, changed)
            for row in changed:
                self._written[row["vm_id"]] = row
        for vm_id in self._written.keys() - self._fleet.vms.keys():
            del self._written[vm_id]

    def _fail(self, error: RpcError) -> None:
        if not self._failing:
            log.error("%s; going on without, and trying again", error)
        self._failing = True

    async def _write(self) -> None:
        await self._save_vms()
        host = await self._host()
        await self.do(Registry.heard, [s for s in host["servers"] if s["kind"] == "io"])

    async def guests(self) -> list[Row]:
        """The VMs that clients run by themselves, as they are now."""
        await self._host()
        return await self.do(Registry.guests)

    async def _host(self) -> dict[str, Any]:
        """What the device host says, with the attached VMs that no agent runs written down."""
        async with self._asking:
            host = await self._ask_host()
            guests = {
                guest["vm_id"]: {**guest, "hypervisor": _kind(guest["hypervisor"])}
                for guest in host["guests"]
                if guest["vm_id"] not in self._fleet.vms
            }
            known, self._guests = self._guests, None  # until this is written
            if guests != known:
                before = known or {}
                changed = [row for vm_id, row in guests.items() if before.get(vm_id) != row]
                gone = None if known is None else before.keys() - guests.keys()
                await self.do(Registry.save_guests, changed, gone)
            self._guests = guests
        return host


def _kind(number: int) -> str:
    """A hypervisor's name for its number in the protocol."""
    try:
        return Hypervisor(number).name.lower()
    except ValueError:
        return str(number)
