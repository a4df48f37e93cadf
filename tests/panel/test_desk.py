"""What the panel shows to those who look, and says when its registry can't be written."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from devserver.panel.state import PanelState
from devserver.rpc import Handler


async def no_host() -> dict[str, Any]:
    return {"servers": [], "refused": {}, "guests": []}


class Viewer:
    """Somebody who looks at a console, and reads or not."""

    def __init__(self, *, reads: bool) -> None:
        self.peer: Any = self
        self.heard: list[Any] = []
        self._reads = reads

    def handlers(self) -> dict[str, Handler]:
        return {}

    async def gone(self) -> None:
        self.peer = None

    def post(self, op: str, **arguments: Any) -> bool:
        self.heard.append(arguments["data"])
        return self._reads

    def post_last(self, op: str, **arguments: Any) -> None:
        self.heard.append(op)


def panel(url: str = "sqlite://") -> PanelState:
    return PanelState(no_host, url, "one", "tcp://one:1", only_registered=False)


def test_one_who_does_not_read_a_console_is_shown_no_more_and_told_so() -> None:
    made, slow, quick, gone = panel(), Viewer(reads=False), Viewer(reads=True), Viewer(reads=True)
    asyncio.run(gone.gone())
    made.viewers[1] = {slow: 0, gone: 0, quick: 0}
    made.writers[1] = slow
    made.show(1, b"ab", 2)
    made.show(1, b"c", 3)
    assert slow.heard == [b"ab", "console_closed"]
    assert quick.heard == [b"ab", b"c"]
    assert gone.heard == []
    assert made.writers == {}


def test_what_was_printed_too_fast_to_be_shown_is_counted() -> None:
    made, viewer = panel(), Viewer(reads=True)
    made.viewers[1] = {viewer: 5}
    made.show(1, b"end", 108)
    assert viewer.heard == [b"\r\n[100 bytes were printed too fast to be shown]\r\nend"]


def test_that_the_registry_can_t_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        made = panel(f"sqlite:///{tmp_path}/registry.db")
        await made.records.open()
        with closing(sqlite3.connect(tmp_path / "registry.db")) as database:
            database.execute("DROP TABLE vms")
        made.fleet.new_vm(1, "one", "a")
        for _ in range(3):
            await made.records.save()
        await made.records.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    said = [record.message for record in caplog.records if "going on without" in record.message]
    assert len(said) == 1
