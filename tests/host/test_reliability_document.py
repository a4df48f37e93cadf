"""docs/reliability.md names every message, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

from devserver.host import client, device_host
from devserver.machine import bus, slot, turns
from devserver.protocol import limits
from devserver.protocol.messages import MessageType
from devserver.session import outbox

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
OURS = TEXT.partition("## Client and server\n")[2].partition("\n## ")[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    part = OURS.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_message_is_there_once_in_the_order_of_the_protocol() -> None:
    assert [row[0] for row in rows("Messages")] == [f"`{kind.name}`" for kind in MessageType]


def test_every_row_says_what_bounds_it_and_which_test_holds_that() -> None:
    for row in [*rows("Messages"), *rows("Queues")]:
        assert len(row) == 4, row
        assert row[1], row
        assert re.fullmatch(r"`test_\w+\.py`", row[3]), row


def test_the_tests_that_it_names_are_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"test_\w+\.py", TEXT)) <= there


def test_the_numbers_are_those_of_the_code() -> None:
    assert turns.TURN_NS == 100_000
    assert bus.MAX_DEADLINES == 4096
    assert outbox.MAX_CALL_MESSAGES == 65_536
    assert outbox.MAX_CALL_BYTES == 4 << 20
    assert outbox.HEAVY_BYTES == client.HIGH_OUT_BYTES == 1 << 20
    assert client.MAX_OUT_BYTES == 8 << 20
    assert slot.FEED_LIMIT_BYTES == 64 << 10
    assert limits.MAX_TIME_JUMP_NS == 60 * 10**9
    assert device_host.FEW_OPENING == 16
