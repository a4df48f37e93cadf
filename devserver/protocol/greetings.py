"""Session messages: a type and a map each. They set a conversation up, and end it.

Unknown keys of a map are passed over and missing ones take their defaults, so that either end may
be the newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from devserver.protocol import limits


@dataclass(frozen=True)
class Hello:
    """A client introduces itself. ``epoch`` 0 opens a new session, another resumes that one."""

    version: int = limits.PROTOCOL_VERSION
    client_id: int = 0
    name: str = ""
    token: str = ""
    epoch: int = 0
    features: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Welcome:
    """The server takes the client in, and says who both are and how often it wants to hear."""

    version: int
    server_id: int
    client_id: int
    epoch: int
    name: str = ""
    heartbeat_ns: int = limits.DEFAULT_HEARTBEAT_NS
    deadline_ns: int = limits.DEFAULT_DEADLINE_NS
    features: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WantedDevice:
    """A device that a VM wants: model kind, and region and output names to addresses and lines."""

    name: str
    kind: str
    bases: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Attach:
    """A VM wants its devices. ``epoch_ns`` is the wall-clock time (UTC) at VM time 0."""

    hypervisor: int
    vm_id: int = 0
    vm_name: str = ""
    memory_bytes: int = 0
    epoch_ns: int = 0
    devices: list[WantedDevice] = field(default_factory=list)


@dataclass(frozen=True)
class PolicyRange:
    """Writes to ``length`` bytes from ``offset`` of a region may travel by ``policy``."""

    offset: int
    length: int
    policy: str


@dataclass(frozen=True)
class AttachedRegion:
    """A region at its place. What no policy names waits for its finish."""

    name: str
    space: int
    base: int
    size: int
    policies: list[PolicyRange] = field(default_factory=list)


@dataclass(frozen=True)
class AttachedDevice:
    """A device that a VM has got."""

    device_id: int
    name: str
    kind: str
    version: int
    regions: list[AttachedRegion] = field(default_factory=list)
    feeds: list[str] = field(default_factory=list)
    emits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Attached:
    """The devices are there; up to ``window`` posted writes may be unacknowledged."""

    vm_id: int
    window: int = limits.DEFAULT_WINDOW
    devices: list[AttachedDevice] = field(default_factory=list)


@dataclass(frozen=True)
class Error:
    """The last message of a conversation that went wrong."""

    code: str
    message: str


@dataclass(frozen=True)
class Busy:
    """The server has no room for another client now."""

    message: str
