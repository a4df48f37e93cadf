"""Where suspended VMs are kept: in a folder that outlives the server, or for as long as it runs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devserver.rpc import RpcError

log = logging.getLogger("devserver.panel")

#: Of the description of a suspended VM; the state itself has a version of its own.
VERSION = 1


@dataclass(frozen=True)
class Kept:
    """A suspended VM on the shelf."""

    vm_id: int
    name: str
    client: str
    memory_bytes: int


class Shelf:
    """Suspended VMs by number. Each has a description (JSON) and a state (docs/panel.md)."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder they are gone when the panel ends."""
        self._scratch = tempfile.TemporaryDirectory(prefix="kvmshim-shelf-")
        self._folder = folder or Path(self._scratch.name)

    def close(self) -> None:
        """Drops what has no folder of its own."""
        self._scratch.cleanup()

    def put(self, kept: Kept, state: Path) -> None:
        """Keeps a VM; when this returns its state is on disk. Raises :class:`RpcError`."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh = self.state(kept.vm_id).with_suffix(".fresh")
            shutil.copyfile(state, fresh)
            _sync(fresh)
            fresh.rename(self.state(kept.vm_id))
            description = self._description(kept.vm_id)
            fresh = description.with_suffix(".fresh")
            fresh.write_text(json.dumps({"version": VERSION, **vars(kept)}, indent=2) + "\n")
            _sync(fresh)
            fresh.rename(description)
            _sync(self._folder)
        except OSError as error:
            raise RpcError(f"can't keep it in {self._folder}: {error.strerror}") from None

    def state(self, vm_id: int) -> Path:
        """The file with a VM's state."""
        return self._folder / f"vm-{vm_id}.state"

    def drop(self, vm_id: int) -> None:
        """Keeps a VM no longer."""
        for path in (self._description(vm_id), self.state(vm_id)):
            with contextlib.suppress(OSError):
                path.unlink()

    def all(self) -> Iterator[Kept]:
        """Every VM that is kept; what can't be read is logged and left alone."""
        for path in sorted(self._folder.glob("vm-*.json")):
            try:
                plain: dict[str, Any] = json.loads(path.read_text())
                version = plain.pop("version")
                if version != VERSION:
                    raise ValueError(f"version {version}; this server knows {VERSION}")
                kept = Kept(**plain)
                if not self.state(kept.vm_id).exists():
                    raise ValueError("its state is missing")
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                log.error("suspended VM in %s can't be had: %s", path, error)
                continue
            yield kept

    def _description(self, vm_id: int) -> Path:
        return self._folder / f"vm-{vm_id}.json"


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
