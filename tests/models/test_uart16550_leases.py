"""Which writes leave which of the UART's answers alone, and which answers can't be leased."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devserver.models.device import Context, StateError
from devserver.models.lease import Lease
from devserver.models.uart16550.device import Uart16550
from devserver.models.uart16550.registers import Fcr, Ier, Lcr, Mcr

THR, IER, IIR, FCR, LCR, MCR, LSR, MSR = 0, 1, 2, 2, 3, 4, 5, 6

some = settings(max_examples=80, deadline=None)
modes = st.sampled_from([0, 0, Mcr.LOOP, Mcr.LOOP | Mcr.OUT2])
enables = st.sampled_from([0, int(Ier.ETBEI), int(Ier.ERBFI), int(Ier.ALL)])
lines = st.sampled_from([3, 3, int(Lcr.SB) | 3, int(Lcr.DLAB) | 3])


def uart(mcr: int = 0, ier: int = 0, lcr: int = 3, *, paced: bool = False) -> Uart16550:
    device = Uart16550(Context(options={"paced": paced}))
    for offset, value in ((IER, ier), (FCR, Fcr.FIFO_ENABLE), (MCR, mcr), (LCR, lcr)):
        device.write("io", offset, 1, int(value), 0)
    device.read("io", MSR, 1, 0)
    return device


def lease(device: Uart16550, offset: int) -> Lease | None:
    return device.lease("io", offset, 0)


@some
@given(mcr=modes, ier=enables, lcr=lines, paced=st.booleans(), data=st.data())
def test_a_write_to_an_unaffected_lane_leaves_the_lease_true(
    mcr: int, ier: int, lcr: int, paced: bool, data: Any
) -> None:
    device = uart(mcr, ier, lcr, paced=paced)
    granted = {at: it for at in range(1, 8) if (it := lease(device, at)) is not None}
    for offset, held in granted.items():
        twin = Uart16550(Context(options={"paced": paced}))
        twin.load(device.save())
        free = [lane for lane in range(8) if held.is_unaffected_by(lane)]
        for lane in data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=4)):
            twin.write("io", lane, 1, data.draw(st.integers(0, 255)), 0)
        assert twin.read("io", offset, 1, 0) == held.at(0), offset


def test_polling_the_line_status_stays_local_while_text_is_written() -> None:
    device = uart()
    before = lease(device, LSR)
    device.write("io", THR, 1, 0x41, 0)
    assert before is not None
    assert before.is_unaffected_by(THR)
    assert lease(device, LSR) == before


@pytest.mark.parametrize("device", [uart(Mcr.LOOP), uart(paced=True)], ids=["loop", "paced"])
def test_what_is_written_shows_in_the_line_status_in_loopback_and_when_paced(
    device: Uart16550,
) -> None:
    held = lease(device, LSR)
    assert held is not None
    assert not held.is_unaffected_by(THR)


def test_answers_that_a_read_takes_back_are_not_leased() -> None:
    device = uart(ier=Ier.ETBEI)
    assert lease(device, IIR) is None  # names the empty holding register
    device.write("io", MCR, 1, Mcr.LOOP | Mcr.RTS, 0)
    assert lease(device, MSR) is None  # has deltas
    for character in range(17):
        device.write("io", THR, 1, character, 0)
    assert lease(device, LSR) is None  # has an overrun


@pytest.mark.parametrize(
    "change",
    [{"ier": 256}, {"scr": -1}, {"divisor": 1 << 16}, {"rx": b"one byte more than its errors"}],
)
def test_a_snapshot_that_no_chip_could_give_is_refused(change: dict[str, Any]) -> None:
    device = uart()
    before = device.save()
    state = {**before["state"], **change}
    if "rx" in change:
        state["rx"] = {**before["state"]["rx"], "data": b"a"}
    with pytest.raises(StateError, match="uart16550"):
        device.load({**before, "state": state})
    assert device.save() == before
