"""How far a machine has come, and what it can't be asked for there."""

from __future__ import annotations

from enum import Enum

from kvmshim.errors import MisuseError


class Stage(Enum):
    """How far a machine has come; the value says what is in the way of what it can't do there."""

    NEW = "its 'with' block has not begun"
    READY = "its guest does not run"  # entered, and not run yet, or paused
    RUNNING = "its guest runs, in another thread"
    ENDED = "its guest has ended; make another machine to run it again"
    CLOSED = "its 'with' block is over"


#: There are devices and a VM time.
OPEN = (Stage.READY, Stage.RUNNING, Stage.ENDED)


def expect(stage: Stage, what: str, *stages: Stage) -> None:
    """Raises :class:`MisuseError` unless a machine is at one of these stages."""
    if stage in stages:
        return
    inside = " inside its 'with' block" if stage in (Stage.NEW, Stage.CLOSED) else ""
    raise MisuseError(f"a machine {what}{inside}: {stage.value}")
