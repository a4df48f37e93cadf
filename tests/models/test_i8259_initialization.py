"""How an 8259A pair is initialised, what it is at power-on, and which snapshots it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pic_bench import MASTER_VECTOR, READ_ISR, SLAVE_VECTOR, SPECIAL_MASK, Bench

from devserver.models.device import StateError
from devserver.models.i8259.registers import Icw1, Icw4, Ocw2, Ocw3

ICW1 = Icw1.D4 | Icw1.IC4


@pytest.fixture
def pic() -> Bench:
    return Bench()


# -- the words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("icw1", "words"),
    [
        (Icw1.D4 | Icw1.SNGL, 1),
        (Icw1.D4 | Icw1.SNGL | Icw1.IC4, 2),
        (Icw1.D4, 2),
        (Icw1.D4 | Icw1.IC4, 3),
    ],
)
def test_icw1_says_how_many_words_follow(pic: Bench, icw1: int, words: int) -> None:
    pic.master.initialize(icw1, *([0] * words))
    assert pic.master.imr == 0
    pic.master.data(0xEE)
    assert pic.master.imr == 0xEE


def test_icw1_clears_the_mask_and_needs_new_edges(pic: Bench) -> None:
    pic.master.data(0x7F)
    pic.up(4)
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04, Icw4.UPM)
    assert pic.master.imr == 0
    assert not pic.intr
    pic.pulse(4)
    assert pic.intr


def test_icw1_makes_ir7_the_lowest(pic: Bench) -> None:
    pic.master.command(Ocw2.SET_PRIORITY | 3)
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04, Icw4.UPM)
    pic.up(4, 0)
    assert pic.inta() == 0


def test_icw1_leaves_special_mask_mode_and_status_reads_give_the_irr(pic: Bench) -> None:
    pic.master.command(SPECIAL_MASK)
    pic.master.command(READ_ISR)
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04, Icw4.UPM)
    pic.up(3)
    assert pic.master.status == 0x08
    pic.inta()
    pic.master.data(0x08)
    pic.up(4)
    assert not pic.intr


def test_icw1_forgets_services_rotation_in_aeoi_and_a_poll(pic: Bench) -> None:
    pic.up(3)
    pic.inta()
    pic.up(1)
    pic.master.command(Ocw2.ROTATE_IN_AEOI_SET)
    pic.master.command(Ocw3.D3 | Ocw3.P)
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04, Icw4.UPM | Icw4.AEOI)
    assert pic.master.imr == 0
    pic.pulse(3)
    assert pic.inta() == 3
    pic.pulse(3)
    pic.up(4)
    assert pic.inta() == 3


def test_without_ic4_the_modes_of_icw4_are_off() -> None:
    pic = Bench(master=Icw4.AEOI)
    pic.master.initialize(Icw1.D4, MASTER_VECTOR, 0x04)
    pic.up(3)
    pic.inta()
    assert pic.master.isr == 0x08


def test_nothing_is_asked_in_the_middle_of_an_initialization_but_edges_are_seen(
    pic: Bench,
) -> None:
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x04)
    pic.up(5)
    assert not pic.intr
    pic.master.data(Icw4.UPM)
    assert pic.inta() == 5


def test_an_mcs_80_system_gets_vectors_of_the_8086_mode(pic: Bench) -> None:
    pic.master.initialize(Icw1.D4 | Icw1.ADI | 0xE0, 0x57, 0x04)
    pic.up(6)
    assert pic.pair.acknowledge() == 0x56


def test_the_buffered_bits_are_kept_and_change_nothing() -> None:
    pic = Bench(master=Icw4.BUF, slave=Icw4.BUF | Icw4.MS)
    pic.up(12)
    assert pic.inta() == 12
    assert pic.pair.state.slave.icw4 == Icw4.BUF | Icw4.MS | Icw4.UPM


# -- who is wired to whom ---------------------------------------------------------------------


def test_a_master_that_knows_of_no_slave_gives_the_vector_itself(pic: Bench) -> None:
    pic.master.initialize(ICW1, MASTER_VECTOR, 0x00, Icw4.UPM)
    pic.up(12)
    assert pic.inta() == 2
    assert pic.slave.isr == 0


def test_a_single_master_knows_of_no_slave(pic: Bench) -> None:
    pic.elcr(1 << 12)
    pic.master.initialize(ICW1 | Icw1.SNGL, MASTER_VECTOR, Icw4.UPM)
    pic.up(12)
    pic.down(12)
    assert pic.inta() == 7
    assert pic.master.isr == 0
    pic.up(12)
    assert pic.inta() == 2


def test_a_slave_of_another_number_does_not_answer_so_the_bus_floats(pic: Bench) -> None:
    pic.slave.initialize(ICW1, SLAVE_VECTOR, 5, Icw4.UPM)
    pic.up(12)
    assert pic.pair.acknowledge() == 0xFF
    assert (pic.master.isr, pic.slave.isr) == (0x04, 0)


def test_a_slave_is_number_7_until_icw3_says_another(pic: Bench) -> None:
    pic.slave.initialize(ICW1, SLAVE_VECTOR)
    assert pic.pair.state.slave.icw3 == 7


def test_a_single_slave_answers_whatever_the_cascade_lines_say(pic: Bench) -> None:
    pic.slave.initialize(ICW1 | Icw1.SNGL, SLAVE_VECTOR, Icw4.UPM)
    pic.up(12)
    assert pic.inta() == 12


# -- power-on ---------------------------------------------------------------------------------


def test_at_power_on_the_pair_works_with_vectors_from_0() -> None:
    pic = Bench(fresh=True)
    pic.up(6)
    assert pic.intr
    assert pic.pair.acknowledge() == 6
    pic.up(9)
    pic.master.eoi()
    assert pic.pair.acknowledge() == 1


def test_a_reset_takes_the_question_back_and_forgets_the_lines(pic: Bench) -> None:
    pic.elcr(1 << 9)
    pic.up(9)
    pic.pair.reset()
    assert not pic.intr
    assert pic.pair.read("elcr", 0, 2, 0) == 0
    assert pic.slave.irr == 0


# -- snapshots --------------------------------------------------------------------------------


def test_a_line_that_fell_leaves_nothing_that_a_restored_pair_would_ask_for(pic: Bench) -> None:
    pic.elcr(1 << 5)
    pic.up(5)
    pic.down(5)
    twin = pic.twin()
    assert not twin.intr


@pytest.mark.parametrize(
    ("chip", "field", "value"),
    [
        ("master", "imr", 0x100),
        ("slave", "isr", -1),
        ("master", "lowest", 8),
        ("slave", "poll", 0x88),
        ("slave", "poll", 7),
        ("slave", "edges", 0x100),
        ("master", "awaited", 4),
        ("slave", "awaited", 0),
        ("master", "elcr", 0x01),
        ("slave", "elcr", 0x20),
        ("master", "lines", 0x04),
    ],
)
def test_what_no_chip_can_hold_is_refused_by_name(chip: str, field: str, value: int) -> None:
    pic = Bench(fresh=True)
    before = pic.pair.save()
    snapshot: dict[str, Any] = pic.pair.save()
    snapshot["state"][chip][field] = value
    with pytest.raises(StateError, match=f"{chip}.*{field}|{field}.*{value}|Awaited"):
        pic.pair.load(snapshot)
    assert pic.pair.save() == before


def test_a_request_can_not_have_been_taken_back_while_it_stands(pic: Bench) -> None:
    pic.up(12)
    snapshot = pic.pair.save()
    snapshot["state"]["withdrawn"] = True
    with pytest.raises(StateError, match="withdrawn"):
        pic.pair.load(snapshot)
