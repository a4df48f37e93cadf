"""The short session of docs/protocol.md, held for real. Run as a program it prints the hex dump."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgpack

from devserver.identity import Identity
from devserver.protocol import codec
from devserver.protocol.connection import Connection, Role, blank
from devserver.protocol.messages import (
    FIELDS,
    TYPE_OF,
    WRITE_FIELDS,
    Attach,
    Batch,
    Clock,
    Detach,
    Direction,
    FieldKind,
    Hello,
    Hypervisor,
    Message,
    Request,
    WantedDevice,
    Write,
)
from devserver.session.session import Session
from devserver.session.vm_table import VmTable

CONSOLE = WantedDevice("console", "debugcon", bases={"io": 0xE9})
TEST = WantedDevice("test", "testdev", bases={"latch": 0xE0, "lines": 0x2000}, lines={"irq5": 5})

#: What the client says; the server's answers follow from it.
QUESTIONS: tuple[Message, ...] = (
    Hello(name="desk"),
    Attach(Hypervisor.KVM, vm_name="hello", memory_bytes=1 << 20, devices=[CONSOLE, TEST]),
    blank(Clock, running=1, time_ns=1000),
    blank(
        Batch,
        writes=tuple(Write(1, 1, 0, 0xE9, 1, at, ord(c)) for at, c in ((2000, "h"), (2100, "i"))),
    ),
    blank(
        Request,
        device_id=2,
        direction=Direction.OUT,
        address=0x2005,
        size=1,
        elements=1,
        time_ns=3000,
        data=b"\1",
    ),
    blank(
        Request,
        device_id=2,
        direction=Direction.IN,
        address=0xE0,
        size=4,
        elements=1,
        time_ns=4000,
        data=b"",
    ),
    blank(Detach, time_ns=5000),
)


def held() -> list[tuple[str, bytes]]:
    """Who said which frame, from HELLO to DETACH."""
    allot_id = itertools.count(1).__next__
    vms = VmTable(allot_id, make_key=lambda: "0123456789abcdef")
    session = Session(Identity(name="rack"), allot_id, "the client", vms)
    client = Connection(Role.CLIENT)
    frames: list[tuple[str, bytes]] = []
    for question in QUESTIONS:
        asked = client.send(question)
        frames.append(("client", asked))
        answered = session.receive(asked, 0)
        client.receive(answered)
        if answered:
            frames.append(("server", answered))
    return frames


# -- writing it down ------------------------------------------------------------------------------

Piece = tuple[bytes, str]


def pieces(message: Message) -> Iterator[Piece]:
    """The bytes of a message in small parts, with what each part is."""
    kind = TYPE_OF[type(message)]
    encoded = codec.encode(message)
    yield encoded[:2], kind.name
    if kind in FIELDS:
        yield from _fixed(message, encoded)
        return
    yield from _plain(b"", "", dataclasses.asdict(message))  # type: ignore[arg-type]


def _shown(value: Any) -> str:
    return "no bytes" if value == b"" else json.dumps(value)


def _plain(before: bytes, label: str, value: Any) -> Iterator[Piece]:
    """A value of a session message, ``before`` it the bytes of its key; lists and maps opened."""
    packer = msgpack.Packer()
    if isinstance(value, dict) and value:
        yield before + packer.pack_map_header(len(value)), f"{label}a map of {len(value)}"
        for key, item in value.items():
            yield from _plain(packer.pack(key), f"{json.dumps(key)}: ", item)
    elif isinstance(value, list) and value:
        yield before + packer.pack_array_header(len(value)), f"{label}a list of {len(value)}"
        for item in value:
            yield from _plain(b"", "", item)
    else:
        yield before + packer.pack(value), label + _shown(value)


def _fixed(message: Any, encoded: bytes) -> Iterator[Piece]:
    at = 2
    for (name, width), value in zip(FIELDS[TYPE_OF[type(message)]].items(), message, strict=True):
        end = at + 1 + {"B": 1, "I": 4, "Q": 8}[width.letter]
        if width is FieldKind.WRITES:
            yield encoded[at:end], f"{name}: {len(value)} of them"
            for write in value:
                yield from _write(write)
        elif width.is_tail:
            yield encoded[at:], f"{name} {value.hex(' ')}".rstrip()
        else:
            yield encoded[at:end], f"{name} {value}"
        at = end


def _write(write: Write) -> Iterator[Piece]:
    encoded, at = codec.WRITE_LAYOUT.pack(*write), 1
    yield encoded[:1], "an access"
    for (name, width), value in zip(WRITE_FIELDS.items(), write, strict=True):
        end = at + 1 + {"B": 1, "I": 4, "Q": 8}[width.letter]
        yield encoded[at:end], f"{name} {value}"
        at = end


#: Bytes in a line of the dump, and the column where the annotation starts.
WIDTH = 16
COLUMN = 3 * WIDTH + 3


def lines(frames: list[tuple[str, bytes]]) -> Iterator[str]:
    """The dump: a line naming the speaker before each frame, then bytes and what they are."""
    for speaker, frame in frames:
        payload = frame[4:]
        yield f"{speaker}:"
        yield from _line(frame[:4], f"a frame of {len(payload)} bytes")
        for message in codec.decode(payload):
            for data, text in pieces(message):
                yield from _line(data, text)


def _line(data: bytes, text: str) -> Iterator[str]:
    for at in range(0, len(data), WIDTH):
        part = "  " + data[at : at + WIDTH].hex(" ")
        yield f"{part:{COLUMN}} {text}" if at == 0 else part


if __name__ == "__main__":
    print("\n".join(lines(held())))
