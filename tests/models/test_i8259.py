"""The 8259A pair takes, orders and delivers requests as the data sheet says."""

from __future__ import annotations

import pytest
from pic_bench import MASTER_VECTOR, READ_ISR, SLAVE_VECTOR, Bench

from devserver.models.i8259.registers import Icw1, Icw4

ICW1 = Icw1.D4 | Icw1.IC4
DEFAULT_OF_MASTER, DEFAULT_OF_SLAVE = 7, 15


@pytest.fixture
def pic() -> Bench:
    return Bench()


# -- interrupt sequence -----------------------------------------------------------------------


@pytest.mark.parametrize("irq", [irq for irq in range(16) if irq != 2])
def test_a_line_that_rises_asks_and_the_acknowledge_gives_its_vector(pic: Bench, irq: int) -> None:
    pic.up(irq)
    assert pic.intr
    base, level = (MASTER_VECTOR, irq) if irq < 8 else (SLAVE_VECTOR, irq - 8)
    assert pic.pair.acknowledge() == base + level
    assert not pic.intr


def test_the_acknowledge_moves_the_request_to_the_isr(pic: Bench) -> None:
    pic.up(3)
    assert (pic.master.irr, pic.master.isr) == (0x08, 0)
    pic.inta()
    assert (pic.master.irr, pic.master.isr) == (0, 0x08)


def test_an_interrupt_of_the_slave_is_in_service_in_both_chips(pic: Bench) -> None:
    pic.up(12)
    assert (pic.master.irr, pic.slave.irr) == (0x04, 0x10)
    assert pic.inta() == 12
    assert (pic.master.isr, pic.slave.isr) == (0x04, 0x10)


def test_only_the_upper_five_bits_of_icw2_are_the_vectors(pic: Bench) -> None:
    pic.master.initialize(ICW1, 0x4F, 0x04, Icw4.UPM)
    pic.up(1)
    assert pic.pair.acknowledge() == 0x49


def test_line_2_can_not_be_driven(pic: Bench) -> None:
    pic.up(2)
    assert not pic.intr
    pic.up(9)
    pic.master.poll()  # which uses up the edge of the slave's INT, and leaves it high
    pic.down(2)
    pic.up(2)
    assert pic.master.irr == 0


@pytest.mark.parametrize("irq", [-1, 16])
def test_there_are_sixteen_lines(pic: Bench, irq: int) -> None:
    with pytest.raises(ValueError, match=f"no interrupt line {irq}"):
        pic.pair.line(irq, True)


def test_the_bus_region_drives_lines_by_bit_0(pic: Bench) -> None:
    pic.elcr(1 << 11)
    pic.drive_by_bus(11, 0xFE)
    assert not pic.intr
    pic.drive_by_bus(11, 0x01)
    assert pic.intr
    pic.drive_by_bus(11, 0x00)
    assert not pic.intr


# -- fully nested mode ------------------------------------------------------------------------


def test_ir0_is_the_highest_and_ir7_the_lowest_priority_with_the_slave_in_place_of_ir2(
    pic: Bench,
) -> None:
    lines = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7]
    pic.up(*reversed(lines))
    taken = []
    while pic.intr:
        taken.append(pic.inta())
        pic.slave.eoi()
        pic.master.eoi()
    assert taken == lines


def test_a_service_shuts_out_its_own_level_and_lower_ones_but_no_higher_one(pic: Bench) -> None:
    pic.up(4)
    pic.inta()
    pic.pulse(4)
    pic.up(5)
    assert not pic.intr
    pic.up(3)
    assert pic.intr
    assert pic.inta() == 3


def test_after_the_eoi_what_waited_asks(pic: Bench) -> None:
    pic.up(4)
    pic.inta()
    pic.up(5)
    pic.master.eoi()
    assert pic.intr
    assert pic.inta() == 5


def test_without_requests_and_services_nobody_asks(pic: Bench) -> None:
    pic.up(0, 6, 14)
    for _ in range(3):
        pic.inta()
        pic.slave.eoi()
        pic.master.eoi()
    assert not pic.intr
    assert (pic.master.irr, pic.master.isr, pic.slave.irr, pic.slave.isr) == (0, 0, 0, 0)


# -- masks ------------------------------------------------------------------------------------


def test_a_masked_request_waits_in_the_irr(pic: Bench) -> None:
    pic.master.data(0x10)
    pic.up(4)
    assert not pic.intr
    assert pic.master.irr == 0x10
    pic.master.data(0)
    assert pic.intr


def test_masking_a_request_takes_the_question_back(pic: Bench) -> None:
    pic.up(4)
    pic.master.data(0xFF)
    assert not pic.intr


def test_the_imr_is_read_at_any_time(pic: Bench) -> None:
    pic.master.data(0xA5)
    pic.slave.data(0x5A)
    pic.master.command(READ_ISR)
    assert (pic.master.imr, pic.slave.imr) == (0xA5, 0x5A)


def test_a_mask_on_the_cascade_hides_the_whole_slave(pic: Bench) -> None:
    pic.master.data(0x04)
    pic.up(8, 15)
    assert not pic.intr
    assert pic.slave.irr == 0x81


# -- triggering -------------------------------------------------------------------------------


def test_an_edge_asks_once_until_the_line_falls_and_rises_again(pic: Bench) -> None:
    pic.up(5)
    pic.inta()
    pic.master.eoi()
    pic.up(5)
    assert not pic.intr
    pic.pulse(5)
    assert pic.intr


