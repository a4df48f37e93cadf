"""The agent's conversation with the panel: it reports its VMs and does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from devserver.rpc import Gone, Handler, Peer, RpcError, Unable, connect_panel
from kvmshim.agent.abilities import hypervisors
from kvmshim.agent.backoff import pauses
from kvmshim.agent.migrating import Migrating
from kvmshim.agent.notes import Notes
from kvmshim.agent.running import Listeners, RunningVm, State
from kvmshim.errors import KvmshimError, ServerError
from kvmshim.machinefile import ImageSpec, load_machine
from kvmshim.remote.link import WaitPolicy
from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.machine import Machine
from kvmshim.vmstate.migrate_in import MigrateIn
from kvmshim.vmstate.state import MachineState

log = logging.getLogger("kvmshim.agent")

#: A panel that is there, and whose registry is, takes an agent in within this time.
_REGISTER_S = 30.0
_HELD_S = 0.002
_ENDED = (State.STOPPED, State.FAILED)

_T = TypeVar("_T")


class Agent:
    """Runs VMs until it is told to end."""

    def __init__(self, server: str, name: str, wait: WaitPolicy, *, patient: bool = True) -> None:
        """``patient``: it waits for a server that is not there yet."""
        self._server = server
        self._name = name
        self._wait = wait
        self._patient = patient
        self._is_new, self._waiting = True, False
        self._pauses = pauses()
        #: Held while it is said that all is to end, from another thread.
        self._guard = threading.Lock()
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._vms: dict[int, RunningVm] = {}
        self._folders: dict[int, tempfile.TemporaryDirectory[str]] = {}
        self._peer: Peer | None = None
        self._migrating = Migrating(self)
        self._notes = Notes()

    async def run(self) -> None:
        """Serves the panel until :meth:`end`, and comes back when the connection is lost.

        Raises :class:`ServerError` if the panel refuses this agent when it comes first, or
        (unless it is to wait) if the server can't be reached then.
        """
        self._notes.begin()
        with self._guard:
            self._loop, self._serving = asyncio.get_running_loop(), asyncio.current_task()
            ending = self._ending
        with contextlib.suppress(asyncio.CancelledError):
            while not ending:
                await self._serve_and_wait()

    async def _serve_and_wait(self) -> None:
        try:
            await self._visit()
            log.warning("lost the panel at %s; coming back", self._server)
        except (OSError, Gone) as error:
            said = _in_words(self._server, error)
            if self._is_new and not self._patient:
                raise ServerError(
                    f"{said}; is 'devserver serve --listen {self._server}' running there?"
                ) from None
            if self._is_new and not self._waiting:
                print(f"kvmshim: {said}; waiting for it", file=sys.stderr, flush=True)
            self._waiting = True
        except RpcError as error:
            if self._is_new:
                raise ServerError(f"the panel at {self._server} refuses: {error}") from None
            log.warning("the panel at %s refuses: %s", self._server, error)
        await asyncio.sleep(next(self._pauses))

    def end(self) -> None:
        """Has :meth:`run` return, and the VMs end; callable from any thread."""
        with self._guard:
            self._ending = True
            loop, serving = self._loop, self._serving
        for vm in list(self._vms.values()):
            vm.ask_to_stop()
        if loop is not None and serving is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(serving.cancel)

    def close(self) -> None:
        """Ends every VM."""
        vms = list(self._vms.values())
        for vm in vms:
            vm.ask_to_stop()
        for vm in vms:
            vm.stop()
        for folder in self._folders.values():
            folder.cleanup()
        self._folders.clear()

    async def _visit(self) -> None:
        reader, writer = await connect_panel(self._server, "agent", self._name)
        self._peer = peer = Peer(reader, writer, self._handlers())
        self._migrating.met(peer)
        serving = asyncio.get_running_loop().create_task(peer.serve())
        try:
            told = [vm for vm in self._vms.values() if vm.is_told]
            async with asyncio.timeout(_REGISTER_S):
                answer = await peer.call(
                    "register",
                    hostname=socket.gethostname(),
                    hypervisors=hypervisors(),
                    vms=[{**_report(vm), "why": vm.why, "doubt": vm.doubt} for vm in told],
                )
            self._is_new, self._waiting, self._pauses = False, False, pauses()
            ended = [vm.vm_id for vm in told if vm.state in _ENDED]
            await self._let_go({*answer["drop"]} - {*ended})
            for vm_id in ended:
                self.forget(vm_id)
            for vm_id in answer["go"]:
                await self._go_on(vm_id)
            print(f"kvmshim: agent '{self._name}' serves {self._server}", flush=True)
            telling = asyncio.get_running_loop().create_task(self._notes.tell(peer))
            await serving
            telling.cancel()
        finally:
            self._peer = None
            serving.cancel()
            peer.close()
            for vm in self._vms.values():
                vm.watched = False
            self._notes.forget_output()
            await self._migrating.lost()

    async def _let_go(self, vm_ids: Iterable[int]) -> None:
        """These VMs are somebody else's by now."""
        for vm_id in vm_ids:
            vm = self._vms.get(vm_id)
            if vm is not None:
                log.warning("VM '%s' is not this client's any more; it is ended here", vm.name)
                if await self._migrating.let_go(vm_id):
                    continue
                vm.silence()
                await asyncio.to_thread(vm.stop)
                self._forget_run(vm)

    async def _go_on(self, vm_id: int) -> None:
        """This VM stood still until the panel was back, and is this client's."""
        with contextlib.suppress(RpcError):  # it has ended by now
            if not await self._migrating.go_on(vm_id):
                await self._unsuspend(vm_id)

    # -- what VMs say, in their threads -------------------------------------------------------

    def _on_change(self, vm: RunningVm, why: str) -> None:
        report = _report(vm)
        del report["name"]
        self._notes.changed({**report, "why": why})

    def _on_output(self, vm: RunningVm, data: bytes, printed: int) -> None:
        self._notes.output({"vm_id": vm.vm_id, "data": data, "printed": printed})

    # -- what the panel asks for --------------------------------------------------------------

    def _handlers(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {
            "launch": self._launch,
            "stop": self._stop,
            "pause": self._pause,
            "unpause": self._unpause,
            "suspend": self._suspend,
            "suspended": self._suspended,
            "unsuspend": self._unsuspend,
            "move_device": self._move_device,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "type": self._type,
            **self._migrating.handlers(),
        }
        return {op: self._in_order(handler) for op, handler in handlers.items()}

    def _in_order(self, handler: Handler) -> Handler:
        """What VMs have said stands before the answer."""

        async def do(**arguments: Any) -> Any:
            peer = self._peer
            try:
                return await handler(**arguments)
            finally:
                await self._notes.flush(peer)

        return do

    async def _launch(
        self, vm_id: int, name: str, epoch: int, machine: str, image: int, image_name: str
    ) -> None:
        peer = self._peer
        assert peer is not None
        folder = tempfile.TemporaryDirectory(prefix="kvmshim-vm-")
        path, text = Path(folder.name) / "image", Path(folder.name) / "machine.toml"
        with peer.parcels.open(image) as file:
            await asyncio.to_thread(path.hardlink_to, file.name)
        text.write_text(machine)

        def make() -> Machine:
            spec = load_machine(str(text))
            booted = spec.image or ImageSpec(path=path)
            # A panel has no say about the Python files that are run here: '--model' names those.
            spec = replace(spec, image=replace(booted, path=path), models=())
            return machine_for(spec, server=self._server, wait=self._wait, name=name, vm_id=vm_id)

        self._check_free(vm_id)  # before its folder is another one
        listeners = Listeners(self._on_change, self._on_output)
        self._vms[vm_id] = vm = RunningVm(vm_id, name, make, listeners, epoch=epoch)
        self._folders[vm_id] = folder
        vm.start()
        await asyncio.to_thread(vm.await_launch)
        if vm.state is State.FAILED:
            self.forget(vm_id)
            if peer.gone.is_set():  # whoever wanted to know: the next panel does
                self._on_change(vm, vm.why)
            # Errors name what the user knows, not the copies here.
            why = vm.why.replace(str(path), image_name).replace(str(text), text.name)
            raise Unable(why) if vm.host_lacks else RpcError(why)

    def _check_free(self, vm_id: int) -> None:
        known = self._vms.get(vm_id)
        if known is not None and known.state not in _ENDED:
            raise RpcError(f"VM {vm_id} runs here already")

    async def _stop(self, vm_id: int, kill: bool) -> None:
        vm = self.find(vm_id)
        why = "killed" if kill else vm.SHUT_DOWN
        if not await asyncio.to_thread(vm.stop, why):
            raise RpcError(f"VM '{vm.name}' does not end; is a device model of it stuck?")
        self._forget_run(vm)

    async def _pause(self, vm_id: int) -> None:
        await self._order(self.find(vm_id).pause)

    async def _unpause(self, vm_id: int) -> None:
        await self._order(self.find(vm_id).unpause)

    async def _suspend(self, vm_id: int) -> dict[str, Any]:
        """Sends the panel the VM's state; the VM stands still until it is told what became of it.

        Until all has been sent it is not suspended, whatever happens; from then on only the panel
        knows.
        """
        vm, peer = self.find(vm_id), self._peer
        assert peer is not None
        vm.goes_on = await self._order(vm.hold)
        try:
            with tempfile.TemporaryDirectory(prefix="kvmshim-state-") as folder:
                path = Path(folder) / "state"
                await self._order(lambda: vm.save(path))
                parcel = await peer.send_parcel(path)
        except BaseException:
            await self._unsuspend(vm_id)
            raise
        vm.doubt = "suspending"
        return {"parcel": parcel}

    async def _unsuspend(self, vm_id: int) -> None:
        """The VM is here, and goes on as it was."""
        vm = self.find(vm_id)
        await self._order(lambda: vm.release(run=vm.goes_on))

    async def _suspended(self, vm_id: int) -> None:
        """The panel has the state: the VM is here no longer."""
        vm = self.find(vm_id)
        vm.silence()
        await asyncio.to_thread(vm.stop)
        self._forget_run(vm)

    async def _move_device(self, vm_id: int, device: str, to: dict[str, Any]) -> None:
        vm, destination = self.find(vm_id), Destination(**to)
        await self._order(lambda: vm.move(device, destination))

    async def _watch(self, vm_id: int) -> tuple[bytes, int]:
        """Has a VM's console told from now on; what was printed last, and how much in all."""
        vm = self.find(vm_id)
        vm.watched = True
        return vm.console()

    async def _unwatch(self, vm_id: int) -> None:
        if vm_id in self._vms:
            self._vms[vm_id].watched = False

    async def _type(self, vm_id: int, data: bytes) -> None:
        vm = self.find(vm_id)
        while vm.is_held:  # not in a thread: those that let it go on need one
            await asyncio.sleep(_HELD_S)
        await self._order(lambda: vm.type(data))

    async def _order(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.to_thread(work)
        except KvmshimError as error:
            raise RpcError(str(error)) from None

    # -- VMs that come and go -----------------------------------------------------------------

    def take_in(
        self,
        vm_id: int,
        name: str,
        epoch: int,
        read: Callable[[], MachineState | MigrateIn],
        on_failure: Callable[[str], None],
    ) -> RunningVm:
        """A VM that is to come, not yet started; ``read``, in its thread, gives what it is."""
        self._check_free(vm_id)

        def make() -> Machine:
            return Machine.restored(read(), server=self._server, wait=self._wait, vm_id=vm_id)

        listeners = Listeners(self._on_change, self._on_output)
        vm = RunningVm(vm_id, name, make, listeners, epoch=epoch, held=True, on_failure=on_failure)
        self._vms[vm_id] = vm
        return vm

    def find(self, vm_id: int) -> RunningVm:
        """A VM that is here; raises :class:`RpcError`."""
        if vm_id not in self._vms:
            raise RpcError(f"VM {vm_id} is not on client '{self._name}'")
        return self._vms[vm_id]

    def forget(self, vm_id: int) -> None:
        """A VM is here no longer."""
        self._vms.pop(vm_id, None)
        folder = self._folders.pop(vm_id, None)
        if folder is not None:
            folder.cleanup()

    def _forget_run(self, vm: RunningVm) -> None:
        """A run is over; the VM may have been launched here again by now."""
        if self._vms.get(vm.vm_id) is vm:
            self.forget(vm.vm_id)


def _in_words(server: str, error: Exception) -> str:
    """Why a server can't be reached."""
    if isinstance(error, OSError):
        return f"can't reach the server at {server}: {error.strerror or 'it does not answer'}"
    return str(error)


def _report(vm: RunningVm) -> dict[str, Any]:
    return {
        "vm_id": vm.vm_id,
        "name": vm.name,
        "state": str(vm.told_state),
        "epoch": vm.epoch,
        "devices": vm.devices,
        "memory_bytes": vm.memory_bytes,
        "hypervisor": vm.hypervisor,
        "exit_status": vm.exit_status,
    }
