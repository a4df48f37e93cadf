"""Hypothesis strategies for messages: any value that a field can hold, tails kept short."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from devserver.protocol.messages import (
    FIELDS,
    FIXED_CLASSES,
    SESSION_CLASSES,
    TERM_FIELDS,
    WRITE_FIELDS,
    FieldKind,
    Message,
    MessageType,
    Term,
    Write,
)

U8, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
NAMES = st.text(max_size=20)

NUMBERS = {FieldKind.U8: U8, FieldKind.U32: U32, FieldKind.U64: U64}
WRITES = st.builds(Write, **{name: NUMBERS[kind] for name, kind in WRITE_FIELDS.items()})
TERMS = st.builds(Term, **{name: NUMBERS[kind] for name, kind in TERM_FIELDS.items()})
VALUES: dict[FieldKind, st.SearchStrategy[Any]] = {
    **NUMBERS,
    FieldKind.BIN: st.binary(max_size=40),
    FieldKind.STR: st.text(max_size=20),
    FieldKind.WRITES: st.lists(WRITES, max_size=4).map(tuple),
    FieldKind.TERMS: st.lists(TERMS, max_size=4).map(tuple),
}

#: What a machine file's option may hold.
OPTIONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | NAMES | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


def fixed(kind: MessageType) -> st.SearchStrategy[Any]:
    """Any message of a fixed-width type."""
    fields = {name: VALUES[width] for name, width in FIELDS[kind].items()}
    return st.builds(FIXED_CLASSES[kind], **fields)


def session(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any session message of a class, or one of the records inside it."""
    fields = dataclasses.fields(cls)
    return st.builds(cls, **{f.name: _field(cls, f.name, str(f.type)) for f in fields})


#: How wide the numbers of session messages are; the others are 64 bits.
_WIDTHS = {"hypervisor": U8, "space": U8} | dict.fromkeys(
    ("version", "client_id", "server_id", "vm_id", "device_id", "window"), U32
)


def _field(cls: type[Any], name: str, kind: str) -> st.SearchStrategy[Any]:
    if cls.__name__ == "Welcome" and name in ("heartbeat_ns", "deadline_ns"):
        bounds = {"heartbeat_ns": (1, 10**9), "deadline_ns": (10**9 + 1, 10**11)}
        return st.integers(*bounds[name])
    if cls.__name__ == "Attached" and name == "window":
        return st.integers(1, (1 << 32) - 1)
    match kind:
        case "int":
            return _WIDTHS.get(name, st.integers(0, (1 << 63) - 1))
        case "str":
            return NAMES
        case "bytes":
            return st.binary(max_size=40)
        case "list[str]":
            return st.lists(NAMES, max_size=3)
        case "dict[str, str]":
            return st.dictionaries(NAMES, NAMES, max_size=3)
        case "dict[str, int]":
            lines = name == "lines"
            return st.dictionaries(NAMES, st.integers(0, 1023) if lines else U64, max_size=3)
        case "dict[str, Any]":
            return st.dictionaries(NAMES, OPTIONS, max_size=3)
    inner = kind.removeprefix("list[").removesuffix("]")
    assert inner != kind, f"no strategy for {cls.__name__}.{name}: {kind}"
    records = __import__(cls.__module__, fromlist=[inner])
    return st.lists(session(getattr(records, inner)), max_size=2)


FIXED = st.sampled_from(list(FIELDS)).flatmap(fixed)
SESSION = st.sampled_from(list(SESSION_CLASSES.values())).flatmap(session)
MESSAGES: st.SearchStrategy[Message] = FIXED | SESSION
