"""Sizes as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmshim.errors import InputError
from kvmshim.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("0x7c00", 0x7C00),
        ("0X7C00", 0x7C00),
        ("64K", 65536),
        ("64k", 65536),
        ("64KiB", 65536),
        ("16M", 16 << 20),
        ("16 MiB", 16 << 20),
        ("1G", 1 << 30),
        ("3gib", 3 << 30),
        (4096, 4096),
    ],
)
def test_a_size_is_understood(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "-1", -1, "1.5G", "16MB", "16X", "0x", "0x10K", "1_000", "٣", True, 1.0, None]
)
def test_what_is_no_size_is_refused_with_one_line_that_shows_it(text: object) -> None:
    with pytest.raises(InputError) as refused:
        parse_size(text)  # type: ignore[arg-type]
    assert str(text) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_input_error_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="16X"):
        parse_size("16X")


@given(st.integers(0, 1 << 40))
def test_a_formatted_size_means_the_same_size(size_bytes: int) -> None:
    text = format_size(size_bytes).removesuffix(" bytes").removesuffix(" byte")
    assert parse_size(text) == size_bytes


@given(st.text())
def test_any_text_is_a_size_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        assert parse_size(text) >= 0
