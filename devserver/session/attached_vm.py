"""One VM's devices in this host: how they come, change and go, and what of them is leased."""

from __future__ import annotations

from collections.abc import Callable

from devserver.machine.bus import Bus, DeviceFault
from devserver.machine.lease_book import LeaseBook, lease_message
from devserver.machine.slot import Slot
from devserver.protocol.messages import Add, Attach, Save, Status
from devserver.session import device_setup
from devserver.session.outbox import Outbox
from devserver.session.vm_table import VmTable


class AttachedVm:
    """The devices of the VM that one connection speaks for."""

    def __init__(self, outbox: Outbox, vms: VmTable, on_message: Callable[[], None]) -> None:
        """``on_message`` is called when there may be mail for the devices."""
        outbox.message_bus = vms.message_bus
        self.bus = Bus((), outbox)
        self._on_mail = on_message
        #: What an adopter of the devices has to show; empty while there are none.
        self.key = ""
        #: Counts the times that devices came or went.
        self.rebuilt = 0
        self._outbox = outbox
        self._vms = vms
        self._vm_id = 0
        #: Added, and no lease of theirs granted yet.
        self._new: list[Slot] = []
        self._book: LeaseBook | None = None

    # -- coming and going ---------------------------------------------------------------------

    def attach(self, attach: Attach) -> int:
        """Makes a VM's devices, or takes over those that it has left behind; its identifier.

        Raises :class:`RemoteProtocolError`.
        """
        if attach.key:
            self.bus = self._vms.adopt(attach.vm_id, attach.key)
            self.bus.rewire(self._outbox)
            self._vm_id, self.key = attach.vm_id, attach.key
        else:
            self._vm_id = self._vms.add(attach.vm_id, attach.vm_name)
            self.key = self._vms.make_key()
            self.bus = device_setup.build(attach, self._outbox, self._vms.message_bus)
        vm_port = self.bus.vm_port
        vm_port.on_message, vm_port.on_post = self._on_mail, lambda: self._outbox.on_effect()
        return self._vm_id

    def detach(self, now_ns: int) -> None:
        """The client goes, and the devices stay for the next one."""
        self.bus.vm_port.on_message = _nothing
        self._vms.detach(self._vm_id, self.key, self.bus, now_ns)
        self.key = ""

    def close(self) -> None:
        """The connection is gone, and with it the devices that were not left behind."""
        if self.key:
            self._vms.remove(self._vm_id)
            self.bus.vm_port.leave()
        self.key = ""

    def save(self, save: Save) -> tuple[Status, bytes]:
        """Answers a SAVE; raises :class:`DeviceFault`."""
        slot = self.bus.slots.get(save.device_id)
        status, data = device_setup.save(self.bus, save)
        if save.remove and status is Status.OK and slot is not None:
            self.rebuilt += 1
            if self._book is not None:
                self._book.forget(slot)
        return status, data

    def add(self, add: Add, latest_ns: int) -> tuple[Status, bytes]:
        """Answers an ADD of a device whose state is of ``latest_ns`` at most.

        Raises :class:`RemoteProtocolError`.
        """
        status, data = device_setup.add(self.bus, add, latest_ns)
        if status is Status.OK:
            self.rebuilt += 1
            self._new.append(self.bus.slots[max(self.bus.slots)])
        return status, data

    # -- leases -------------------------------------------------------------------------------

    def grant_leases(self) -> None:
        """Grants leases from now on."""
        self._book = LeaseBook(self.bus, lambda: self._outbox.on_effect())

    def time_runs(self) -> None:
        """VM time runs: the client knows by now of the devices that were added."""
        for slot in self._new:
            if self._book is not None and slot.device_id in self.bus.slots:
                self._book.add(slot)
        self._new.clear()
        self.look_for_mail()

    def look_for_mail(self) -> None:
        """Has the devices hear what waits for them, once the present call is over."""
        self._vms.message_bus.ring(self.bus.vm_port)

    def owes_ack(self) -> bool:
        """Whether a batch has suspended leases of the client since this was asked last."""
        owes = self._book is not None and self._book.owes_ack
        if owes and self._book is not None:
            self._book.owes_ack = False
        return owes

    def say_leases(self) -> DeviceFault | None:
        """Says which leases have changed; what a model did wrong when it was asked for them."""
        if self._book is None or not self._book.has_changes():
            return None
        try:
            changes = self._book.changes()
        except DeviceFault as fault:
            return fault
        for change in changes:
            self._outbox.send(lease_message(change))
        return None


def _nothing() -> None:
    pass
