"""VMs that other servers manage, as they are known here: from the registry, which may be behind."""

from __future__ import annotations

import re
from collections.abc import Iterable

from devserver.panel.fleet import PLACED
from devserver.panel.registry.registry import Row

_STATUS = re.compile(r"the guest ended with status (\d+)$")
#: The state of a VM whose server is down: nobody can tell how it is.
UNREACHABLE = "unreachable"


def as_known(row: Row, servers: Iterable[Row]) -> Row:
    """A VM of another server's. What one that is down has said last is not taken for the truth."""
    if row["state"] not in PLACED or _is_up(row["server"], servers):
        return row
    why = f"server '{row['server']}' is down; it was {row['state']} when that was heard of last"
    return {**row, "state": UNREACHABLE, "why": why}


def exit_status(row: Row) -> int | None:
    """A VM's exit status; of one that ended under an earlier panel, by what is written of it."""
    known: int | None = row.get("exit_status")
    said = _STATUS.search(row["why"]) if known is None and row["state"] == "stopped" else None
    return int(said[1]) if said else known


def where_to_ask(row: Row, servers: Iterable[Row]) -> str:
    """What to do about a VM of another server's."""
    known = {server["name"]: server for server in servers}
    if not _is_up(row["server"], servers):
        return f"that server is down, and the VM {UNREACHABLE} until it is started again"
    return f"ask that: --server {known[row['server']]['address']}"


def _is_up(name: str, servers: Iterable[Row]) -> bool:
    return any(server["name"] == name and server["up"] for server in servers)
