"""Which leases a client is told of, as its guest works with a device."""

from __future__ import annotations

from typing import Any

import pytest

from devserver.machine.board import PC_BOARD
from devserver.machine.bus import Bus
from devserver.machine.lease_book import LeaseBook
from devserver.models.lease import Lease
from devserver.models.registers import Space

THR, IER, IIR, LCR, LSR, SCR = (0x3F8 + offset for offset in (0, 1, 2, 3, 5, 7))
WORD_8N1 = 3
ETBEI = 2
THR_EMPTY = 2
#: How often a lease may go, unused, before it is withheld.
PATIENCE = 4


class Unheard:
    """A sink that nobody listens at."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Guest:
    """A device's guest, and the leases that its client holds."""

    def __init__(self, device: str) -> None:
        board = [wiring for wiring in PC_BOARD if wiring.name == device]
        self._ports = Bus(board, Unheard())
        self._book = LeaseBook(self._ports, lambda: None)
        self._now_ns = 0
        self.held: dict[int, Lease] = {}
        #: Addresses that were told of, in order.
        self.told: list[int] = []
        self._hear()

    def _hear(self) -> None:
        for change in self._book.changes():
            self.told.append(change.address)
            if change.lease is None:
                del self.held[change.address]
            else:
                self.held[change.address] = change.lease

    def read(self, port: int) -> int:
        """A read; it is the server's only if no lease answers it."""
        self._now_ns += 1000
        if port in self.held:
            return self.held[port].at(self._now_ns)
        value = self._ports.read(Space.PORT, port, 1, self._now_ns)
        self._hear()
        return value

    def write(self, port: int, value: int, size: int = 1) -> None:
        self._now_ns += 1000
        self._ports.write(Space.PORT, port, size, value, self._now_ns)
        self._hear()

    def print_by_interrupt(self, times: int) -> None:
        """The handler's work: IIR says that the transmitter is empty, and gets the next one."""
        for _ in range(times):
            assert self.read(IIR) == THR_EMPTY
            self.write(THR, ord("x"))


@pytest.fixture
def guest() -> Guest:
    guest = Guest("com1")
    guest.write(LCR, WORD_8N1)
    guest.write(IER, ETBEI)
    return guest


def test_a_lease_that_has_gone_comes_back_as_soon_as_it_can(guest: Guest) -> None:
    assert IIR not in guest.held
    guest.read(IIR)
    assert IIR in guest.held


def test_a_lease_that_goes_unused_again_and_again_is_withheld(guest: Guest) -> None:
    guest.print_by_interrupt(PATIENCE)
    guest.told.clear()
    guest.print_by_interrupt(100)
    assert guest.told == []


def test_a_read_that_it_would_have_answered_brings_it_back(guest: Guest) -> None:
    guest.print_by_interrupt(100)
    guest.read(IIR)
    assert IIR not in guest.held
    guest.read(IIR)
    assert IIR in guest.held


def test_it_then_has_as_many_chances_again(guest: Guest) -> None:
    guest.print_by_interrupt(100)
    guest.read(IIR)
    guest.read(IIR)
    for _ in range(PATIENCE - 1):
        guest.write(THR, ord("x"))
        assert guest.read(IIR) == THR_EMPTY
        assert IIR in guest.held


def test_the_other_leases_stay_as_they_are(guest: Guest) -> None:
    guest.print_by_interrupt(100)
    assert guest.held.keys() >= {LSR, SCR, LCR}
    guest.write(SCR, 0x5A)
    assert guest.read(SCR) == 0x5A


def test_writes_to_a_region_without_leases_change_those_of_another() -> None:
    """The keyboard controller's data port is before its leased status in the device's lanes."""
    status, data = 0x64, 0x60
    guest = Guest("kbc")
    before = guest.held[status]
    guest.write(data, 0xED)
    assert guest.held[status] != before
    assert guest.read(status) & 1


def test_a_wide_write_changes_the_leases_of_all_its_bytes(guest: Guest) -> None:
    assert guest.read(LCR) == WORD_8N1
    guest.write(LCR, 0x0B1B, size=2)
    assert (guest.read(LCR), guest.read(LCR + 1)) == (0x1B, 0x0B)
