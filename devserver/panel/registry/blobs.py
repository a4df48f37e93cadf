"""Images and suspended states, in parts of a size that a database takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from devserver.panel.registry.errors import RegistryError
from devserver.panel.registry.tables import BlobRow

#: Bytes of a blob's part.
PART_BYTES = 1 << 20
#: What blobs hold.
IMAGE, STATE = "image", "state"


def put(session: Session, vm_id: int, what: str, path: Path) -> None:
    """Keeps a file instead of what was kept."""
    drop(session, vm_id, what)
    with path.open("rb") as file:
        for number, (data, last) in enumerate(_parts(file)):
            session.add(BlobRow(vm_id=vm_id, what=what, number=number, last=last, data=data))
            session.flush()
            session.expunge_all()


def get(session: Session, vm_id: int, what: str, file: IO[bytes]) -> None:
    """Writes what is kept into a file. Raises :class:`RegistryError` if it is not all there."""
    number, last = 0, False
    while not last:
        part = session.get(BlobRow, (vm_id, what, number))
        if part is None:
            raise RegistryError(f"the {what} of VM {vm_id} is missing from the registry")
        file.write(part.data)
        number, last = number + 1, part.last
        session.expunge_all()
    file.flush()


def drop(session: Session, vm_id: int, what: str) -> None:
    """Keeps it no longer."""
    session.execute(delete(BlobRow).where((BlobRow.vm_id == vm_id) & (BlobRow.what == what)))


def whole(session: Session, what: str) -> set[int]:
    """The VMs of which one is kept to its end."""
    chosen = (BlobRow.what == what) & BlobRow.last
    return set(session.scalars(select(BlobRow.vm_id).where(chosen)))


def _parts(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """A file's parts, each with whether it is the last; an empty file has one."""
    data = file.read(PART_BYTES)
    while True:
        after = file.read(PART_BYTES)
        yield data, not after
        if not after:
            return
        data = after
