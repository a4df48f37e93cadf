"""A machine as a program uses it: made in one line, run, talked to, looked into."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kvmshim.errors import InputError, MisuseError
from kvmshim.hypervisor.choose import choose
from kvmshim.machinefile import DeviceSpec, MachineSpec
from kvmshim.remote.link import WaitPolicy
from kvmshim.serial import Serial
from kvmshim.units import parse_size
from kvmshim.vmm import machine as vmm_machine
from kvmshim.vmm.assemble import check_memory, machine_for, machine_of, parse_device
from kvmshim.vmm.outcome import Outcome, RunResult

if TYPE_CHECKING:
    from devserver.models.device import Device
    from kvmshim.hypervisor.kvm.vcpu import Registers
    from kvmshim.vmstate.state import MachineState

OutputHandler = Callable[[str, str, bytes], None]


class Machine:
    """A virtual machine, to be used in a ``with`` block.

    >>> with Machine("hello") as machine:                                # doctest: +SKIP
    ...     result = machine.run(timeout_s=10)
    ...     machine.serial.text
    'Hello from a guest...'

    Entering the block connects the device servers and opens the hypervisor; leaving it ends
    everything that was started for it. All methods raise :class:`kvmshim.KvmshimError`:
    :class:`InputError` for what can't be used, :class:`HostError` for what this host lacks,
    :class:`ServerError` for a device server, :class:`MisuseError` for a call at a wrong time.
    """

    def __init__(
        self,
        what: str | os.PathLike[str] | MachineSpec,
        *,
        devices: Sequence[str | DeviceSpec] = (),
        memory: int | str | None = None,
        placement: str | None = None,
        policy: str = "",
        hypervisor: str | None = None,
        irqchip: str | None = None,
        server: str | None = None,
        models: Sequence[str | os.PathLike[str]] = (),
        wait: WaitPolicy | None = None,
        name: str = "",
        **image: Any,
    ) -> None:
        """``what``: a bundled guest's name, an image, a machine file (``.toml``), or a spec.

        The rest are the options of ``kvmshim run`` by the same names: ``devices`` further ones (as
        ``--device`` has them, or specs), ``memory`` bytes or ``"16M"``, ``placement`` of every
        device (``"local"``: in this process), ``policy`` ``"strict"`` or empty, ``server`` an
        address. ``image``: what an image has in a machine file, such as ``kind`` or ``append``.
        """
        spec = what if isinstance(what, MachineSpec) else machine_of(os.fspath(what))
        spec = _with_image(spec, image)
        if hypervisor is not None:
            spec = dataclasses.replace(spec, hypervisor=choose(hypervisor).name)
        if irqchip is not None:
            spec = dataclasses.replace(spec, irqchip=irqchip)
        if memory is not None:
            size = parse_size(memory) if isinstance(memory, str) else memory
            spec = dataclasses.replace(spec, memory_bytes=check_memory(f"memory {memory}", size))
        if policy not in ("", "strict"):
            raise InputError(f"there is no policy '{policy}' of a machine; give 'strict', or none")
        spec = spec.with_controllers()
        every = (
            *spec.devices,
            *(d if isinstance(d, DeviceSpec) else parse_device(d) for d in devices),
        )
        if placement is not None:
            every = tuple(dataclasses.replace(device, placement=placement) for device in every)
        spec = dataclasses.replace(spec, devices=every, strict=spec.strict or bool(policy))
        paths = [os.fspath(model) for model in models]
        self._use(machine_for(spec, server=server, models=paths, wait=wait, name=name))

    @classmethod
    def restored(
        cls,
        state: MachineState,
        *,
        server: str | None = None,
        models: Sequence[str | os.PathLike[str]] = (),
        wait: WaitPolicy | None = None,
    ) -> Self:
        """The machine that was in this state (:meth:`snapshot`): it goes on where it stood."""
        made = cls.__new__(cls)
        paths = [os.fspath(model) for model in models]
        made._use(vmm_machine.Machine.restored(state, server=server, models=paths, wait=wait))
        return made

    def _use(self, vm: vmm_machine.Machine) -> None:
        self._vm = vm
        #: What the machine is made of.
        self.spec = vm.spec
        #: The dialogue at its console.
        self.serial = Serial(self._type)
        self._output: OutputHandler | None = None
        self._thread: threading.Thread | None = None
        self._result: RunResult | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._vm.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the guest, if it runs, and everything that was started for it."""
        if self._thread is not None:
            self._vm.stop()
            self._thread.join()
            self._thread = None
        self._vm.close()

    # -- running ----------------------------------------------------------------------------------

    def run(
        self, timeout_s: float | None = None, *, output: OutputHandler | None = None
    ) -> RunResult:
        """Runs the guest to its end, or for ``timeout_s`` seconds, and says how it ended.

        ``output`` is called with a device's name, its channel's name and the bytes, in another
        thread; what the console says is in :attr:`serial` as well.
        """
        self.start(timeout_s, output=output)
        return self.wait()

    def start(self, timeout_s: float | None = None, *, output: OutputHandler | None = None) -> None:
        """Has the guest run while this program does other things; or go on after a pause."""
        if self._thread is not None:
            raise MisuseError("the guest runs already; wait() or pause() comes before start()")
        self._output = output
        self._result = self._error = None
        self.serial.set_end(None)
        self._thread = threading.Thread(
            target=self._run, args=(timeout_s,), name="machine", daemon=True
        )
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> RunResult:
        """Waits until the guest ends or is paused, and says how that was.

        Raises :class:`TimeoutError` if it still runs after ``timeout_s`` seconds; it runs on.
        """
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TimeoutError(f"the guest still runs after {timeout_s:g} s")
            self._thread = None
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise MisuseError("the guest was not started; start() comes before wait()")
        return self._result

    def pause(self) -> RunResult:
        """Pauses the guest between two instructions; :meth:`start` lets it go on.

        The result's outcome is ``PAUSED``, or how it ended if it was quicker.
        """
        if self._thread is None:
            raise MisuseError("the guest does not run; start() comes before pause()")
        self._vm.pause()
        return self.wait()

    def stop(self) -> RunResult:
        """Ends the guest, if it runs, and says how that was."""
        if self._thread is not None:
            self._vm.stop()
        return self.wait()

    @property
    def is_running(self) -> bool:
        """Whether the guest runs now."""
        return self._thread is not None and self._thread.is_alive()

    # -- looking into it --------------------------------------------------------------------------

    @property
    def registers(self) -> Registers:
        """The CPU's registers, once the guest has ended or while it is paused."""
        if self._result is None or self._result.registers is None:
            raise MisuseError("registers can be read while the guest is paused, or after its end")
        return self._result.registers

    def read_memory(self, address: int, length: int) -> bytes:
        """What the guest sees at a physical address, at any time between entering and leaving.

        Raises :class:`InputError` where there is no memory.
        """
        return self._vm.view().read_memory(address, length)

    def snapshot(self) -> MachineState:
        """The whole state of the paused machine, for :meth:`restored`; it may go on afterwards."""
        return self._vm.save()

    def device(self, name: str) -> Device:
        """The running model of a device that is placed locally. Raises :class:`InputError`."""
        return self._vm.view().model(name)

    def device_state(self, name: str) -> Mapping[str, Any]:
        """The state of a device of the paused machine, wherever it is, as its model declares it."""
        if self._result is None or self._result.outcome is not Outcome.PAUSED or self.is_running:
            raise MisuseError("a device's state is there while the guest is paused")
        return self._vm.view().state(name, self._vm.time_ns())

    # -- within -----------------------------------------------------------------------------------

    def _type(self, data: bytes, end: bool) -> None:
        console = self._vm.console()
        if console is None:
            raise InputError("the machine has no device that takes what is typed")
        self._vm.feed(console, data, end=end)

    def _run(self, timeout_s: float | None) -> None:
        try:
            self._result = self._vm.run(timeout_s=timeout_s, output=self._take)
        except BaseException as error:
            self._error = error
            self.serial.set_end(f"its run failed: {error}")
        else:
            self.serial.set_end(_as_reason(self._result))

    def _take(self, device: str, channel: str, data: bytes) -> None:
        if channel == "tx" and device == self._vm.console():
            self.serial.take(data)
        if self._output is not None:
            self._output(device, channel, data)


def _with_image(spec: MachineSpec, given: Mapping[str, Any]) -> MachineSpec:
    if not given:
        return spec
    if spec.image is None:
        raise InputError("the machine names no image to boot")
    known = {field.name for field in dataclasses.fields(spec.image)} - {"path"}
    for name in given:
        if name not in known:
            raise InputError(f"a machine has no '{name}'; an image has {', '.join(sorted(known))}")
    return dataclasses.replace(spec, image=dataclasses.replace(spec.image, **given))


def _as_reason(result: RunResult) -> str:
    if result.outcome is Outcome.PAUSED:
        return "the guest is paused"
    if result.outcome is Outcome.EXITED:
        return f"the guest ended with status {result.status}"
    return result.message
