"""A VM's time as its server sees it."""

from __future__ import annotations


class VmClock:
    """Estimates a VM's time from what its client says; never goes back."""

    def __init__(self) -> None:
        self._running = False
        self._offset_ns = 0
        self._stopped_ns = 0

    def set(self, time_ns: int, running: bool, monotonic_ns: int) -> None:
        """The client says that VM time is ``time_ns``, and runs or stands."""
        self._running = running
        self._stopped_ns = time_ns
        self._offset_ns = time_ns - monotonic_ns

    def observe(self, time_ns: int, monotonic_ns: int) -> None:
        """A message stamped ``time_ns`` has arrived."""
        self._offset_ns = max(self._offset_ns, time_ns - monotonic_ns)

    def now_ns(self, monotonic_ns: int) -> int:
        """The VM time now."""
        return monotonic_ns + self._offset_ns if self._running else self._stopped_ns

    def monotonic_of(self, time_ns: int) -> int | None:
        """When VM time will be ``time_ns``; None while it stands."""
        return time_ns - self._offset_ns if self._running else None
