"""What a guest says and hears at its console: a dialogue for programs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from kvmshim.errors import GuestError

#: As much of what was seen instead is shown in an error.
_SHOWN_CHARACTERS = 400


class ExpectError(GuestError):
    """A guest did not say in time what was expected of it; its text shows what it said instead."""


class Serial:
    """The console of a machine, usually its first serial port.

    :meth:`expect` and :meth:`send` are for a guest that runs (:meth:`kvmshim.Machine.start`); what
    was said can be looked at any time. Bytes stand for the characters of their numbers (Latin-1).
    """

    def __init__(self, feed: Callable[[bytes, bool], None]) -> None:
        """``feed`` takes bytes for the guest, and whether they are the last."""
        self._feed = feed
        self._text = ""
        self._seen = 0
        #: Why no more comes; None while the guest runs.
        self._end: str | None = "the guest has not been started"
        self._changed = threading.Condition()

    @property
    def text(self) -> str:
        """All that the guest has said."""
        return self._text

    def expect(self, pattern: str | re.Pattern[str], timeout_s: float = 30.0) -> re.Match[str]:
        """Waits until the guest says what the regular expression ``pattern`` matches.

        Only what comes behind the last match counts, as with pexpect. Raises :class:`ExpectError`
        after ``timeout_s`` seconds, or once the guest has ended without having said it.
        """
        wanted = re.compile(pattern)
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while (match := wanted.search(self._text, self._seen)) is None:
                left_s = end_s - time.monotonic()
                why = self._end if left_s > 0 else f"it did not come within {timeout_s:g} s"
                if why is not None:
                    raise ExpectError(self._disappointment(wanted.pattern, why))
                self._changed.wait(left_s)
            self._seen = match.end()
        return match

    def send(self, text: str | bytes) -> None:
        """Types at the guest's console. It may be sent before the guest runs."""
        self._feed(text.encode("latin-1") if isinstance(text, str) else text, False)

    def close(self) -> None:
        """Hangs up: nothing more will be sent."""
        self._feed(b"", True)

    # -- what the machine tells -----------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """What the guest has said next."""
        with self._changed:
            self._text += data.decode("latin-1")
            self._changed.notify_all()

    def set_end(self, why: str | None) -> None:
        """Why no more comes, or None: something may."""
        with self._changed:
            self._end = why
            self._changed.notify_all()

    def _disappointment(self, pattern: str, why: str) -> str:
        rest = self._text[self._seen :]
        said = f"it said {rest[-_SHOWN_CHARACTERS:]!r}" if rest else "it said nothing"
        cut = f" (the last {_SHOWN_CHARACTERS} characters)" if len(rest) > _SHOWN_CHARACTERS else ""
        return f"expected {pattern!r} of the guest: {why}; since the last match {said}{cut}"
