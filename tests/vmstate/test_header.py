"""A state's header: what comes back is what was saved, what is no header is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_states import CPU, HEADER, MACHINE, header

from devserver.protocol.messages import Hypervisor
from kvmshim.errors import InputError
from kvmshim.loader import Rom
from kvmshim.vmm.assemble import machine_of
from kvmshim.vmstate.cpuid import missing_features
from kvmshim.vmstate.describe import describe, plan_of, spec_of
from kvmshim.vmstate.state import DamagedState, Header

PLAIN = msgpack.unpackb(HEADER.to_bytes(), strict_map_key=False)


def test_a_header_comes_back_as_it_was() -> None:
    assert Header.from_bytes(HEADER.to_bytes()) == HEADER


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Header)])
def test_a_field_that_is_missing_or_of_a_wrong_type_is_named(name: str) -> None:
    without = {key: value for key, value in PLAIN.items() if key != name}
    for plain in (without, PLAIN | {name: 1.5}):
        with pytest.raises(DamagedState, match=name):
            Header.from_bytes(msgpack.packb(plain))


@given(st.binary(max_size=200))
def test_no_bytes_do_harm_as_a_header(data: bytes) -> None:
    with pytest.raises(DamagedState):
        Header.from_bytes(data)


def test_a_machine_comes_back_from_its_description(tmp_path: Path) -> None:
    spec = dataclasses.replace(machine_of("hello"), image=None)
    described = describe(spec, "hello", None)
    assert spec_of(header(machine=described).machine) == spec
    assert plan_of(described).rom is None


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_machine_with_a_rom_gets_one_of_the_same_sort(shadowed: bool) -> None:
    described = describe(spec_of(MACHINE), "rom", Rom(b"\xf4" * (64 << 10), shadowed=shadowed))
    assert plan_of(described).rom == Rom(bytes(64 << 10), shadowed=shadowed)


def test_a_rom_of_the_first_format_has_no_shadow_memory() -> None:
    plain = msgpack.unpackb(header(machine=MACHINE).to_bytes(), strict_map_key=False)
    del plain["machine"]["rom_shadowed"]
    assert not Header.from_bytes(msgpack.packb(plain)).machine.rom_shadowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_bytes": 0},
        {"memory_bytes": 4097},
        {"memory_bytes": 1 << 40},
        {"rom_bytes": -4096},
        {"rom_bytes": 100},
        {"rom_bytes": 1 << 30},
    ],
)
def test_sizes_that_no_machine_has_are_damage(wrong: dict[str, int]) -> None:
    with pytest.raises(DamagedState, match="damaged"):
        spec_of(dataclasses.replace(MACHINE, **wrong))


def test_a_machine_of_another_hypervisor_is_refused() -> None:
    other = max(Hypervisor) + 1
    with pytest.raises(InputError, match=f"hypervisor kind {other}"):
        spec_of(dataclasses.replace(MACHINE, hypervisor=other))


# -- processor features -------------------------------------------------------------------------


def test_the_same_features_miss_nothing() -> None:
    assert missing_features(CPU.cpuid, CPU.cpuid) == []


def test_a_missing_feature_is_named_by_leaf_register_and_bit() -> None:
    promised = [(7, 0, 1, 0, 1 << 5, 0, 0), (1, 0, 0, 0, 0, 1 << 3 | 1, 0)]
    offered = [(7, 0, 1, 0, 0, 0, 0), (1, 0, 0, 0, 0, 1, 0)]
    assert missing_features(promised, offered) == ["CPUID 7h EBX bit 5", "CPUID 1h ECX bit 3"]
    assert missing_features(offered, promised) == []


def test_a_leaf_that_is_not_there_has_no_features() -> None:
    promised = [(7, 1, 1, 1 << 4, 0, 0, 0)]
    assert missing_features(promised, []) == ["CPUID 7h.1 EAX bit 4"]


def test_what_is_no_feature_may_differ() -> None:
    """Names, caches, identifiers of processors."""
    assert missing_features([(0, 0, 0, 20, 1, 2, 3), (4, 0, 1, 9, 9, 9, 9)], []) == []
