"""The 8259A pair's operation words: ends of interrupts, rotation, special modes, polls, status."""

from __future__ import annotations

import pytest
from pic_bench import NO_SPECIAL_MASK, READ_IRR, READ_ISR, SPECIAL_MASK, Bench

from devserver.models.i8259.registers import Icw4, Ocw2, Ocw3


@pytest.fixture
def pic() -> Bench:
    return Bench()


# -- end of interrupt -------------------------------------------------------------------------


def test_a_non_specific_eoi_ends_the_highest_service(pic: Bench) -> None:
    for irq in (6, 4, 1):
        pic.up(irq)
        pic.inta()
    for left in (0x50, 0x40, 0x00, 0x00):
        pic.master.eoi()
        assert pic.master.isr == left


def test_a_specific_eoi_ends_the_level_it_names(pic: Bench) -> None:
    for irq in (6, 4):
        pic.up(irq)
        pic.inta()
    pic.master.command(Ocw2.SPECIFIC_EOI | 6)
    assert pic.master.isr == 0x10
    pic.master.command(Ocw2.SPECIFIC_EOI | 5)
    assert pic.master.isr == 0x10


def test_the_no_operation_is_none(pic: Bench) -> None:
    pic.up(6)
    pic.inta()
    before = pic.pair.save()
    pic.master.command(Ocw2.NO_OPERATION | 3)
    assert pic.pair.save() == before


def test_the_slaves_eoi_alone_leaves_the_masters_service(pic: Bench) -> None:
    pic.up(9)
    pic.inta()
    pic.slave.eoi()
    pic.up(10)
    assert not pic.intr
    pic.up(1)
    assert pic.inta() == 1


def test_with_aeoi_nothing_stays_in_service() -> None:
    pic = Bench(master=Icw4.AEOI, slave=Icw4.AEOI)
    pic.up(4, 9, 10)
    assert [pic.inta() for _ in range(3)] == [9, 10, 4]
    assert (pic.master.isr, pic.slave.isr) == (0, 0)
    assert not pic.intr


# -- rotation ---------------------------------------------------------------------------------


def test_after_a_rotating_eoi_the_level_it_ended_is_the_lowest(pic: Bench) -> None:
    pic.up(4, 6)
    pic.inta()
    pic.master.command(Ocw2.ROTATE_ON_NON_SPECIFIC_EOI)
    assert pic.master.isr == 0
    pic.pulse(4)
    pic.up(5)
    taken = []
    while pic.intr:
        taken.append(pic.inta())
        pic.master.command(Ocw2.SPECIFIC_EOI | taken[-1])
    assert taken == [5, 6, 4]


def test_a_rotating_eoi_with_nothing_to_end_rotates_nothing(pic: Bench) -> None:
    pic.master.command(Ocw2.ROTATE_ON_NON_SPECIFIC_EOI)
    pic.up(7, 0)
    assert pic.inta() == 0


def test_a_specific_rotating_eoi_ends_and_lowers_the_level_it_names(pic: Bench) -> None:
    for irq in (5, 3):
        pic.up(irq)
        pic.inta()
    pic.master.command(Ocw2.ROTATE_ON_SPECIFIC_EOI | 5)
    assert pic.master.isr == 0x08
    pic.up(6)
    assert pic.inta() == 6


def test_set_priority_names_the_lowest_and_ends_nothing(pic: Bench) -> None:
    pic.up(1)
    pic.inta()
    pic.master.command(Ocw2.SET_PRIORITY | 4)
    assert pic.master.isr == 0x02
    pic.up(0, 5)
    assert pic.inta() == 5


def test_a_non_specific_eoi_follows_the_rotated_priorities(pic: Bench) -> None:
    pic.up(1)
    pic.inta()
    pic.master.command(Ocw2.SET_PRIORITY | 4)
    pic.up(5)
    pic.inta()
    pic.master.eoi()
    assert pic.master.isr == 0x02


def test_rotation_in_aeoi_mode_goes_round_all_that_ask() -> None:
    pic = Bench(master=Icw4.AEOI)
    pic.elcr(1 << 3 | 1 << 5)
    pic.master.command(Ocw2.ROTATE_IN_AEOI_SET)
    pic.up(3, 5)
    assert [pic.inta() for _ in range(4)] == [3, 5, 3, 5]
    pic.master.command(Ocw2.SET_PRIORITY | 7)
    pic.master.command(Ocw2.ROTATE_IN_AEOI_CLEAR)
    assert [pic.inta() for _ in range(3)] == [3, 3, 3]


# -- special mask mode ------------------------------------------------------------------------


