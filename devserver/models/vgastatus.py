"""Input status register 1 of a VGA, without the VGA: where the beam of 80x25 text would be.

Programs wait at this port for the vertical retrace before they draw, and some only to pass the
time. Everything is a function of VM time, so the client answers such a wait by itself.

A frame of mode 3 in lines, from the end of a retrace to the end of the next one::

    lines    35              400                 12           2
    bit 0    1               0 (80)  1 (20)      1            1        nothing is displayed
    bit 3    0               0                   0            1        vertical retrace

In a displayed line, 80 characters of picture come before 20 of horizontal blanking. That makes
70.09 frames a second; a retrace lasts 64 µs.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem", input status register
1; lines and characters as a VGA's CRT controller is set up for mode 3+.
"""

from __future__ import annotations

from enum import IntFlag

from devserver.models.device import ANY_LANE, Access, Device, Lease, Region, Register, Term

#: A character is nine dots of 28.322 MHz: so many of them in so many nanoseconds.
CHARACTERS = 28_322
CHARACTERS_NS = 9_000_000

LINE_SHOWN = 80
LINE = 100
BLANK_LINES_ABOVE = 35
LINES_SHOWN = 400
BLANK_LINES_BELOW = 12
RETRACE_LINES = 2

_SHOWN_FROM = BLANK_LINES_ABOVE * LINE
_SHOWN_TO = _SHOWN_FROM + LINES_SHOWN * LINE
_RETRACE_FROM = _SHOWN_TO + BLANK_LINES_BELOW * LINE
FRAME = _RETRACE_FROM + RETRACE_LINES * LINE


class Status(IntFlag):
    """The bits of the register that tell of the beam; the others read 0."""

    DISPLAY_DISABLED = 0x01
    VERTICAL_RETRACE = 0x08


def _term(period: int, length: int, before: int, after: int) -> Term:
    """``before`` for the first ``length`` characters of each ``period``, then ``after``."""
    return Term(
        num=CHARACTERS,
        den=CHARACTERS_NS,
        origin=0,
        period=period,
        length=length,
        start=before,
        start2=after,
    )


#: For good: it depends on nothing but the time.
BEAM = Lease(
    terms=(
        _term(LINE, LINE_SHOWN, 0, Status.DISPLAY_DISABLED),
        _term(FRAME, _SHOWN_FROM, Status.DISPLAY_DISABLED, 0),
        _term(FRAME, _SHOWN_TO, 0, Status.DISPLAY_DISABLED),
        _term(FRAME, _RETRACE_FROM, 0, Status.VERTICAL_RETRACE),
    ),
    unaffected=ANY_LANE,
)


class VgaStatus(Device):
    """A port that shows where a VGA's beam is, for programs that wait for it."""

    kind = "vgastatus"
    leases_move_with_time = False
    regions = (
        Region(
            name="io",
            size=1,
            registers=(
                Register(
                    offset=0,
                    name="STATUS1",
                    access=Access.RO,
                    reset=int(Status.DISPLAY_DISABLED),
                    leased=True,
                    source='PS/2 Technical Reference, "Video Subsystem", input status register 1',
                ),
            ),
        ),
    )

    def read_status1(self, now_ns: int) -> int:
        return BEAM.at(now_ns)

    def lease_status1(self, now_ns: int) -> Lease:
        return BEAM
