"""The time by which servers that share a registry tell whether the others are still there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from devserver.panel.registry.tables import ServerRow

#: A server that has not been heard of for so long is down, whatever it last said.
STALE = timedelta(seconds=10)


def now(session: Session) -> datetime:
    """The time now, by the database's clock: those of the servers' hosts may differ.

    A SQLite file's clock is this machine's.
    """
    if session.get_bind().dialect.name == "postgresql":
        with session.no_autoflush:  # rows may be half made
            moment: datetime = session.scalars(select(func.clock_timestamp())).one()
        return moment.astimezone(UTC)
    return datetime.now(UTC)


def is_alive(row: ServerRow, now: datetime) -> bool:
    """Whether a server is up, and was heard of lately."""
    return row.up and now - row.heard < STALE
