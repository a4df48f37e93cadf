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
from kvmshim.agent.migrate_out import MigrateOut
from kvmshim.agent.running import RunningVm, State
from kvmshim.errors import KvmshimError
from kvmshim.vmstate.file import decode_blocks, read_state
from kvmshim.vmstate.migrate_in import MigrateIn
from kvmshim.vmstate.state import DetachedDevices, Header, MachineState

_T = TypeVar("_T")


class Household(Protocol):
    """The agent, as far as VMs that come and go concern it."""

    def find(self, vm_id: int) -> RunningVm: ...
    def take_in(
        self,
        vm_id: int,
        name: str,
        epoch: int,
        read: Callable[[], MachineState | MigrateIn],
        on_failure: Callable[[str], None],
    ) -> RunningVm: ...
    def forget(self, vm_id: int) -> None: ...


class _Going(NamedTuple):
    migration: MigrateOut
    deciding: asyncio.Lock  # one thing at a time is done about whether it goes


class _Coming(NamedTuple):
    vm: RunningVm
    migration: MigrateIn | None  # None: it comes from a suspended state


class Migrating:
    """The migrations that this agent has a part in."""

    def __init__(self, household: Household) -> None:
        self._household = household
        self._going: dict[int, _Going] = {}
        self._coming: dict[int, _Coming] = {}
        self._peer: Peer | None = None

    def handlers(self) -> dict[str, Handler]:
        return {
            "depart": self._depart,
            "copy": self._copy,
            "leave": self._leave,
            "stay": self._stay,
            "departed": self._departed,
            "restore": self._restore,
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
        """The panel is gone: who was to go stays, who was to come does not.

        But where everything had gone over only the next panel knows: those stand still.
        """
        for vm_id in [vm_id for vm_id, coming in self._coming.items() if not coming.vm.doubt]:
            await self._abort(vm_id)
        for vm_id in [
            vm_id for vm_id, going in self._going.items() if not going.migration.vm.doubt
        ]:
            with contextlib.suppress(RpcError):
                await self._stay(vm_id)

    async def go_on(self, vm_id: int) -> bool:
        """The panel is back, and this VM is this client's; False if it was not on its way."""
        if vm_id in self._coming:
            await self._go(vm_id, self._coming[vm_id].vm.goes_on, watched=False)
        elif vm_id in self._going:
            await self._stay(vm_id)
        else:
            return False
        return True

    async def let_go(self, vm_id: int) -> bool:
        """The panel is back, and this VM is not this client's; False if it was not on its way."""
        if vm_id in self._coming:
            await self._abort(vm_id)
        elif vm_id in self._going:
            await self._departed(vm_id)
        else:
            return False
        return True

    # -- from here ----------------------------------------------------------------------------

    async def _depart(self, vm_id: int) -> dict[str, Any]:
        """A VM is to go: what it is and needs, as a parcel."""
        if vm_id in self._going:
            raise RpcError(f"VM {vm_id} is on its way already")
        migration = MigrateOut(self._household.find(vm_id))
        preliminary_header = await _do(migration.preliminary_header)
        self._going[vm_id] = _Going(migration, asyncio.Lock())
        try:
            return {"parcel": await self._send_header(preliminary_header)}
        except RpcError:
            await self._stay(vm_id)
            raise

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
        """The VM stops, its devices wait on their servers, and the rest of it is sent.

        Until all has been sent it may stay by itself; from then on only the panel knows.
        """
        migration = self._departure(vm_id)
        async with self._going[vm_id].deciding:
            last = await _do(migration.stop)
            copied = await self._copy(vm_id)
            parcel = await self._send_header(last.header)
            migration.vm.goes_on, migration.vm.doubt = last.was_running, "leaving"
        return {
            **copied,
            "parcel": parcel,
            "detached": to_plain(last.detached),
            "was_running": last.was_running,
            "console": migration.vm.console(),
        }

    async def _stay(self, vm_id: int, epoch: int = 0) -> bool:
        """The VM is not to go after all; whether it runs."""
        vm, going = self._household.find(vm_id), self._going.get(vm_id)
        vm.epoch = max(vm.epoch, epoch)
        if going is None:
            return vm.state is State.RUNNING
        async with going.deciding:
            if self._going.pop(vm_id, None) is None:
                return vm.goes_on
            try:
                await _do(going.migration.stay)
            except RpcError:
                await asyncio.to_thread(going.migration.done)
                self._household.forget(vm_id)
                raise
        return vm.goes_on

    async def _departed(self, vm_id: int) -> None:
        """The VM runs somewhere else."""
        migration = self._departure(vm_id)
        async with self._going[vm_id].deciding:
            self._going.pop(vm_id, None)
            await asyncio.to_thread(migration.done)
            self._household.forget(vm_id)

    def _departure(self, vm_id: int) -> MigrateOut:
        if vm_id not in self._going:
            raise RpcError(f"VM {vm_id} is not on its way from here")
        return self._going[vm_id].migration

    async def _send_header(self, header: Header) -> int:
        assert self._peer is not None
        with tempfile.NamedTemporaryFile(prefix="kvmshim-header-") as file:
            file.write(header.to_bytes())
            file.flush()
            return await self._peer.send_parcel(Path(file.name))

    # -- to here ------------------------------------------------------------------------------

    async def _restore(self, vm_id: int, name: str, parcel: int, epoch: int) -> None:
        """A VM that was suspended: it is made ready to run."""
        assert self._peer is not None
        with self._peer.parcels.open(parcel) as file:
            path = Path(file.name)
            vm = self._household.take_in(
                vm_id, name, epoch, lambda: read_state(path), lambda _: None
            )
            self._coming[vm_id] = _Coming(vm, None)
            vm.start()
            await asyncio.to_thread(vm.await_launch)
        await self._ready(vm_id, "restoring")

    async def _receive(self, vm_id: int, name: str, parcel: int, epoch: int) -> None:
        """A VM is to come: makes room for it. Refused if this host can't run it."""
        migration = MigrateIn(self._header(parcel))
        vm = self._household.take_in(vm_id, name, epoch, lambda: migration, migration.give_up)
        self._coming[vm_id] = _Coming(vm, migration)
        vm.start()
        await asyncio.to_thread(migration.await_wanted)
        await self._check(vm_id)

    async def _memory(self, vm_id: int, data: bytes) -> None:
        """A part of its memory."""
        migration = self._arrival(vm_id)
        await _do(lambda: migration.bring(list(decode_blocks(data))))

    async def _land(
        self,
        vm_id: int,
        parcel: int,
        detached: list[Any],
        console: tuple[bytes, int],
        was_running: bool,
    ) -> None:
        """All of it is here, and its devices are waiting: it is made ready to run."""
        vm, migration = self._arriving(vm_id).vm, self._arrival(vm_id)
        vm.continue_console(*console)
        vm.goes_on = was_running
        migration.complete(
            self._header(parcel), from_plain(tuple[DetachedDevices, ...], detached, "detached")
        )
        await asyncio.to_thread(vm.await_launch)
        await self._ready(vm_id, "arriving")

    async def _ready(self, vm_id: int, doubt: str) -> None:
        """It stands still until it is told to go: it may be this client's by now."""
        await self._check(vm_id)
        peer, vm = self._peer, self._arriving(vm_id).vm
        vm.doubt = doubt
        if peer is None or peer.gone.is_set():  # nobody can have told it to
            await self._abort(vm_id)

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
            if coming.migration is not None:
                coming.migration.give_up("it was to come from another client, and did not")
            coming.vm.silence()
            await asyncio.to_thread(coming.vm.stop)
            self._household.forget(vm_id)

    async def _check(self, vm_id: int) -> None:
        vm = self._arriving(vm_id).vm
        if vm.state is State.FAILED:
            await self._abort(vm_id)
            raise RpcError(vm.why)

    def _arrival(self, vm_id: int) -> MigrateIn:
        migration = self._arriving(vm_id).migration
        if migration is None:
            raise RpcError(f"VM {vm_id} comes from no other client")
        return migration

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
