"""A VM's time as its server sees it."""

from __future__ import annotations

from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.limits import MAX_TIME_JUMP_NS


class VmClock:
    """Estimates a VM's time from what its client says; never goes back."""

    def __init__(self) -> None:
        self._running = False
        self._offset_ns = 0
        self._stopped_ns = 0

    def set(self, time_ns: int, running: bool, monotonic_ns: int) -> None:
        """The client says that VM time is ``time_ns``, and runs or stands."""
        self.observe(time_ns, monotonic_ns)
        self._running = running
        self._stopped_ns = time_ns
        self._offset_ns = time_ns - monotonic_ns

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
        self._offset_ns = max(self._offset_ns, time_ns - monotonic_ns)

    def now_ns(self, monotonic_ns: int) -> int:
        """The VM time now."""
        return monotonic_ns + self._offset_ns if self._running else self._stopped_ns

    def latest_likely_ns(self, monotonic_ns: int) -> int:
        """The latest VM time that a message can truthfully be stamped with."""
        return self.now_ns(monotonic_ns) + MAX_TIME_JUMP_NS

    def highest_offset_ns(self) -> int | None:
        """How far a message's time may be above the monotonic one; None while VM time stands."""
        return self._offset_ns + MAX_TIME_JUMP_NS if self._running else None

    def monotonic_of(self, time_ns: int) -> int | None:
        """When VM time will be ``time_ns``; None while it stands."""
        return time_ns - self._offset_ns if self._running else None
