"""The agent's conversation with the panel: it reports its VMs and does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from devserver.rpc import Gone, Handler, Peer, RpcError, Unable, connect_panel
from kvmshim.agent.abilities import hypervisors
from kvmshim.agent.backoff import pauses
from kvmshim.agent.migrating import Migrating
from kvmshim.agent.running import Listeners, RunningVm, State
from kvmshim.errors import KvmshimError, ServerError
from kvmshim.machinefile import ImageSpec, load_machine
from kvmshim.remote.link import WaitPolicy
from kvmshim.vmm.assemble import machine_for
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.relocation import Destination
from kvmshim.vmstate.arrival import Arrival
from kvmshim.vmstate.file import read_state

log = logging.getLogger("kvmshim.agent")

#: A panel that is there, and whose registry is, takes an agent in within this time.
_REGISTER_S = 30.0
_HELD_S = 0.002
_ENDED = (State.STOPPED, State.FAILED)


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
        self._serving: asyncio.Task[Any] | None = None
        self._vms: dict[int, RunningVm] = {}
        self._folders: dict[int, tempfile.TemporaryDirectory[str]] = {}
        self._peer: Peer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._migrating = Migrating(self)
        self._notes: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def run(self) -> None:
        """Serves the panel until :meth:`end`, and comes back when the connection is lost.

        Raises :class:`ServerError` if the panel refuses this agent when it comes first, or
        (unless it is to wait) if the server can't be reached then.
        """
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
        peer = Peer(reader, writer, self._handlers())
        serving = asyncio.get_running_loop().create_task(peer.serve())
        try:
            told = [vm for vm in self._vms.values() if vm.is_told]
            async with asyncio.timeout(_REGISTER_S):
                answer = await peer.call(
                    "register",
                    hostname=socket.gethostname(),
                    hypervisors=hypervisors(),
                    vms=[{**_report(vm), "why": vm.why} for vm in told],
                )
            self._is_new, self._waiting, self._pauses = False, False, pauses()
            ended = [vm.vm_id for vm in told if vm.state in _ENDED]
            await self._let_go({*answer["drop"]} - {*ended})
            for vm_id in ended:
                self.forget(vm_id)
            print(f"kvmshim: agent '{self._name}' serves {self._server}", flush=True)
            self._peer = peer
            self._migrating.met(peer)
            telling = asyncio.get_running_loop().create_task(self._tell(peer))
            await serving
            telling.cancel()
        finally:
            self._peer = None
            serving.cancel()
            peer.close()
            await self._migrating.lost()

    async def _let_go(self, vm_ids: Iterable[int]) -> None:
        """These VMs are somebody else's by now."""
        for vm_id in vm_ids:
            vm = self._vms.get(vm_id)
            if vm is not None:
                log.warning("VM '%s' is not this client's any more; it is ended here", vm.name)
                vm.silence()
                await asyncio.to_thread(vm.stop)
                self.forget(vm_id)

    async def _tell(self, peer: Peer) -> None:
        """Passes on what VMs' threads have to say, in order."""
        while True:
            op, arguments = await self._notes.get()
            with contextlib.suppress(RpcError, OSError):
                await peer.note(op, **arguments)

    # -- what VMs say, in their threads -------------------------------------------------------

    def _on_change(self, vm: RunningVm, why: str) -> None:
        self._say("changed", {**_report(vm), "why": why})

    def _on_output(self, vm: RunningVm, data: bytes, printed: int) -> None:
        self._say("output", {"vm_id": vm.vm_id, "data": data, "printed": printed})

    def _say(self, op: str, arguments: dict[str, Any]) -> None:
        arguments.pop("name", None)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._notes.put_nowait, (op, arguments))

    # -- what the panel asks for --------------------------------------------------------------

    def _handlers(self) -> dict[str, Handler]:
        return {
            "launch": self._launch,
            "restore": self._restore,
            "stop": self._stop,
            "pause": self._pause,
            "unpause": self._unpause,
            "suspend": self._suspend,
            "suspended": self._suspended,
            "move_device": self._move_device,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "type": self._type,
            **self._migrating.handlers(),
        }

    async def _launch(
        self, vm_id: int, name: str, machine: str, image: int, image_name: str
    ) -> None:
        assert self._peer is not None
        folder = self._folders[vm_id] = tempfile.TemporaryDirectory(prefix="kvmshim-vm-")
        path, text = Path(folder.name) / "image", Path(folder.name) / "machine.toml"
        with self._peer.parcels.open(image) as file:
            await asyncio.to_thread(path.hardlink_to, file.name)
        text.write_text(machine)

        def make() -> Machine:
            spec = load_machine(str(text))
            booted = spec.image or ImageSpec(path=path)
            spec = replace(spec, image=replace(booted, path=path))
            return machine_for(spec, server=self._server, wait=self._wait, name=name, vm_id=vm_id)

        await self._start(vm_id, name, make)

    async def _restore(self, vm_id: int, name: str, parcel: int) -> None:
        assert self._peer is not None
        with self._peer.parcels.open(parcel) as file:

            def make() -> Machine:
                state = read_state(Path(file.name))
                return Machine.restored(state, server=self._server, wait=self._wait, vm_id=vm_id)

            await self._start(vm_id, name, make)

    async def _start(self, vm_id: int, name: str, make: Any) -> None:
        self._check_free(vm_id)
        vm = RunningVm(vm_id, name, make, Listeners(self._on_change, self._on_output))
        self._vms[vm_id] = vm
        vm.start()
        await asyncio.to_thread(vm.await_launch)
        if vm.state is State.FAILED:
            self.forget(vm_id)
            raise Unable(vm.why) if vm.host_lacks else RpcError(vm.why)

    def _check_free(self, vm_id: int) -> None:
        known = self._vms.get(vm_id)
        if known is not None and known.state not in _ENDED:
            raise RpcError(f"VM {vm_id} runs here already")

    async def _stop(self, vm_id: int, kill: bool) -> None:
        vm = self.find(vm_id)
        why = "killed" if kill else vm.SHUT_DOWN
        if not await asyncio.to_thread(vm.stop, why):
            raise RpcError(f"VM '{vm.name}' does not end; is a device model of it stuck?")
        self.forget(vm_id)

    async def _pause(self, vm_id: int) -> None:
        await self._order(self.find(vm_id).pause)

    async def _unpause(self, vm_id: int) -> None:
        await self._order(self.find(vm_id).unpause)

    async def _suspend(self, vm_id: int) -> dict[str, Any]:
        """Sends the panel the VM's state; the VM stays, paused, until ``suspended``."""
        assert self._peer is not None
        vm = self.find(vm_id)
        was_paused = vm.state is State.PAUSED
        if not was_paused:
            await self._order(vm.pause)
        try:
            with tempfile.TemporaryDirectory(prefix="kvmshim-state-") as folder:
                path = Path(folder) / "state"
                await self._order(lambda: vm.save(path))
                return {"parcel": await self._peer.send_parcel(path)}
        except BaseException:
            if not was_paused:
                with contextlib.suppress(RpcError):
                    await self._order(vm.unpause)
            raise

    async def _suspended(self, vm_id: int) -> None:
        """The panel has the state: the VM is here no longer."""
        vm = self.find(vm_id)
        vm.silence()
        await asyncio.to_thread(vm.stop)
        self.forget(vm_id)

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

    async def _order(self, work: Any) -> None:
        try:
            await asyncio.to_thread(work)
        except KvmshimError as error:
            raise RpcError(str(error)) from None

    # -- VMs that come and go -----------------------------------------------------------------

    def take_in(self, vm_id: int, name: str, arrival: Arrival) -> RunningVm:
        """A VM that is to come, not yet started."""
        self._check_free(vm_id)

        def make() -> Machine:
            return Machine.restored(arrival, server=self._server, wait=self._wait, vm_id=vm_id)

        listeners = Listeners(self._on_change, self._on_output)
        vm = RunningVm(vm_id, name, make, listeners, held=True, on_failure=arrival.give_up)
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


def _in_words(server: str, error: Exception) -> str:
    """Why a server can't be reached."""
    if isinstance(error, OSError):
        return f"can't reach the server at {server}: {error.strerror or 'it does not answer'}"
    return str(error)


def _report(vm: RunningVm) -> dict[str, Any]:
    return {
        "vm_id": vm.vm_id,
        "name": vm.name,
        "state": str(vm.state),
        "devices": vm.devices,
        "memory_bytes": vm.memory_bytes,
        "hypervisor": vm.hypervisor,
    }
