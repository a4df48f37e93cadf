"""What a server says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from devserver.protocol import limits


@dataclass(frozen=True)
class Identity:
    """What a server says of itself."""

    server_id: int = 1
    name: str = "devserver"
    heartbeat_ns: int = limits.DEFAULT_HEARTBEAT_NS
    deadline_ns: int = limits.DEFAULT_DEADLINE_NS
    window: int = limits.DEFAULT_WINDOW
