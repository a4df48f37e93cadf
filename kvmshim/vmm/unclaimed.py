"""The accesses of a guest that nobody claims: mostly why it did not run."""

from __future__ import annotations

from dataclasses import dataclass

#: A report has no more places than this.
_SHOWN = 8


@dataclass(frozen=True)
class Access:
    """One access, at a VM time. What nobody claims reads all-ones.

    ``address`` is a port, or a guest-physical address; ``value`` is what was read or written.
    """

    time_ns: int
    address: int
    is_write: bool
    size: int
    value: int


@dataclass(frozen=True)
class UnclaimedPlace:
    """A port, or a range of memory, that the guest used and nobody claims.

    ``low`` and ``high`` are the lowest and the highest address that was seen; of a port and of what
    is at one address they differ by the access's size at most. ``name`` is what a PC has there,
    empty if nothing usual. ``code`` is the linear address at which the guest was for the first
    access, the instruction's own or the next one's; None if that is not known.
    """

    is_port: bool
    low: int
    high: int
    name: str
    reads: int
    writes: int
    first: Access
    last: Access
    code: int | None = None

    @property
    def count(self) -> int:
        """How often it was accessed."""
        return self.reads + self.writes

    @property
    def where(self) -> str:
        """The place, as a report has it."""
        if self.is_port:
            return f"port {self.first.address:x}h"
        whole = self.high - self.low >= self.first.size
        return f"memory {self.low:X}h" + (f" to {self.high:X}h" if whole else "")

    def line(self) -> str:
        """One line for people."""
        name = f" ({self.name})" if self.name else ""
        code = "" if self.code is None else f" from {self.code:#x}"
        once = self.count == 1
        first = f"{'' if once else 'first '}at {_time(self.first)}{code}"
        last = "" if once else f", last at {_time(self.last)}"
        what = " and ".join(
            f"{count} {word}{'' if count == 1 else 's'}"
            for count, word in ((self.reads, "read"), (self.writes, "write"))
            if count
        )
        return f"{self.where}{name}: {what}, {first}{last}{_written(self)}"


@dataclass(frozen=True)
class Unclaimed:
    """All that nobody claims, the place that was used most first.

    ``elsewhere`` counts accesses to further places, of which no more is known: no more than
    256 are told apart, those that were used most. ``post_codes`` are the last bytes that were
    written to port 80h, the newest last, whether a device is there or not.
    """

    places: tuple[UnclaimedPlace, ...] = ()
    elsewhere: int = 0
    post_codes: tuple[int, ...] = ()

    def lines(self) -> list[str]:
        """For people whose guest did not run."""
        found = []
        if self.places:
            found.append("nobody claims what the guest accessed here, the most used first:")
            found += [f"  {place.line()}" for place in self.places[:_SHOWN]]
            rest = self.places[_SHOWN:]
            count = sum(place.count for place in rest) + self.elsewhere
            if count:
                places = f"{len(rest)}{' or more' if self.elsewhere else ''}"
                found.append(f"  and {places} further places, {count} accesses")
        if self.post_codes:
            codes = " ".join(f"{code:02X}" for code in self.post_codes)
            found.append(f"the last POST codes (port 80h): {codes}")
        return found


def _time(access: Access) -> str:
    return f"{access.time_ns / 1e9:.3f} s"


def _written(place: UnclaimedPlace) -> str:
    if not place.last.is_write:
        return ""
    return f", {'wrote' if place.count == 1 else 'last wrote'} {place.last.value:x}h"
