"""Whatever the bytes and the wishes: a plan that fits memory, or an InputError of one line."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import (
    Load,
    boot_sector,
    elf,
    elf64,
    multiboot2_header,
    multiboot_elf,
    multiboot_flat,
    rom,
)

from kvmshim.errors import InputError
from kvmshim.loader import BootPlan, ImageKind, LongStart, RealStart, plan_image

MEMORY_BYTES = st.sampled_from([64 << 10, 1 << 20, 2 << 20, 16 << 20])
ADDRESSES = st.none() | st.sampled_from([0, 0x7C00, 0xFFFF0, 1 << 20]) | st.integers(-1, 1 << 33)

WISHES = st.fixed_dictionaries(
    {"memory_bytes": MEMORY_BYTES},
    optional={
        "kind": st.none() | st.sampled_from(list(ImageKind)),
        "load_address": ADDRESSES,
        "entry": ADDRESSES,
        "append": st.sampled_from(["", "quiet"]) | st.text(max_size=8),
        "bios": st.none() | st.booleans(),
    },
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good image with a few bytes changed and perhaps its end cut off."""
    good = [elf(), elf64(), multiboot_elf(), multiboot_flat(), rom(4096)]
    good += [elf([Load(data=bytes(4) + multiboot2_header() + bytes(8))])]
    good += [boot_sector(), boot_sector(700)]
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, min(len(data), 128) - 1))
        data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(data[: draw(st.sampled_from([len(data), 600, 84, 52, 20]))])


def check(plan: BootPlan, memory_bytes: int) -> None:
    """Fails unless ``plan`` can be carried out in a machine of that much memory."""
    pieces = sorted(plan.memory(), key=lambda segment: segment.address)
    assert pieces or plan.rom is not None
    assert all(piece.address >= 0 and piece.end <= memory_bytes for piece in pieces)
    assert all(a.end <= b.address for a, b in pairwise(pieces))
    assert "\n" not in plan.describe()
    if isinstance(plan.start, RealStart):
        assert max(plan.start.cs_selector, plan.start.ip, plan.start.sp) <= 0xFFFF
        return
    entry = plan.start.rip if isinstance(plan.start, LongStart) else plan.start.eip
    assert any(piece.address <= entry < piece.end for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600) | damaged(), WISHES)
def test_any_image_gives_a_plan_that_fits_or_one_line(
    data: bytes, wishes: dict[str, object]
) -> None:
    try:
        plan = plan_image(data, "image\n", **wishes)  # type: ignore[arg-type]
    except InputError as error:
        line = str(error)
    else:
        check(plan, int(str(wishes["memory_bytes"])))
        return
    assert "\n" not in line


@pytest.mark.parametrize(
    "data", [elf(), elf64(), multiboot_elf(), multiboot_flat(), boot_sector(), rom(4096), b"\xf4"]
)
def test_every_good_image_gives_a_plan(data: bytes) -> None:
    check(plan_image(data, "image", memory_bytes=16 << 20), 16 << 20)
