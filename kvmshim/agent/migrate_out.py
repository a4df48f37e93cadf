"""A VM that goes to another client platform: what this one sends, and how it lets go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from kvmshim.agent.running import RunningVm
from kvmshim.errors import KvmshimError
from kvmshim.vmm.machine import Machine
from kvmshim.vmstate.file import encode_blocks
from kvmshim.vmstate.memory import DirtyLog, PageRun
from kvmshim.vmstate.state import Block, DetachedDevices, Header

#: Memory goes in parts of about this size.
PART_BYTES = 128 * 1024


@dataclass(frozen=True)
class LastWord:
    """What is left to be said when the VM has stopped here."""

    header: Header
    detached: tuple[DetachedDevices, ...]
    was_running: bool


class MigrateOut:
    """Takes a VM's memory while it runs, then the rest. Calls block, and raise KvmshimError."""

    def __init__(self, vm: RunningVm) -> None:
        self.vm = vm
        self._log: DirtyLog | None = None
        self._copied = False
        self._last: LastWord | None = None

    def preliminary_header(self) -> Header:
        """What the VM is and needs; from now on a log is kept of what it writes to."""

        def begin(machine: Machine) -> Header:
            self._log = machine.dirty_log().__enter__()
            return machine.preliminary_header()

        return self.vm.use(begin)

    def memory(self) -> Iterator[bytes]:
        """Parts of memory: all of it the first time, then what was written to since."""
        runs = self.vm.use(self._dirty)
        blocks = self.vm.use(lambda machine: machine.memory(runs))
        return _parts(encode_blocks(_one_by_one(self.vm, blocks)))

    def stop(self) -> LastWord:
        """Has the VM stand still and its devices wait on their servers.

        What it wrote to at the end is still to be had (:meth:`memory`).
        """
        was_running = self.vm.hold()

        def leave(machine: Machine) -> LastWord:
            header = machine.save_header()
            self._last = LastWord(header, (), was_running)  # if leaving fails: to come back
            self._last = LastWord(header, machine.leave_devices(), was_running)
            return self._last

        return self.vm.use(leave)

    def stay(self) -> None:
        """The VM does not go: it has its devices again, and runs if it did."""
        last = self._last
        if last is not None:
            self.vm.use(lambda machine: machine.come_back(last.header, last.detached))
        self._close_log()
        self.vm.release(run=last is not None and last.was_running)

    def done(self) -> None:
        """The VM is somewhere else by now."""
        self.vm.silence()
        self.vm.stop()

    def _dirty(self, _: Machine) -> list[PageRun] | None:
        assert self._log is not None
        copied, self._copied = self._copied, True
        return self._log.take() if copied else None

    def _close_log(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            with contextlib.suppress(KvmshimError):
                self.vm.use(lambda _: log.__exit__(None, None, None))


def _one_by_one(vm: RunningVm, blocks: Iterator[Block]) -> Iterator[Block]:
    """Each block is taken while the machine is held open."""
    while (block := vm.use(lambda _: next(blocks, None))) is not None:
        yield block


def _parts(records: Iterator[bytes]) -> Iterator[bytes]:
    part = b""
    for record in records:
        part += record
        if len(part) >= PART_BYTES:
            yield part
            part = b""
    if part:
        yield part
