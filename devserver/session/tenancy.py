"""One VM's devices in this host: how they come, change and go, and what of them is leased."""

from __future__ import annotations

from collections.abc import Callable

from devserver.machine.backplane import Backplane, DeviceFault
from devserver.machine.leases import LeaseBook, lease_message
from devserver.machine.slot import Slot
from devserver.protocol.messages import Add, Attach, Save, Status
from devserver.session import attaching
from devserver.session.outbox import Outbox
from devserver.session.residents import Residents


class Tenancy:
    """The devices of the VM that one connection speaks for."""

    def __init__(self, outbox: Outbox, residents: Residents, on_mail: Callable[[], None]) -> None:
        """``on_mail`` is called when there may be mail for the devices."""
        outbox.hub = residents.hub
        self.backplane = Backplane((), outbox)
        self._on_mail = on_mail
        #: What an adopter of the devices has to show; empty while there are none.
        self.key = ""
        #: Counts the times that devices came or went.
        self.rebuilt = 0
        self._outbox = outbox
        self._residents = residents
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
            self.backplane = self._residents.adopt(attach.vm_id, attach.key)
            self.backplane.rewire(self._outbox)
            self._vm_id, self.key = attach.vm_id, attach.key
        else:
            self._vm_id = self._residents.move_in(attach.vm_id, attach.vm_name)
            self.key = self._residents.make_key()
            self.backplane = attaching.build(attach, self._outbox, self._residents.hub)
        party = self.backplane.party
        party.on_mail, party.on_post = self._on_mail, lambda: self._outbox.on_cause()
        return self._vm_id

    def leave_behind(self, now_ns: int) -> None:
        """The client goes, and the devices stay for the next one."""
        self.backplane.party.on_mail = _nothing
        self._residents.leave_behind(self._vm_id, self.key, self.backplane, now_ns)
        self.key = ""

    def close(self) -> None:
        """The connection is gone, and with it the devices that were not left behind."""
        if self.key:
            self._residents.move_out(self._vm_id)
            self.backplane.party.leave()
        self.key = ""

    def save(self, save: Save) -> tuple[Status, bytes]:
        """Answers a SAVE; raises :class:`DeviceFault`."""
        slot = self.backplane.slots.get(save.device_id)
        status, data = attaching.save(self.backplane, save)
        if save.remove and status is Status.OK and slot is not None:
            self.rebuilt += 1
            if self._book is not None:
                self._book.forget(slot)
        return status, data

    def add(self, add: Add, latest_ns: int) -> tuple[Status, bytes]:
        """Answers an ADD of a device whose state is of ``latest_ns`` at most.

        Raises :class:`RemoteProtocolError`.
        """
        status, data = attaching.add(self.backplane, add, latest_ns)
        if status is Status.OK:
            self.rebuilt += 1
            self._new.append(self.backplane.slots[max(self.backplane.slots)])
        return status, data

    # -- leases -------------------------------------------------------------------------------

    def grant_leases(self) -> None:
        """Grants leases from now on."""
        self._book = LeaseBook(self.backplane, lambda: self._outbox.on_cause())

    def time_runs(self) -> None:
        """VM time runs: the client knows by now of the devices that were added."""
        for slot in self._new:
            if self._book is not None and slot.device_id in self.backplane.slots:
                self._book.add(slot)
        self._new.clear()
        self.look_for_mail()

    def look_for_mail(self) -> None:
        """Has the devices hear what waits for them, once the present call is over."""
        self._residents.hub.ring(self.backplane.party)

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
            self._outbox.say(lease_message(change))
        return None


def _nothing() -> None:
    pass
