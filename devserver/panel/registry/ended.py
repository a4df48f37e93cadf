"""VMs that have ended: the last ones are remembered."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from devserver.panel.fleet import ENDED, KEPT_ENDED
from devserver.panel.registry.tables import VmRow


def forget_ended(session: Session, server: str) -> None:
    """What is kept does not grow with what ever ran."""
    ended = (
        (VmRow.server == server)
        & VmRow.registered.is_(False)
        & VmRow.state.in_([str(state) for state in ENDED])
    )
    newest = select(VmRow.vm_id).where(ended).order_by(VmRow.vm_id.desc())
    last = session.scalar(newest.offset(KEPT_ENDED - 1).limit(1))
    if last is not None:
        session.execute(delete(VmRow).where(ended & (VmRow.vm_id < last)))