def test_in_special_mask_mode_a_masked_service_shuts_out_nothing(pic: Bench) -> None:
    pic.up(3)
    pic.inta()
    pic.up(6)
    pic.master.data(0x08)
    assert not pic.intr
    pic.master.command(SPECIAL_MASK)
    assert pic.intr
    pic.master.command(NO_SPECIAL_MASK)
    assert not pic.intr


def test_in_special_mask_mode_the_masked_level_itself_stays_shut_out(pic: Bench) -> None:
    pic.up(3)
    pic.inta()
    pic.master.data(0x08)
    pic.master.command(SPECIAL_MASK)
    pic.pulse(3)
    assert not pic.intr


def test_in_special_mask_mode_an_eoi_passes_over_masked_services(pic: Bench) -> None:
    for irq in (6, 3):
        pic.up(irq)
        pic.inta()
    pic.master.data(0x08)
    pic.master.command(SPECIAL_MASK)
    pic.master.eoi()
    assert pic.master.isr == 0x08


def test_without_esmm_the_smm_bit_does_nothing(pic: Bench) -> None:
    before = pic.pair.save()
    pic.master.command(Ocw3.D3 | Ocw3.SMM)
    assert pic.pair.save() == before


# -- special fully nested mode ----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, Icw4.SFNM])
def test_only_in_special_fully_nested_mode_a_higher_line_of_the_slave_interrupts_a_lower(
    mode: int,
) -> None:
    pic = Bench(master=mode)
    pic.up(12)
    pic.inta()
    pic.up(13)
    assert not pic.intr
    pic.up(9)
    assert pic.intr == bool(mode)


def test_special_fully_nested_mode_still_shuts_out_lower_levels_of_the_master() -> None:
    pic = Bench(master=Icw4.SFNM)
    pic.up(12)
    pic.inta()
    pic.up(3)
    assert not pic.intr
    pic.up(1)
    assert pic.inta() == 1


def test_special_fully_nested_mode_is_for_the_slaves_input_only() -> None:
    pic = Bench(master=Icw4.SFNM)
    pic.up(4)
    pic.inta()
    pic.pulse(4)
    assert not pic.intr


# -- poll and status --------------------------------------------------------------------------


def test_a_poll_gives_the_highest_request_and_puts_it_into_service(pic: Bench) -> None:
    pic.up(5, 3)
    assert pic.master.poll() == 0x83
    assert pic.master.isr == 0x08
    assert not pic.intr


def test_a_poll_of_nothing_gives_no_request(pic: Bench) -> None:
    assert pic.master.poll() & 0x80 == 0
    assert pic.master.isr == 0


def test_a_poll_holds_for_the_next_read_of_either_port_and_no_longer(pic: Bench) -> None:
    pic.up(5)
    pic.master.command(Ocw3.D3 | Ocw3.P)
    assert pic.master.imr == 0x85
    assert pic.master.imr == 0


def test_a_poll_overrides_a_status_read_and_is_frozen_until_it_is_read(pic: Bench) -> None:
    pic.up(5)
    pic.master.command(Ocw3.D3 | Ocw3.P | Ocw3.RR | Ocw3.RIS)
    pic.up(3)
    assert pic.master.status == 0x85
    assert pic.master.status == 0x20
    assert pic.inta() == 3


def test_an_acknowledge_ends_a_poll(pic: Bench) -> None:
    pic.up(5)
    pic.master.command(Ocw3.D3 | Ocw3.P)
    pic.inta()
    assert pic.master.imr == 0


def test_polling_master_and_slave_takes_the_place_of_the_acknowledge(pic: Bench) -> None:
    pic.up(14)
    assert pic.master.poll() == 0x82
    assert pic.slave.poll() == 0x86
    assert (pic.master.isr, pic.slave.isr) == (0x04, 0x40)
    assert not pic.intr


def test_a_poll_in_aeoi_mode_leaves_nothing_in_service_and_the_next_asks() -> None:
    pic = Bench(slave=Icw4.AEOI)
    pic.up(10, 14)
    assert pic.master.poll() == 0x82
    assert pic.slave.poll() == 0x82
    assert pic.slave.isr == 0
    pic.master.eoi()
    assert pic.inta() == 14


def test_the_choice_of_irr_or_isr_lasts(pic: Bench) -> None:
    pic.up(4)
    pic.inta()
    pic.up(5)
    pic.master.command(READ_ISR)
    pic.master.command(Ocw3.D3)
    assert [pic.master.status, pic.master.status] == [0x10, 0x10]
    pic.master.command(READ_IRR)
    assert [pic.master.status, pic.master.status] == [0x20, 0x20]
