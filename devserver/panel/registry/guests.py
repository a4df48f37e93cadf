"""VMs that clients run by themselves, as their server tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from devserver.panel.registry.tables import ClientRow, GuestRow


def save(
    session: Session, server: str, changed: Sequence[Mapping[str, Any]], gone: Iterable[int] | None
) -> None:
    """These are new or other than they were, and those have ended; None: all that were known."""
    ours = GuestRow.server == server
    if gone is not None:
        ours &= GuestRow.vm_id.in_([*gone, *(guest["vm_id"] for guest in changed)])
    session.execute(delete(GuestRow).where(ours))
    known = set(session.scalars(select(ClientRow.name)))
    for guest in changed:
        session.add(GuestRow(server=server, **guest))
        if guest["client"] not in known:
            known.add(guest["client"])
            name = guest["client"]
            session.add(ClientRow(name=name, hostname=name, server="", registered=False))
