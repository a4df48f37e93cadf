"""A PostgreSQL that does not answer is given up: nothing waits for it for ever.

Its own time limits are of no use when it hangs, and its host's kernel goes on to acknowledge what
is sent to it.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

import psycopg


class PatientConnection(psycopg.Connection[Any]):
    """A connection each of whose questions is answered in time, or ends it."""

    #: Set by whoever makes the connection.
    answer_s = 20.0

    def wait(self, *arguments: Any, **more: Any) -> Any:
        """What all that is asked of the database goes through."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            with (
                suppress(OSError, psycopg.Error),  # it is closed already
                socket.socket(fileno=os.dup(self.fileno())) as ours,
            ):
                ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.answer_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            return super().wait(*arguments, **more)
        except psycopg.OperationalError:
            if late.is_set():
                raise psycopg.OperationalError(
                    f"it did not answer within {self.answer_s:g} s"
                ) from None
            raise
        finally:
            timer.cancel()
