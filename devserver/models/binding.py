"""From a model's declarations to the functions that serve accesses: looked up once for a device."""

from __future__ import annotations

from typing import Any, TypeVar

from devserver.models.dispatch import (
    Lessor,
    Reader,
    RunWriter,
    Writer,
    last_of_run,
    plain_bytes,
)
from devserver.models.lease import Lease
from devserver.models.lineage import Lineage, cautious, lineage
from devserver.models.registers import Region, Register

T = TypeVar("T")
#: For each bank, what serves the byte at each offset, with its register.
Rows = dict[str, list[tuple[Register, T] | None]]


class Bindings:
    """What serves the accesses to one device, by region."""

    def __init__(self, device: Any) -> None:
        """``device`` is a :class:`devserver.models.device.Device`."""
        self._device = device
        self._lineage: Lineage = lineage(type(device))
        self._timed = self._lineage.defines("deadline_ns")
        self.readers: dict[str, Rows[Reader]] = {}
        self.writers: dict[str, Rows[Writer]] = {}
        #: What serves a single byte, where that is the same in every bank.
        self.quick_readers: dict[tuple[str, int], Reader] = {}
        self.quick_writers: dict[tuple[str, int], Writer] = {}
        self.lessors: dict[tuple[str, str, int], Lessor | None] = {}
        self.runs: dict[tuple[str, str, int], RunWriter | None] = {}
        for region in device.regions:
            self._bind(region)

    def lessor(self, region: Region, register: Register) -> Lessor | None:
        """What says the lease of a register's reads; None: they can't be leased."""
        name = register.name.lower()
        handler: Lessor | None = getattr(self._device, f"lease_{name}", None)
        deadline_ns = self._device.deadline_ns if self._timed else None
        if handler is not None:
            if not self._lineage.holds_lease(region, register):
                return None
            lanes = self._lineage.says_of_writes(register)
            if self._lineage.says_its_end(register):
                deadline_ns = None
            if not lanes and deadline_ns is None:
                return handler
            return cautious(handler, lanes, deadline_ns)
        if register.width != 1 or not self.only_stores(register):
            return None
        device, storage = self._device, register.storage or ""

        def say(now_ns: int) -> Lease:
            return Lease(value=getattr(device.state, storage) & 0xFF)

        return say if deadline_ns is None else cautious(say, 0, deadline_ns)

    def only_stores(self, register: Register) -> bool:
        """Whether a read of the register changes nothing: there is no code for it."""
        has_method = hasattr(self._device, f"read_{register.name.lower()}")
        plain = not has_method and not self._lineage.defines("read")
        return (
            plain and bool(register.storage) and self._lineage.only_stores(register.storage or "")
        )

    # -- inner workings -----------------------------------------------------------------------

    def _bind(self, region: Region) -> None:
        banks = {register.bank for register in region.registers} | {""}
        readers: Rows[Reader] = {bank: [None] * region.size for bank in banks}
        writers: Rows[Writer] = {bank: [None] * region.size for bank in banks}
        ordered = sorted(region.registers, key=lambda register: register.bank != "")
        for register in ordered:  # those of every bank first, so that a bank's own replace them
            chosen = banks if register.bank == "" else {register.bank}
            places = slice(register.offset, register.offset + register.width)
            if register.access.readable:
                reader = (register, self._reader(register))
                for bank in chosen:
                    readers[bank][places] = [reader] * register.width
            if register.access.writable:
                writer = (register, self._writer(register))
                for bank in chosen:
                    writers[bank][places] = [writer] * register.width
        self.readers[region.name], self.writers[region.name] = readers, writers
        for offset, serve_read in plain_bytes(readers):
            self.quick_readers[region.name, offset] = serve_read
        for offset, serve_write in plain_bytes(writers):
            self.quick_writers[region.name, offset] = serve_write
        self._bind_optimised(region)

    def _bind_optimised(self, region: Region) -> None:
        """Leases and runs of the registers that a bank shows in the end."""
        for bank, row in self.readers[region.name].items():
            for offset, entry in enumerate(row):
                if entry is not None and entry[0].offset == offset:
                    self.lessors[region.name, bank, offset] = self.lessor(region, entry[0])
        for bank, row_ in self.writers[region.name].items():
            for offset, entry_ in enumerate(row_):
                if entry_ is not None and entry_[0].offset == offset:
                    self.runs[region.name, bank, offset] = self._run_writer(region, entry_[0])

    def _reader(self, register: Register) -> Reader:
        handler: Reader | None = getattr(self._device, f"read_{register.name.lower()}", None)
        if handler is not None:
            return handler
        device, storage = self._device, register.storage or ""
        return lambda now_ns: getattr(device.state, storage)

    def _writer(self, register: Register) -> Writer:
        handler: Writer | None = getattr(self._device, f"write_{register.name.lower()}", None)
        if handler is not None:
            return handler
        device, storage = self._device, register.storage or ""
        return lambda value, now_ns: setattr(device.state, storage, value)

    def _run_writer(self, region: Region, register: Register) -> RunWriter | None:
        name = register.name.lower()
        handler: RunWriter | None = getattr(self._device, f"write_{name}_run", None)
        if handler is not None:
            return handler if self._lineage.holds_run(region, register) else None
        rows = self.writers[region.name].values()
        everywhere = len({id(row[register.offset]) for row in rows}) == 1
        stored = (
            register.storage is not None
            and not hasattr(self._device, f"write_{name}")
            and self._lineage.only_stores(register.storage)
        )
        if not stored or not everywhere or self._timed or self._lineage.defines("write"):
            return None  # what is written first might do something before the next one comes
        device = self._device
        return last_of_run(lambda: device.state, register.storage or "")
