"""A process that was told to end ends within a time, whatever it is doing."""

from __future__ import annotations

import os
import threading
import time

#: Less than the 5 s after which whoever has sent SIGTERM gives up.
GRACE_S = 4.0
_STATUS = 143  # as a shell has it for SIGTERM


def end_soon() -> None:
    """Ends this process after :data:`GRACE_S`, unless it has ended by then.

    May be called in a signal handler, as often as signals come.
    """
    threading.Thread(target=_end, name="grace", daemon=True).start()


def _end() -> None:
    time.sleep(GRACE_S)
    os._exit(_STATUS)
