"""What a device model is given to live in: a bus, an epoch, options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from devserver.models.channels import Channels, NoChannels


class Signal(IntEnum):
    """What a device can ask of the machine as a whole."""

    EXIT = 1  # end the VM; the value is the guest's exit status
    RESET = 2  # reset the whole VM


class DeviceBus(Protocol):
    """What a device can do to the world outside it; its owner supplies it."""

    def set_line(self, output: str, level: bool) -> None:
        """Drives the interrupt line wired to ``output`` to ``level``."""

    def emit(self, channel: str, data: bytes) -> None:
        """Sends bytes out of the machine through ``channel`` (a serial line's text, say)."""

    def signal(self, signal: Signal, value: int) -> None:
        """Asks something of the whole machine."""


class NullBus:
    """A bus with nothing on it."""

    def set_line(self, output: str, level: bool) -> None:
        pass

    def emit(self, channel: str, data: bytes) -> None:
        pass

    def signal(self, signal: Signal, value: int) -> None:
        pass


class OptionError(ValueError):
    """A model was given an option that it does not have, or of a wrong type."""


class Overdue(BaseException):
    """Raised in a model's call that lasts too long; ``except Exception`` does not catch it."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it did not return within {limit_s:g} s")


class ModelError(TypeError):
    """A model is not made as models are; says which one, what of it is wrong, and where.

    ``place`` is a file and a line of the model's, if they are known.
    """

    def __init__(self, what: str, place: tuple[str, int] | None = None) -> None:
        super().__init__(what if place is None else f"{what} ({place[0]}:{place[1]})")
        self.what = what
        self.place = place


@dataclass(frozen=True)
class Context:
    """What a model is built with.

    ``epoch_ns`` is the wall-clock time (UTC, nanoseconds since 1970) at VM time 0; ``options`` are
    the keys of the device's table in the machine file that the model itself understands. Through
    ``channels`` it talks with devices of other VMs.
    """

    bus: DeviceBus = field(default_factory=NullBus)
    epoch_ns: int = 0
    options: Mapping[str, object] = field(default_factory=dict)
    channels: Channels = field(default_factory=NoChannels)
