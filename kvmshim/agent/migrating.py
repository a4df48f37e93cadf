"""VMs that come and go: what the panel asks of the two agents of a migration (docs/panel.md)."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from devserver.plain import from_plain, to_plain
from devserver.rpc import Handler, Peer, RpcError
from kvmshim.agent.departure import Departure
from kvmshim.agent.running import RunningVm, State
from kvmshim.errors import KvmshimError
from kvmshim.vmstate.arrival import Arrival
from kvmshim.vmstate.file import decode_blocks
from kvmshim.vmstate.state import Header, Seat

_T = TypeVar("_T")


class Household(Protocol):
    """The agent, as far as VMs that come and go concern it."""

    def find(self, vm_id: int) -> RunningVm: ...
    def take_in(self, vm_id: int, name: str, arrival: Arrival) -> RunningVm: ...
    def forget(self, vm_id: int) -> None: ...


class _Coming(NamedTuple):
    vm: RunningVm
    arrival: Arrival


class Migrating:
    """The migrations that this agent has a part in."""

    def __init__(self, household: Household) -> None:
        self._household = household
        self._going: dict[int, Departure] = {}
        self._coming: dict[int, _Coming] = {}
        self._peer: Peer | None = None

    def handlers(self) -> dict[str, Handler]:
        return {
            "depart": self._depart,
            "copy": self._copy,
            "leave": self._leave,
            "stay": self._stay,
            "departed": self._departed,
            "receive": self._receive,
            "memory": self._memory,
            "land": self._land,
            "go": self._go,
            "abort": self._abort,
        }

    def met(self, peer: Peer) -> None:
        """The panel is there."""
        self._peer = peer

    async def lost(self) -> None:
        """The panel is gone: who was to go stays, who was to come does not."""
        for vm_id in list(self._coming):
            await self._abort(vm_id)
        for vm_id in list(self._going):
            with contextlib.suppress(RpcError):
                await self._stay(vm_id)

    # -- from here ----------------------------------------------------------------------------

    async def _depart(self, vm_id: int) -> dict[str, Any]:
        """A VM is to go: what it is and needs, as a parcel."""
        if vm_id in self._going:
            raise RpcError(f"VM {vm_id} is on its way already")
        departure = Departure(self._household.find(vm_id))
        prospect = await _do(departure.prospect)
        self._going[vm_id] = departure
        return {"parcel": await self._send_header(prospect)}

    async def _copy(self, vm_id: int) -> dict[str, int]:
        """Sends all memory, or what was written to since the last time; how much that was."""
        parts = await _do(self._departure(vm_id).memory)
        sent = 0
        while (part := await _do(lambda: next(parts, b""))) != b"":
            assert self._peer is not None
            await self._peer.call("memory", vm_id=vm_id, data=part)
            sent += len(part)
        return {"bytes": sent}

    async def _leave(self, vm_id: int) -> dict[str, Any]:
        """The VM stops, its devices wait on their servers, and the rest of it is sent."""
        departure = self._departure(vm_id)
        last = await _do(departure.stop)
        copied = await self._copy(vm_id)
        return {
            **copied,
            "parcel": await self._send_header(last.header),
            "seats": to_plain(last.seats),
            "was_running": last.was_running,
            "console": departure.vm.console(),
        }

    async def _stay(self, vm_id: int) -> None:
        """The VM is not to go after all."""
        departure = self._going.pop(vm_id, None)
        if departure is not None:
            try:
                await _do(departure.stay)
            except RpcError:
                departure.done()
                self._household.forget(vm_id)
                raise

    async def _departed(self, vm_id: int) -> None:
        """The VM runs somewhere else."""
        departure = self._departure(vm_id)
        del self._going[vm_id]
        await asyncio.to_thread(departure.done)
        self._household.forget(vm_id)

    def _departure(self, vm_id: int) -> Departure:
        if vm_id not in self._going:
            raise RpcError(f"VM {vm_id} is not on its way from here")
        return self._going[vm_id]

    async def _send_header(self, header: Header) -> int:
        assert self._peer is not None
        with tempfile.NamedTemporaryFile(prefix="kvmshim-header-") as file:
            file.write(header.to_bytes())
            file.flush()
            return await self._peer.send_parcel(Path(file.name))

    # -- to here ------------------------------------------------------------------------------

    async def _receive(self, vm_id: int, name: str, parcel: int) -> None:
        """A VM is to come: makes room for it. Refused if this host can't run it."""
        arrival = Arrival(self._header(parcel))
        vm = self._household.take_in(vm_id, name, arrival)
        self._coming[vm_id] = _Coming(vm, arrival)
        vm.start()
        await asyncio.to_thread(arrival.await_wanted)
        await self._check(vm_id)

    async def _memory(self, vm_id: int, data: bytes) -> None:
        """A part of its memory."""
        arrival = self._arriving(vm_id).arrival
        await _do(lambda: arrival.bring(list(decode_blocks(data))))

    async def _land(
        self, vm_id: int, parcel: int, seats: list[Any], console: tuple[bytes, int]
    ) -> None:
        """All of it is here, and its devices are waiting: it is made ready to run."""
        vm, arrival = self._arriving(vm_id)
        vm.continue_console(*console)
        arrival.complete(self._header(parcel), from_plain(tuple[Seat, ...], seats, "seats"))
        await asyncio.to_thread(vm.await_launch)
        await self._check(vm_id)

    async def _go(self, vm_id: int, run: bool, watched: bool) -> dict[str, Any]:
        """It is this client's; ``watched``: somebody looks at its console."""
        vm = self._arriving(vm_id).vm
        vm.watched = watched
        del self._coming[vm_id]
        await _do(lambda: vm.release(run=run))
        return {"devices": vm.devices}

    async def _abort(self, vm_id: int) -> None:
        """It does not come."""
        coming = self._coming.pop(vm_id, None)
        if coming is not None:
            coming.arrival.give_up("it was to come from another client, and did not")
            coming.vm.silence()
            await asyncio.to_thread(coming.vm.stop)
            self._household.forget(vm_id)

    async def _check(self, vm_id: int) -> None:
        vm = self._arriving(vm_id).vm
        if vm.state is State.FAILED:
            await self._abort(vm_id)
            raise RpcError(vm.why)

    def _arriving(self, vm_id: int) -> _Coming:
        if vm_id not in self._coming:
            raise RpcError(f"VM {vm_id} is not on its way here")
        return self._coming[vm_id]

    def _header(self, parcel: int) -> Header:
        assert self._peer is not None
        with self._peer.parcels.open(parcel) as file:
            file.seek(0)
            try:
                return Header.from_bytes(file.read())
            except KvmshimError as error:
                raise RpcError(str(error)) from None


async def _do(work: Callable[[], _T]) -> _T:
    try:
        return await asyncio.to_thread(work)
    except KvmshimError as error:
        raise RpcError(str(error)) from None
