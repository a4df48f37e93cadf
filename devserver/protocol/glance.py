"""Recognizes the commonest frame at one glance: a single request for one element at a port.

Everything about such a frame but a few numbers is constant for a connection: the frame's length,
the tags, the identifiers. All of it is checked by one comparison of large integers, and the numbers
are taken out by one unpacking. Whatever does not match goes the long way, which says what is wrong.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from devserver.protocol.codec import LAYOUTS
from devserver.protocol.connection import Connection
from devserver.protocol.limits import FRAME_HEADER_BYTES
from devserver.protocol.messages import AddressSpace, Direction, MessageType

_LAYOUT = LAYOUTS[MessageType.REQUEST]
_VARIABLE = ("seq", "ack", "device_id", "direction", "address", "size", "time_ns")
_WIDTHS = {
    "seq": 8,
    "ack": 8,
    "device_id": 4,
    "direction": 1,
    "address": 8,
    "size": 1,
    "time_ns": 8,
}
_LETTERS = {1: "B", 4: "I", 8: "Q"}


class Glance(NamedTuple):
    """The numbers of a recognized request; ``value`` is 0 for an IN."""

    seq: int
    ack: int
    device_id: int
    direction: int
    address: int
    size: int
    time_ns: int
    value: int


class _Pattern:
    """A frame's constant bits for one direction and length of data."""

    def __init__(self, connection: Connection, direction: Direction, data_bytes: int) -> None:
        length = _LAYOUT.size + data_bytes
        constants = {
            "server_id": connection.server_id,
            "vm_id": connection.vm_id,
            "hypervisor": connection.hypervisor,
            "client_id": connection.client_id,
            "direction": direction,
            "space": AddressSpace.PORT,
            "elements": 1,
            "data": data_bytes,
        }
        values = [constants.get(name, 0) for name in _LAYOUT.offsets]
        head = bytearray(length.to_bytes(FRAME_HEADER_BYTES) + _LAYOUT.pack(*values))
        mask = bytearray(b"\xff" * len(head))
        for name in _VARIABLE:
            if name == "direction" or (name == "size" and data_bytes):
                continue  # constant too: the length of the data says which
            at = FRAME_HEADER_BYTES + _LAYOUT.offsets[name]
            mask[at : at + _WIDTHS[name]] = bytes(_WIDTHS[name])
        if data_bytes:
            head[FRAME_HEADER_BYTES + _LAYOUT.offsets["size"]] = data_bytes
        self.mask = int.from_bytes(mask + bytes(data_bytes))
        self.bits = int.from_bytes(head + bytes(data_bytes))


def _take_out() -> struct.Struct:
    """Unpacks the variable numbers, passing over everything else."""
    layout, at = ">", 0
    for name in _VARIABLE:
        offset = FRAME_HEADER_BYTES + _LAYOUT.offsets[name]
        layout += f"{offset - at}x{_LETTERS[_WIDTHS[name]]}"
        at = offset + _WIDTHS[name]
    return struct.Struct(layout)


_TAKE_OUT = _take_out()
_DATA_AT = FRAME_HEADER_BYTES + _LAYOUT.size


class Glancer:
    """Recognizes requests on an attached connection."""

    def __init__(self, connection: Connection) -> None:
        self._patterns = {
            _DATA_AT + size: _Pattern(connection, Direction.OUT, size) for size in (1, 2, 4)
        }
        self._patterns[_DATA_AT] = _Pattern(connection, Direction.IN, 0)

    def look(self, data: bytes) -> Glance | None:
        """The request that ``data`` is, if it is exactly one frame with one simple request."""
        pattern = self._patterns.get(len(data))
        if pattern is None or int.from_bytes(data) & pattern.mask != pattern.bits:
            return None
        value = int.from_bytes(data[_DATA_AT:], "little")
        return Glance._make((*_TAKE_OUT.unpack_from(data), value))
