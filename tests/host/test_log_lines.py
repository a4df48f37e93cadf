"""A log line is one line, whatever somebody calls himself."""

from __future__ import annotations

import logging

import pytest

from devserver.logs import OneRecord


def formatted(text: str) -> str:
    record = logging.LogRecord("devserver", logging.INFO, "", 1, "VM '%s'", (text,), None)
    return OneRecord("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("guest", "INFO VM 'guest'"),
        ("größe", "INFO VM 'größe'"),
        ("\x1b[2J\rgone\x07", r"INFO VM '\x1b[2J\rgone\x07'"),
        ("a\u202eb", r"INFO VM 'a\u202eb'"),
        ("a\nERROR b", "INFO VM 'a\n    ERROR b'"),
    ],
)
def test_what_is_said_can_be_told_from_what_the_server_says(name: str, line: str) -> None:
    assert formatted(name) == line
