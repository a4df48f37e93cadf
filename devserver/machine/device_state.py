"""Devices on the move: a device's state as bytes, for whoever makes such a device again.

The bytes are a msgpack map with the state of the device and of its slot, and which of its outputs
are high. They stand for one moment of VM time, which must not run back where the device goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from devserver.machine.bus import Bus
from devserver.models.device import StateError
from devserver.protocol import limits

#: A VM that has no other devices may have lived for any time.
_LATEST_NS = (1 << 64) - 1


def save_device(bus: Bus, device_id: int) -> bytes:
    """The state of a device; raises KeyError, :class:`DeviceFault`, or StateError: too long."""
    slot = bus.slots[device_id]
    try:
        state = {
            **slot.save(),
            "now_ns": bus.now_ns,
            "lines": [output for _, output in bus.lines.driven_by(device_id)],
        }
        data: bytes = msgpack.packb(state)
    except BaseException as error:
        raise slot.fault(error) from error
    if len(data) > limits.MAX_STATE_BYTES:
        raise StateError(
            f"the state of device '{slot.wiring.name}' has {len(data)} bytes; "
            f"at most {limits.MAX_STATE_BYTES} can be moved"
        )
    return data


def state_of(data: bytes) -> dict[str, Any]:
    """The fields of the model's own state in what :func:`save_device` gave."""
    state: dict[str, Any] = msgpack.unpackb(data)["device"]["state"]
    return state


def load_device(bus: Bus, device_id: int, data: bytes, latest_ns: int = _LATEST_NS) -> None:
    """Puts a device of the bus into a saved state, and drives its lines as they were.

    Raises StateError if the bytes are not the state of such a device, at ``latest_ns`` at most.
    """
    slot = bus.slots[device_id]
    name = slot.wiring.name
    try:
        state: Mapping[str, Any] = msgpack.unpackb(data, strict_map_key=True)
        if not isinstance(state, dict) or not isinstance(state["now_ns"], int):
            raise StateError("it is not the state of a device")
        if not 0 <= state["now_ns"] <= latest_ns:
            raise StateError(
                f"its saved state is of VM time {state['now_ns']} ns; it must be from 0 to "
                f"{latest_ns} ns here"
            )
        slot.load(state)
        slot.recount()
        high = [output for output in state["lines"] if output in slot.device.outputs]
    except StateError as error:
        raise StateError(f"device '{name}': {error}") from error
    except BaseException as error:  # msgpack and models raise all kinds for bytes that are none
        what = f"{type(error).__name__}: {error}"
        raise StateError(f"device '{name}': its saved state is damaged ({what})") from error
    for output in high:
        slot.set_line(output, True)
    bus.now_ns = max(bus.now_ns, state["now_ns"])
    bus.reschedule(slot)
