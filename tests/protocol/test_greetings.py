"""Session messages hold their fields to bounds, whoever makes them."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from devserver.plain import PlainError
from devserver.protocol import codec, limits
from devserver.protocol.errors import ErrorCode, RemoteProtocolError
from devserver.protocol.messages import (
    SESSION_CLASSES,
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Busy,
    Error,
    Hello,
    PolicyRange,
    WantedDevice,
    Welcome,
)

LONG_NAME = "n" * (limits.MAX_NAME_BYTES + 1)
LONG_TEXT = "t" * (limits.MAX_TEXT_BYTES + 1)
U8, U32, U64 = 1 << 8, 1 << 32, 1 << 64

WELCOME = {"version": 1, "server_id": 1, "client_id": 1, "epoch": 1}
REGION = {"name": "io", "space": 0, "base": 0, "size": 1}
DEVICE = {"device_id": 1, "name": "a", "kind": "k", "version": 1}

OUT_OF_BOUNDS: list[tuple[type[Any], dict[str, Any], str]] = [
    (Hello, {"version": U32}, "Hello.version is 4.29e.09; it must be between 0 and 4294967295"),
    (Hello, {"client_id": -1}, "Hello.client_id is -1"),
    (Hello, {"epoch": U64}, "Hello.epoch"),
    (Hello, {"name": LONG_NAME}, "Hello.name has 256 bytes; it may have at most 255"),
    (Hello, {"name": "ü" * 128}, "Hello.name has 256 bytes"),
    (Hello, {"token": LONG_TEXT}, "Hello.token has 16385 bytes"),
    (Hello, {"features": [LONG_NAME]}, r"an item of Hello.features has 256 bytes"),
    (Welcome, {**WELCOME, "server_id": U32}, "Welcome.server_id"),
    (Welcome, {**WELCOME, "heartbeat_ns": 0}, "Welcome.deadline_ns .* must be above"),
    (Welcome, {**WELCOME, "heartbeat_ns": 5, "deadline_ns": 5}, "must be above"),
    (Attach, {"hypervisor": U8}, "Attach.hypervisor"),
    (Attach, {"hypervisor": 1, "vm_id": U32}, "Attach.vm_id"),
    (Attach, {"hypervisor": 1, "vm_name": LONG_NAME}, "Attach.vm_name"),
    (WantedDevice, {"name": LONG_NAME, "kind": "k"}, "WantedDevice.name"),
    (WantedDevice, {"name": "a", "kind": LONG_NAME}, "WantedDevice.kind"),
    (WantedDevice, {"name": "a", "kind": "k", "bases": {"io": -1}}, r"bases\['io'\] is -1"),
    (WantedDevice, {"name": "a", "kind": "k", "lines": {"i": 1024}}, "between 0 and 1023"),
    (WantedDevice, {"name": "a", "kind": "k", "lines": {LONG_NAME: 1}}, "a key of .*lines"),
    (WantedDevice, {"name": "a", "kind": "k", "options": {LONG_NAME: 1}}, "a key of .*options"),
    (Attached, {"vm_id": 1, "window": 0}, "Attached.window"),
    (Attached, {"vm_id": 1, "window": U32}, "Attached.window"),
    (AttachedDevice, {**DEVICE, "device_id": U32}, "AttachedDevice.device_id"),
    (AttachedRegion, {**REGION, "space": U8}, "AttachedRegion.space"),
    (PolicyRange, {"offset": 0, "length": -1, "policy": "posted"}, "PolicyRange.length"),
    (Error, {"code": LONG_NAME, "message": ""}, "Error.code"),
    (Error, {"code": "state", "message": LONG_TEXT}, "Error.message"),
    (Busy, {"message": LONG_TEXT}, "Busy.message"),
]


@pytest.mark.parametrize(("cls", "fields", "why"), OUT_OF_BOUNDS)
def test_a_field_out_of_bounds_is_not_sent(
    cls: type[Any], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(PlainError, match=why):
        cls(**fields)


TYPES = {cls: kind for kind, cls in SESSION_CLASSES.items()}


@pytest.mark.parametrize(
    ("cls", "fields", "why"),
    [row for row in OUT_OF_BOUNDS if row[0] in TYPES and U64 not in row[1].values()],
)
def test_a_field_out_of_bounds_is_refused_as_malformed(
    cls: type[Any], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=why) as caught:
        codec.decode(msgpack.packb([int(TYPES[cls]), fields]))
    assert caught.value.code is ErrorCode.MALFORMED


def test_a_name_at_its_bound_is_taken() -> None:
    assert Hello(name="n" * limits.MAX_NAME_BYTES).name


def test_a_list_has_a_longest_length() -> None:
    longest = ["f"] * limits.MAX_LIST_ITEMS
    assert codec.decode(msgpack.packb([1, {"features": longest}]))
    with pytest.raises(RemoteProtocolError, match="not msgpack"):
        codec.decode(msgpack.packb([1, {"features": [*longest, "f"]}]))
