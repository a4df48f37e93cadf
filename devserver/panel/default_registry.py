"""Where the registry is, unless a server is told."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

#: The registry's URL, unless the command line says so: only its user and root can read it there.
REGISTRY_VARIABLE = "KVMSHIM_REGISTRY"
#: Where a user's programs keep what outlives them (XDG Base Directory Specification).
_VARIABLE = "XDG_STATE_HOME"
_SLUG_LENGTH = 40


def default_registry(address: str) -> str:
    """The URL of a SQLite database in the user's state folder, one for each address.

    Only one server can listen at an address, so the next one there is the same server again. The
    folder is made if need be.
    """
    home = os.environ.get(_VARIABLE) or Path.home() / ".local" / "state"
    folder = Path(home) / "kvmshim"
    with contextlib.suppress(OSError):  # then opening the database says what is wrong
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # an older version of this program left it open to others
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", address)[-_SLUG_LENGTH:]
    digest = hashlib.sha256(address.encode()).hexdigest()[:8]
    return f"sqlite:///{folder / f'registry-{slug}-{digest}.db'}"
