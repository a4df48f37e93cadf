"""docs/protocol.md says what the code does: every field, limit, code, value and dumped byte."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgpack
import pytest
import short_session
from conversation import pair, sample

from devserver.protocol import codec, greetings, limits, messages
from devserver.protocol.connection import Role, State
from devserver.protocol.errors import ErrorCode, LocalProtocolError
from devserver.protocol.messages import (
    FIELDS,
    SESSION_CLASSES,
    TERM_FIELDS,
    WRITE_FIELDS,
    FieldKind,
    MessageType,
)

TEXT = Path(__file__).resolve().parents[2].joinpath("docs", "protocol.md").read_text()

Row = dict[str, str]


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no section '{heading}'"
    return found[1]


def tables(heading: str) -> list[list[Row]]:
    """The tables of a section; cells without their backquotes."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section(heading), re.MULTILINE):
        head, _, *rows = [
            [cell.strip().strip("`") for cell in line.strip()[1:-1].split("|")]
            for line in block.splitlines()
        ]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def table(heading: str) -> list[Row]:
    """The only table of a section."""
    (only,) = tables(heading)
    return only


# -- fixed-width messages -------------------------------------------------------------------------


def fields_of(rows: list[Row]) -> list[tuple[int, str, str]]:
    return [(int(row["offset"]), row["field"], row["width"]) for row in rows]


def head_of(kind: MessageType) -> list[tuple[int, str, str]]:
    """The rows that a message has in common with all of its sender's numbered messages."""
    heads = {"server_id": "From the client", "applied": "From the server"}
    sections = [heads[name] for name in heads if name in FIELDS[kind]]
    return fields_of(table(sections[0])) if sections else []


@pytest.mark.parametrize("kind", list(FIELDS))
def test_every_fixed_width_message_has_its_fields_at_their_offsets(kind: MessageType) -> None:
    own = fields_of(tables(f"{kind.name} ({int(kind)})")[0])
    offsets = codec.LAYOUTS[kind].offsets
    wanted = [(offsets[name] - 1, name, width.name.lower()) for name, width in FIELDS[kind].items()]
    assert head_of(kind) + own == wanted


@pytest.mark.parametrize(
    ("heading", "layout", "fields"),
    [
        ("BATCH (17)", codec.WRITE_LAYOUT, WRITE_FIELDS),
        ("LEASE (38)", codec.TERM_LAYOUT, TERM_FIELDS),
    ],
)
def test_a_record_has_its_fields_at_their_offsets(
    heading: str, layout: codec.Layout, fields: dict[str, FieldKind]
) -> None:
    _, record = tables(heading)
    wanted = [(layout.offsets[name] - 1, name, kind.name.lower()) for name, kind in fields.items()]
    assert fields_of(record) == wanted
    assert f"{layout.size} bytes long" in section(heading)


def test_every_width_has_its_tag() -> None:
    tags = {row["width"]: row["encoding"] for row in table("Two kinds of messages")}
    assert list(tags) == [kind.name.lower() for kind in FieldKind]
    for kind in FieldKind:
        assert tags[kind.name.lower()].startswith(f"tag `{kind.tag:02x}`")


# -- session messages -----------------------------------------------------------------------------

RECORDS = [
    cls
    for cls in vars(greetings).values()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type)
]


def heading_of(cls: type[Any]) -> str:
    kinds = {message: kind for kind, message in SESSION_CLASSES.items()}
    return f"{kinds[cls].name} ({int(kinds[cls])})" if cls in kinds else cls.__name__


def type_of(name: str, annotation: str) -> str:
    """How the page writes a field's type."""
    plain = {
        "int": f"u{greetings.BITS.get(name, 64)}",
        "str": "text" if name in greetings.TEXTS else "name",
        "list[str]": "list of name",
        "bytes": "bin",
        "dict[str, int]": "map of name to u64",
        "dict[str, str]": "map of name to name",
        "dict[str, Any]": "map of name to anything",
    }
    return plain.get(annotation) or annotation.replace("list[", "list of ").removesuffix("]")


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    if field.default == b"":
        return "none"
    return "*required*" if field.default is dataclasses.MISSING else json.dumps(field.default)


@pytest.mark.parametrize("cls", RECORDS)
def test_every_session_message_and_record_has_its_keys(cls: type[Any]) -> None:
    rows = [(row["key"], row["type"], row["default"]) for row in table(heading_of(cls))]
    fields = dataclasses.fields(cls)
    assert rows == [(f.name, type_of(f.name, str(f.type)), default_of(f)) for f in fields]


def test_every_message_has_a_section_and_every_section_a_message() -> None:
    found = re.findall(r"^### ([A-Z]+) \((\d+)\)$", TEXT, re.MULTILINE)
    assert [(name, int(number)) for name, number in found] == [
        (kind.name, int(kind)) for kind in MessageType
    ]


# -- limits, codes and values ---------------------------------------------------------------------


