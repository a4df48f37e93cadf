"""Durations and percentages as the command line takes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmshim.errors import InputError
from kvmshim.lab.quantities import (
    format_duration,
    format_share,
    parse_duration_ns,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("1ms", 1_000_000),
        ("100us", 100_000),
        ("100µs", 100_000),
        ("0.5s", 500_000_000),
        ("0.3ms", 300_000),
        ("7ns", 7),
        ("2 ms", 2_000_000),
        ("10s", 10_000_000_000),
        ("0", 0),
        ("0ms", 0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration_ns: int) -> None:
    assert parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize(
    "text", ["", "ms", "1", "1.ms", ".5s", "-1ms", "1e3us", "1 minute", "nan", "1ms 2ms", "10.1s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="duration"):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("text", "share"), [("0.1%", 0.001), ("50%", 0.5), ("3 %", 0.03), ("0%", 0.0), ("0", 0.0)]
)
def test_a_percentage_has_its_sign(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "%", "1", "0.001", "-1%", "50.1%", "100%", "inf%"])
def test_anything_else_is_no_percentage(text: str) -> None:
    with pytest.raises(InputError, match="percentage"):
        parse_share(text)


@given(st.integers(0, 10_000_000_000))
def test_a_duration_that_was_formatted_can_be_read_again(duration_ns: int) -> None:
    assert parse_duration_ns(format_duration(duration_ns)) == duration_ns


def test_people_read_the_largest_unit_that_fits() -> None:
    assert format_duration(1_500_000) == "1.5 ms"
    assert format_duration(2_000_000_000) == "2 s"
    assert format_duration(0) == "0"
    assert format_share(0.001) == "0.1%"
