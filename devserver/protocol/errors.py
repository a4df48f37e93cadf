"""What can go wrong in a conversation: the other end's mistakes and one's own."""

from __future__ import annotations

from enum import StrEnum

from devserver.protocol import limits


class ErrorCode(StrEnum):
    """The ``code`` of an ERROR message."""

    VERSION = "version"  # the peer speaks another version of the protocol
    CREDENTIALS = "credentials"  # the peer is not allowed in
    MALFORMED = "malformed"  # not a frame, not msgpack, an unknown type, a field out of bounds
    STATE = "state"  # a message that may not be sent now
    IDENTITY = "identity"  # a message that names another server, VM, hypervisor or client
    SEQUENCE = "sequence"  # a sequence number that is not the next one
    WINDOW = "window"  # more posted writes under way than the server allows
    MACHINE = "machine"  # the machine asked for can't be built
    DEVICE = "device"  # a request names a device or address that is not there
    TIMEOUT = "timeout"  # the peer was silent for too long
    SHUTDOWN = "shutdown"  # the server is being shut down
    INTERNAL = "internal"  # a defect in the peer


class ProtocolError(Exception):
    """Base of both; ``code`` says what kind."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)


class LocalProtocolError(ProtocolError):
    """This end tried to send what it may not: a defect in the caller."""


class RemoteProtocolError(ProtocolError):
    """The other end sent what it may not; the connection is of no more use."""


def cut(text: str) -> str:
    """The part of ``text`` that a message has room for."""
    return text.encode(errors="replace")[: limits.MAX_TEXT_BYTES].decode(errors="ignore")
