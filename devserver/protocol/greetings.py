"""Session messages: a type and a map each. They set a conversation up, and end it.

Unknown keys of a map are passed over and missing ones take their defaults, so that either end may
be the newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from devserver.plain import PlainError
from devserver.protocol import limits

#: Widths in bits of the numbers that are not 64 bits wide; no number is negative.
BITS = {
    "version": 32,
    "client_id": 32,
    "server_id": 32,
    "vm_id": 32,
    "device_id": 32,
    "window": 32,
    "hypervisor": 8,
    "space": 8,
}
#: Text that people read; every other text is a name.
TEXTS = ("message", "token", "key")


class _Bounded:
    """A record whose fields are held to their bounds when it is made, by either end."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            what = f"{type(self).__name__}.{name}"
            if isinstance(value, int):
                _check_number(what, value, (1 << BITS.get(name, 64)) - 1)
            elif isinstance(value, str):
                bound = limits.MAX_TEXT_BYTES if name in TEXTS else limits.MAX_NAME_BYTES
                _check_length(what, value, bound)
            elif isinstance(value, bytes):
                if len(value) > limits.MAX_STATE_BYTES:
                    raise PlainError(f"{what} has {len(value)} bytes; too many")
            elif isinstance(value, dict):
                for key in value:
                    _check_length(f"a key of {what}", key, limits.MAX_NAME_BYTES)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, str):
                        _check_length(f"an item of {what}", item, limits.MAX_NAME_BYTES)


def _check_number(what: str, value: int, highest: int) -> None:
    if not 0 <= value <= highest:
        raise PlainError(f"{what} is {value:.3g}; it must be between 0 and {highest}")


def _check_length(what: str, text: str, bound: int) -> None:
    length = len(text.encode(errors="replace"))
    if length > bound:
        raise PlainError(f"{what} has {length} bytes; it may have at most {bound}")


#: Features of a greeting: the client takes leases,
LEASES = "lease"
#: and, on a Unix socket, bytes through memory that the server shares with it.
SHARED_MEMORY = "shared-memory"


@dataclass(frozen=True)
class Hello(_Bounded):
    """A client introduces itself. ``epoch`` 0 opens a new session, another resumes that one.

    ``server_id`` is the server that it wants to talk to through the one that it has reached; 0
    means that one.
    """

    version: int = limits.PROTOCOL_VERSION
    client_id: int = 0
    name: str = ""
    token: str = ""
    epoch: int = 0
    features: list[str] = field(default_factory=list)
    server_id: int = 0


@dataclass(frozen=True)
class Welcome(_Bounded):
    """The server takes the client in, and says who both are and how often it wants to hear."""

    version: int
    server_id: int
    client_id: int
    epoch: int
    name: str = ""
    heartbeat_ns: int = limits.DEFAULT_HEARTBEAT_NS
    deadline_ns: int = limits.DEFAULT_DEADLINE_NS
    features: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.heartbeat_ns < self.deadline_ns:
            raise PlainError(
                f"Welcome.deadline_ns ({self.deadline_ns}) must be above Welcome.heartbeat_ns "
                f"({self.heartbeat_ns}), and that above 0"
            )


@dataclass(frozen=True)
class Join(_Bounded):
    """Another server offers itself as an I/O server, for as long as the connection lasts.

    Clients reach it at ``address``. ``server_id`` is one that it had already, or 0.
    """

    version: int
    name: str
    address: str
    server_id: int = 0
    token: str = ""


@dataclass(frozen=True)
class Panel(_Bounded):
    """Somebody wants to talk to the control panel: an ``agent`` or an ``operator``."""

    version: int
    role: str
    name: str = ""
    token: str = ""


@dataclass(frozen=True)
class WantedDevice(_Bounded):
    """A device that a VM wants: model kind, and region and output names to addresses and lines.

    ``policies`` maps the names of registers, or ``*`` for all others, to the policies that are to
    replace the model's: one of ``finish``, ``posted``, ``coalesced`` for writes, one of ``asked``,
    ``leased`` for reads, or one of each joined by ``+``. ``placement`` names the server that is to
    have it; empty: any. ``state`` is the data of a STATE: what the device begins with.
    """

    name: str
    kind: str
    bases: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)
    placement: str = ""
    state: bytes = b""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, base in self.bases.items():
            _check_number(f"WantedDevice.bases[{name!r}]", base, (1 << 64) - 1)
        for name, line in self.lines.items():
            _check_number(f"WantedDevice.lines[{name!r}]", line, limits.MAX_LINES - 1)
        for name, words in self.policies.items():
            _check_length(f"WantedDevice.policies[{name!r}]", words, limits.MAX_NAME_BYTES)


@dataclass(frozen=True)
class Attach(_Bounded):
    """A VM wants its devices. ``epoch_ns`` is the wall-clock time (UTC) at VM time 0.

    With a ``key`` it takes over those that ``vm_id`` has left behind (DETACH with ``keep``).
    """

    hypervisor: int
    vm_id: int = 0
    vm_name: str = ""
    memory_bytes: int = 0
    epoch_ns: int = 0
    devices: list[WantedDevice] = field(default_factory=list)
    key: str = ""


@dataclass(frozen=True)
class PolicyRange(_Bounded):
    """How accesses to ``length`` bytes from ``offset`` of a region may travel.

    ``policy`` is ``posted`` or ``coalesced`` (writes) or ``leased`` (reads).
    """

    offset: int
    length: int
    policy: str


@dataclass(frozen=True)
class AttachedRegion(_Bounded):
    """A region at its place. What no policy names waits for its finish."""

    name: str
    space: int
    base: int
    size: int
    policies: list[PolicyRange] = field(default_factory=list)


@dataclass(frozen=True)
class AttachedDevice(_Bounded):
    """A device that a VM has got."""

    device_id: int
    name: str
    kind: str
    version: int
    regions: list[AttachedRegion] = field(default_factory=list)
    feeds: list[str] = field(default_factory=list)
    emits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Elsewhere(_Bounded):
    """Devices that another server is to be asked for: at its address, or through this one."""

    server_id: int
    name: str
    devices: list[str]
    address: str = ""


@dataclass(frozen=True)
class Attached(_Bounded):
    """The devices are there; up to ``window`` posted writes may be unacknowledged.

    ``key`` is what an adopter has to show. ``elsewhere`` are those that other servers have.
    """

    vm_id: int
    window: int = limits.DEFAULT_WINDOW
    devices: list[AttachedDevice] = field(default_factory=list)
    key: str = ""
    elsewhere: list[Elsewhere] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window == 0:
            raise PlainError("Attached.window is 0; a client could never post a write")


@dataclass(frozen=True)
class Error(_Bounded):
    """The last message of a conversation that went wrong."""

    code: str
    message: str


@dataclass(frozen=True)
class Busy(_Bounded):
    """The server has no room for another client now."""

    message: str