def test_every_limit_is_listed_with_its_value() -> None:
    listed = {row["name"]: int(row["value"]) for row in table("Limits")}
    assert listed == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_every_name_in_capitals_that_the_page_uses_is_a_limit() -> None:
    used = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", TEXT)) - {"TCP_NODELAY", "KVM_IRQ_LINE"}
    assert used == {row["name"] for row in table("Limits")}


def test_every_error_code_is_listed() -> None:
    assert [row["code"] for row in table("Error codes")] == [str(code) for code in ErrorCode]


def test_every_value_is_listed() -> None:
    enumerations: dict[str, type[IntEnum]] = {
        "hypervisor": messages.Hypervisor,
        "direction": messages.Direction,
        "space": messages.AddressSpace,
        "status": messages.Status,
        "kind": messages.EventKind,
        "rule": messages.LeaseRule,
    }
    listed = [(row["field"], int(row["value"]), row["name"]) for row in table("Values")]
    assert listed == [
        (field, int(value), value.name)
        for field, values in enumerations.items()
        for value in values
    ]


# -- the conversation -----------------------------------------------------------------------------

Step = tuple[Role, State, MessageType, State]


def steps_on_the_page() -> Iterator[Step]:
    columns = {"client may send": Role.CLIENT, "server may send": Role.SERVER}
    for row in table("The conversation"):
        states = list(State) if row["state"] == "any" else [State[row["state"]]]
        for column, role in columns.items():
            for item in filter(None, row.get(column, "").split(", ")):
                name, _, following = item.partition(" → ")
                for state in states:
                    after = State[following] if following else state
                    yield role, state, MessageType[name.strip()], after


def steps_in_the_code() -> Iterator[Step]:
    for role in Role:
        for state in State:
            for kind in MessageType:
                sender = pair(state)[role]
                try:
                    sender.send(sample(kind))
                except LocalProtocolError:
                    continue
                yield role, state, kind, sender.state


def test_the_table_of_states_is_the_code_s() -> None:
    assert sorted(map(str, steps_on_the_page())) == sorted(map(str, steps_in_the_code()))


# -- the short session ----------------------------------------------------------------------------


def dumped() -> list[tuple[str, bytes, list[str]]]:
    """The dump's frames: who speaks, the bytes, the remarks."""
    block = section("A short session, byte by byte").split("```text\n")[1].split("```")[0]
    frames: list[tuple[str, bytes, list[str]]] = []
    for line in block.splitlines():
        if line in ("client:", "server:"):
            frames.append((line[:-1], b"", []))
            continue
        speaker, data, remarks = frames[-1]
        hexadecimal, _, remark = line.strip().partition("   ")
        remarks += [remark.strip()] if remark else []
        frames[-1] = (speaker, data + bytes.fromhex(hexadecimal), remarks)
    return frames


def remarks_of(payload: bytes) -> Iterator[str]:
    """What the page should remark on a frame, read with nothing but a msgpack library."""
    yield f"a frame of {len(payload)} bytes"
    unpacker = msgpack.Unpacker()
    unpacker.feed(payload)
    for number, *values in unpacker:
        kind = MessageType(number)
        yield kind.name
        if kind in SESSION_CLASSES:
            yield from opened("", values[0])
        else:
            yield from numbered(FIELDS[kind], values)


def opened(label: str, value: Any) -> Iterator[str]:
    """Lists and maps opened, each value on a line."""
    if isinstance(value, dict) and value:
        yield f"{label}a map of {len(value)}"
        for key, item in value.items():
            yield from opened(f"{json.dumps(key)}: ", item)
    elif isinstance(value, list) and value:
        yield f"{label}a list of {len(value)}"
        for item in value:
            yield from opened("", item)
    else:
        yield label + ("no bytes" if value == b"" else json.dumps(value))


def numbered(fields: dict[str, FieldKind], values: list[Any]) -> Iterator[str]:
    for name, value in zip(fields, values, strict=True):
        if isinstance(value, list):
            yield f"{name}: {len(value)} of them"
            for write in value:
                yield "an access"
                yield from numbered(WRITE_FIELDS, write)
        else:
            yield f"{name} {value.hex(' ') if isinstance(value, bytes) else value}".rstrip()


def test_the_dump_decodes_to_what_it_is_annotated_with() -> None:
    for _, data, remarks in dumped():
        assert int.from_bytes(data[:4]) == len(data) - 4
        assert remarks == list(remarks_of(data[4:]))


def test_the_dump_is_what_a_client_and_a_server_say() -> None:
    assert [(speaker, data) for speaker, data, _ in dumped()] == short_session.held()


def test_the_dump_shows_a_whole_session() -> None:
    shown = {remark for _, _, remarks in dumped() for remark in remarks if remark.isupper()}
    assert {
        *("HELLO", "WELCOME", "ATTACH", "ATTACHED", "CLOCK", "BATCH", "EMIT", "REQUEST"),
        *("INTERRUPT", "FINISH", "FEEDBACK", "DETACH"),
    } == shown