def test_a_level_asks_as_long_as_it_is_high(pic: Bench) -> None:
    pic.elcr(1 << 5)
    pic.up(5)
    assert pic.inta() == 5
    assert not pic.intr
    pic.master.eoi()
    assert pic.inta() == 5
    pic.down(5)
    pic.master.eoi()
    assert not pic.intr


def test_a_level_on_the_slave_asks_again_after_both_eois(pic: Bench) -> None:
    pic.elcr(1 << 11)
    pic.up(11)
    assert pic.inta() == 11
    pic.slave.eoi()
    assert not pic.intr
    pic.master.eoi()
    assert pic.inta() == 11


@pytest.mark.parametrize("irq", [6, 9])
def test_a_request_by_level_that_is_not_held_until_the_acknowledge_is_gone(
    pic: Bench, irq: int
) -> None:
    pic.elcr(1 << irq)
    pic.up(irq)
    pic.down(irq)
    assert not pic.intr


@pytest.mark.parametrize("irq", [6, 9])
def test_a_request_by_edge_outlives_the_line(pic: Bench, irq: int) -> None:
    pic.up(irq)
    pic.down(irq)
    assert pic.inta() == irq
    assert not pic.intr


def test_lines_0_1_2_8_and_13_are_never_level_triggered(pic: Bench) -> None:
    pic.elcr(0xFFFF)
    assert pic.pair.read("elcr", 0, 2, 0) == 0xFFFF & ~(1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13)


def test_a_line_that_is_high_asks_when_it_is_made_level_triggered(pic: Bench) -> None:
    pic.up(10)
    pic.inta()
    pic.slave.eoi()
    pic.master.eoi()
    pic.elcr(1 << 10)
    assert pic.intr
    pic.elcr(0)
    assert not pic.intr


def test_the_elcr_outlives_an_initialization(pic: Bench) -> None:
    pic.elcr(1 << 5)
    pic.up(5)
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04, Icw4.UPM)
    assert pic.intr


def test_ltim_makes_every_input_level_triggered() -> None:
    pic = Bench(icw1=Icw1.LTIM)
    pic.up(0, 8)
    for expected in (0, 0):
        assert pic.inta() == expected
        pic.master.eoi()
    pic.down(0)
    for expected in (8, 8):
        assert pic.inta() == expected
        pic.slave.eoi()
        pic.master.eoi()


# -- default IR7 ------------------------------------------------------------------------------


def test_an_acknowledge_of_nothing_gives_ir7_which_is_not_in_service(pic: Bench) -> None:
    pic.elcr(1 << 3)
    pic.up(3)
    pic.down(3)
    assert pic.inta() == DEFAULT_OF_MASTER
    assert pic.master.isr == 0


def test_a_real_ir7_is_told_from_the_default_by_the_isr(pic: Bench) -> None:
    pic.up(7)
    assert pic.inta() == 7
    assert pic.master.isr == 0x80


def test_a_request_that_the_slave_took_back_gives_its_ir7_and_needs_the_masters_eoi(
    pic: Bench,
) -> None:
    pic.elcr(1 << 12)
    pic.up(12)
    pic.down(12)
    assert not pic.intr
    assert pic.inta() == DEFAULT_OF_SLAVE
    assert (pic.master.isr, pic.slave.isr) == (0x04, 0)
    pic.up(9)
    assert not pic.intr
    pic.master.eoi()
    assert pic.inta() == 9


def test_masking_on_the_slave_takes_back_too(pic: Bench) -> None:
    pic.up(12)
    pic.slave.data(0xFF)
    assert pic.inta() == DEFAULT_OF_SLAVE


def test_what_the_master_itself_masks_gives_its_own_default(pic: Bench) -> None:
    pic.up(12)
    pic.master.data(0x04)
    assert pic.inta() == DEFAULT_OF_MASTER
    assert pic.master.isr == 0


def test_a_default_of_the_slave_comes_once(pic: Bench) -> None:
    pic.elcr(1 << 12)
    pic.up(12)
    pic.down(12)
    assert [pic.inta(), pic.inta()] == [DEFAULT_OF_SLAVE, DEFAULT_OF_MASTER]


def test_what_was_asked_for_last_says_whose_default_it_is(pic: Bench) -> None:
    pic.elcr(1 << 12 | 1 << 4)
    pic.up(12)
    pic.down(12)
    pic.up(4)
    pic.down(4)
    assert pic.inta() == DEFAULT_OF_MASTER


def test_a_request_that_is_not_the_last_is_taken_back_unnoticed(pic: Bench) -> None:
    pic.elcr(1 << 12)
    pic.up(12, 4)
    pic.down(12)
    assert pic.inta() == 4
    assert pic.inta() == DEFAULT_OF_MASTER


def test_what_asks_for_nothing_leaves_the_default_as_it_is(pic: Bench) -> None:
    pic.elcr(1 << 12)
    pic.master.data(0x08)
    pic.up(12)
    pic.down(12)
    pic.up(3)
    assert pic.inta() == DEFAULT_OF_SLAVE


@pytest.mark.parametrize("offset", [0, 1])
def test_a_write_to_the_master_comes_after_any_acknowledge_that_was_under_way(
    pic: Bench, offset: int
) -> None:
    pic.elcr(1 << 12)
    pic.up(12)
    pic.down(12)
    pic.pair.write("master", offset, 1, 0, 0)
    assert pic.inta() == DEFAULT_OF_MASTER
    assert pic.master.isr == 0
