"""What the server says about itself, with a limit on saying the same thing over and over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable


class RepeatLimit(logging.Filter):
    """Lets ``burst`` records of one kind through per ``period_s``, then counts the rest.

    Records are of one kind if they have the same logger and message template. The first record
    of the next period says how many were held back.
    """

    def __init__(
        self, burst: int = 10, period_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst = burst
        self._period_s = period_s
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        now = self._clock()
        start, count = self._seen.get(key, (now, 0))
        if now - start >= self._period_s:
            held = count - self._burst
            if held > 0:
                record.msg = f"{record.msg} [{held} more like this were held back]"
            start, count = now, 0
        self._seen[key] = (start, count + 1)
        return count < self._burst


class OneRecord(logging.Formatter):
    """Puts a record so that nothing in it, a name of a stranger's say, looks like another one.

    Control characters are written out. Further lines, which tracebacks have, are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n    ".join(
            "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
            for line in lines
        )


def set_up(level: str) -> None:
    """Sends log lines of ``level`` and above to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneRecord("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RepeatLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each step that it takes
