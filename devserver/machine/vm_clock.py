"""A VM's time as its server sees it."""

from __future__ import annotations

from collections.abc import MutableSequence

from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.limits import MAX_TIME_JUMP_NS

#: No VM runs for centuries; above this, sums would not fit their 64 bits.
LATEST_NS = 1 << 62
_RUNNING, _OFFSET_NS, _STOPPED_NS = range(3)


class VmClock:
    """Estimates a VM's time from what its client says; never goes back.

    ``values`` are: whether VM time runs, how far it is above the server's monotonic clock, and
    where it stands if it does not run. They may be replaced by another sequence, of signed 64-bit
    numbers, that something else keeps as well (``struct serve_clock``).
    """

    def __init__(self) -> None:
        self.values: MutableSequence[int] = [0, 0, 0]

    def is_running(self) -> bool:
        return bool(self.values[_RUNNING])

    def set(self, time_ns: int, running: bool, monotonic_ns: int) -> None:
        """The client says that VM time is ``time_ns``, and runs or stands."""
        self.observe(time_ns, monotonic_ns)
        self.values[_RUNNING] = int(running)
        self.values[_OFFSET_NS] = time_ns - monotonic_ns
        self.values[_STOPPED_NS] = time_ns

    def begin(self, time_ns: int) -> None:
        """The VM's devices have lived that long already; its time stands there."""
        self.values[_STOPPED_NS] = min(time_ns, LATEST_NS)

    def observe(self, time_ns: int, monotonic_ns: int) -> None:
        """A message stamped ``time_ns`` has arrived.

        Raises :class:`RemoteProtocolError` if the time can't be true: devices would do all that
        was due until then, and a server would do nothing else.
        """
        if time_ns > self.latest_likely_ns(monotonic_ns):
            expected_ns = self.now_ns(monotonic_ns)
            raise RemoteProtocolError(
                ErrorCode.MALFORMED,
                f"VM time {time_ns} ns lies {(time_ns - expected_ns) / 1e9:.0f} s ahead of what "
                f"this VM's earlier messages make likely; at most "
                f"{MAX_TIME_JUMP_NS // 10**9} s are allowed",
            )
        offset_ns = time_ns - monotonic_ns
        if offset_ns > self.values[_OFFSET_NS]:
            self.values[_OFFSET_NS] = offset_ns

    def now_ns(self, monotonic_ns: int) -> int:
        """The VM time now."""
        running, offset_ns, stopped_ns = self.values
        return monotonic_ns + offset_ns if running else stopped_ns

    def latest_likely_ns(self, monotonic_ns: int) -> int:
        """The latest VM time that a message can truthfully be stamped with."""
        return self.now_ns(monotonic_ns) + MAX_TIME_JUMP_NS

    def monotonic_of(self, time_ns: int) -> int | None:
        """When VM time will be ``time_ns``; None while it stands."""
        return time_ns - self.values[_OFFSET_NS] if self.values[_RUNNING] else None
