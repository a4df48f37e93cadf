"""One VM that the agent runs, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

from kvmshim.errors import HostError, InputError, KvmError, KvmshimError
from kvmshim.vmm.device_move import Destination
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome, RunResult
from kvmshim.vmstate.file import write_state

#: What a console has printed last, for who looks at it later.
BACKLOG_BYTES = 64 * 1024
_PATIENCE_S = 30.0
#: The line on why a VM has ended is no longer.
_WHY_LETTERS = 500
#: How often a paused VM is looked at, whether its servers are still there.
_LOOK_S = 1.0


class State(StrEnum):
    """Where a VM stands; the panel's words."""

    LAUNCHING = "launching"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"


#: A VM is in another state: the VM, and why if that needs saying.
OnChange = Callable[["RunningVm", str], None]
#: A VM's console has printed, so many bytes by now.
OnOutput = Callable[["RunningVm", bytes, int], None]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Listeners:
    """Called in the VM's thread."""

    changed: OnChange
    output: OnOutput


class RunningVm:
    """A VM from its launch to its end."""

    def __init__(
        self,
        vm_id: int,
        name: str,
        make: Callable[[], Machine],
        listeners: Listeners,
        *,
        epoch: int = 1,
        held: bool = False,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``make`` gives the machine, not yet entered; it is called in the VM's thread. ``held``:
        it is paused when it is ready to run, and nothing is told of it before :meth:`release`.
        ``on_failure`` is told, in the VM's thread, why it has failed. ``epoch``: the panel's
        (docs/panel.md, Who has a VM)."""
        self.vm_id = vm_id
        self.epoch = epoch
        #: What was being done with it, if only the panel knows how that ended; it stands still.
        self.doubt = ""
        #: Whether it is to run when it need not stand still any more.
        self.goes_on = True
        self.name = name
        self.state = State.LAUNCHING
        #: How it came to that state, if that needs saying.
        self.why = ""
        #: It has failed for what this host lacks: another may run it.
        self.host_lacks = False
        self.watched = False
        self._backlog = bytearray()
        self._printed = 0
        self._printing = threading.Lock()
        self.devices: list[dict[str, Any]] = []
        self.memory_bytes = 0
        self.hypervisor = "kvm"
        #: What ``kvmshim run`` would have exited with.
        self.exit_status: int | None = None
        self._make = make
        self._listeners = listeners
        self._on_failure = on_failure
        self._machine: Machine | None = None
        self._console: str | None = None
        self._changed = threading.Condition()
        self._wanted = State.PAUSED if held else State.RUNNING
        self._stopped_for = self.SHUT_DOWN
        self._silent, self._quiet = held, False
        self._thread = threading.Thread(target=self._run, name=f"VM {name}", daemon=True)

    def start(self) -> None:
        """Launches it."""
        self._thread.start()

    # -- orders, from any other thread --------------------------------------------------------

    #: Why a VM has ended that was to.
    SHUT_DOWN = "shut down"

    def ask_to_stop(self, why: str = SHUT_DOWN) -> None:
        """Has it end."""
        with self._changed:
            if self._wanted is not State.STOPPED:
                self._wanted, self._stopped_for = State.STOPPED, why
            self._changed.notify_all()
            if self._machine is not None and self.state is State.RUNNING:
                self._machine.stop()

    def stop(self, why: str = SHUT_DOWN) -> bool:
        """Ends it, and waits until it has; whether it did."""
        self.ask_to_stop(why)
        self._thread.join(_PATIENCE_S)
        return not self._thread.is_alive()

    def pause(self) -> None:
        """Has it stand still. Raises :class:`InputError` if it does not run."""
        with self._changed:
            if self.state is not State.RUNNING or self._machine is None:
                raise InputError(f"VM '{self.name}' {self._is()}; it can't be paused")
            self._wanted = State.PAUSED
            self._machine.pause()
            self._await(State.PAUSED)

    def unpause(self) -> None:
        """Has it go on."""
        with self._changed:
            if self.state is not State.PAUSED:
                raise InputError(f"VM '{self.name}' is {self.state}; it can't go on")
            if self._machine is not None and self._machine.is_cut_off:
                raise InputError(f"VM '{self.name}' can't go on: its device server is lost")
            self._wanted = State.RUNNING
            self._changed.notify_all()
            self._await(State.RUNNING)

    def move(self, device: str, to: Destination) -> None:
        """Has one of its devices run somewhere else. Raises :class:`KvmshimError`."""
        was_running = self.hold()  # for a moment only
        try:
            with self._changed:
                if self._machine is None:
                    raise InputError(f"VM '{self.name}' {self._is()}; no device of it can be moved")
                self._machine.move_device(device, to)
                self.devices = _described(self._machine)
        finally:
            if was_running:
                self.release(run=True)
        self._listeners.changed(self, "")

    def use(self, work: Callable[[Machine], Result]) -> Result:
        """Does something with the machine, which stays open meanwhile; what that gives.

        Raises :class:`InputError` if it has ended, and what ``work`` raises.
        """
        with self._changed:
            if self._machine is None:
                raise InputError(f"VM '{self.name}' {self._is()}")
            return work(self._machine)

    def hold(self) -> bool:
        """Pauses it without telling anybody; whether it was running."""
        if self.state is State.PAUSED:
            return False
        self._quiet = True
        try:
            self.pause()
        except InputError:
            self._quiet = False
            raise
        return True

    def release(self, *, run: bool) -> None:
        """It is here for good, or still: it is told of again, and (``run``) goes on."""
        with self._changed:
            self.doubt = ""
            self._silent = self._quiet = False
            if run:
                self._wanted = State.RUNNING
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.state is not State.PAUSED, _PATIENCE_S)

    def save(self, path: Path) -> None:
        """Writes its whole state to a file; it is to be paused. Raises :class:`KvmshimError`."""
        with self._changed:
            if self.state is not State.PAUSED or self._machine is None:
                raise InputError(f"VM '{self.name}' {self._is()}; it can't be saved")
            write_state(path, self._machine.save())

    def type(self, data: bytes) -> None:
        """Gives its console input."""
        with self._changed:
            if self._machine is None or self._console is None or self.state is not State.RUNNING:
                raise InputError(f"VM '{self.name}' {self._is()}; nobody reads its console")
            self._machine.feed(self._console, data)

    def await_launch(self) -> None:
        """Waits until it runs or has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self.state is not State.LAUNCHING, _PATIENCE_S)

    def silence(self) -> None:
        """It is somebody else's by now: nothing more is told of it."""
        self._silent, self.doubt = True, ""

    @property
    def is_held(self) -> bool:
        """Whether it is paused for a moment only (:meth:`hold`)."""
        return self._quiet and self.state not in (State.STOPPED, State.FAILED)

    @property
    def is_told(self) -> bool:
        """Whether it is this client's to tell of, as far as this client knows."""
        return not self._silent or self.doubt != ""

    @property
    def told_state(self) -> State:
        """Its state as it is told: one that is held for a moment runs."""
        if self.doubt and self.state is State.PAUSED:
            return State.RUNNING if self.goes_on else State.PAUSED
        return State.RUNNING if self.is_held and self.state is State.PAUSED else self.state

    def console(self) -> tuple[bytes, int]:
        """What its console has printed last, and how many bytes in all."""
        with self._printing:
            return bytes(self._backlog), self._printed

    def continue_console(self, backlog: bytes, printed: int) -> None:
        """It has printed this already, at another client."""
        with self._printing:
            self._backlog[:0] = backlog
            self._printed += printed

    def _is(self) -> str:
        """Its state, in words."""
        if self.state is State.RUNNING and self._machine is None:
            return "is just ending"
        return f"is {self.state}"

    def _await(self, state: State) -> None:
        ended = (State.STOPPED, State.FAILED)
        reached = self._changed.wait_for(lambda: self.state in (state, *ended), _PATIENCE_S)
        if not reached or self.state is not state:
            raise InputError(f"VM '{self.name}' is {self.state} instead of {state}")

    # -- the VM's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with self._make() as machine:
                self._machine = machine
                self._console = machine.console()
                self.memory_bytes = machine.spec.memory_bytes
                self.hypervisor = machine.spec.hypervisor
                self.devices = _described(machine)
                try:
                    why = self._run_until_stopped(machine)
                finally:
                    with self._changed:
                        self._machine = None  # nobody uses it any more
                state = State.STOPPED
        except KvmshimError as error:
            state, why = State.FAILED, str(error)
            self.host_lacks = isinstance(error, HostError | KvmError)
        except Exception as error:
            state, why = State.FAILED, f"{type(error).__name__}: {error}"
        with self._changed:
            if self.state is State.LAUNCHING:
                self._silent = True  # whoever launches it is told
        self._become(state, why)
        if state is State.FAILED:
            self._on_failure(why)

    def _run_until_stopped(self, machine: Machine) -> str:
        while True:
            if self._wanted is State.RUNNING:
                self._become(State.RUNNING)
                result = machine.run(output=self._output)
                if result.outcome is not Outcome.PAUSED:
                    self.exit_status = result.exit_status
                    return self._why(result)
            self._become(State.PAUSED)
            with self._changed:
                while not self._changed.wait_for(lambda: self._wanted is not State.PAUSED, _LOOK_S):
                    if machine.is_cut_off and not self._silent and not self._quiet:
                        self._wanted = State.RUNNING  # to its end: its devices are gone
                if self._wanted is State.STOPPED:
                    return self._stopped_for

    def _why(self, result: RunResult) -> str:
        if result.outcome is Outcome.EXITED:
            return f"the guest ended with status {result.status}"
        if result.outcome is Outcome.STOPPED:
            return self._stopped_for
        said = result.message or result.outcome.name.lower()
        return shorten("; ".join([said, *map(str.strip, result.reasons())]), _WHY_LETTERS)

    def _become(self, state: State, why: str = "") -> None:
        with self._changed:
            self.state, self.why = state, why
            self._changed.notify_all()
        if not self._silent and not (self._quiet and state in (State.PAUSED, State.RUNNING)):
            self._listeners.changed(self, why)

    def _output(self, device: str, channel: str, data: bytes) -> None:
        if device == self._console and channel == "tx":
            with self._printing:
                self._backlog += data
                del self._backlog[:-BACKLOG_BYTES]
                self._printed += len(data)
            if self.watched:
                self._listeners.output(self, data, self._printed)


def _described(machine: Machine) -> list[dict[str, Any]]:
    return [
        {
            "name": device.name,
            "kind": device.kind,
            "version": device.version,
            "place": getattr(owner, "server", "local"),
        }
        for owner, device in machine.devices()
    ]
