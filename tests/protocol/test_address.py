"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devserver.protocol.address import (
    Address,
    AddressError,
    TcpAddress,
    UnixAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://localhost:9000", TcpAddress("localhost", 9000)),
        ("tcp://10.0.0.1:0", TcpAddress("10.0.0.1", 0)),
        ("tcp://[::1]:65535", TcpAddress("::1", 65535)),
        ("unix:/run/dev.sock", UnixAddress("/run/dev.sock")),
        ("unix:///run/dev.sock", UnixAddress("/run/dev.sock")),
        ("unix:here", UnixAddress("here")),
        ("unix:/\udcff", UnixAddress("/\udcff")),
        ("tcp://bücher.example:1", TcpAddress("bücher.example", 1)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither tcp://HOST:PORT nor unix:PATH"),
        ("localhost:9000", "neither"),
        ("http://localhost:80", "neither"),
        ("tcp:localhost:9000", "neither"),
        ("tcp://localhost", "not of the form tcp://HOST:PORT"),
        ("tcp://:9000", "not of the form"),
        ("tcp://localhost:", "not of the form"),
        ("tcp://localhost:-1", "not of the form"),
        ("tcp://localhost:٣", "not of the form"),
        ("tcp://localhost:65536", "port 65536 is above 65535"),
        (f"tcp://localhost:{'9' * 5000}", "is above 65535"),
        ("tcp://a..b:1", "'a..b' can't be a host's name"),
        (f"tcp://{'a' * 64}:1", "can't be a host's name"),
        ("tcp://\udcff:1", "can't be a host's name"),
        ("unix:", "has no path"),
        ("unix://", "has no path"),
        ("unix:/" + "x" * 107, "at most 107 bytes, this one has 108"),
        ("unix:/" + "ü" * 54, "at most 107 bytes, this one has 109"),
    ],
)
def test_a_mistake_is_named_with_the_text(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        parse_address(text)
    assert f"'{text}'" in str(caught.value)


@given(
    st.builds(
        TcpAddress,
        st.from_regex(
            r"[a-z0-9-]{1,9}(\.[a-z0-9-]{1,9})*\.?|[0-9a-f:]+:[0-9a-f:]+", fullmatch=True
        ),
        st.integers(0, 65535),
    )
    | st.builds(UnixAddress, st.from_regex(r"/?[a-z0-9 .:]{1,50}", fullmatch=True))
)
def test_an_address_reads_as_it_is_written(address: Address) -> None:
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["tcp://[[:0", "tcp://[::1:0", "tcp://::1]:0", "tcp://[]:0"])
def test_brackets_stand_in_pairs_around_a_host(text: str) -> None:
    with pytest.raises(AddressError, match="not of the form"):
        parse_address(text)


@given(st.text(max_size=40) | st.text(max_size=30).map("tcp://{}:1".format))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        written = str(parse_address(text))
    except AddressError as error:
        written = str(error)
    assert text in written or parse_address(written) == parse_address(text)
