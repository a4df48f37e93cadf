"""Addresses of servers as people write them: ``tcp://HOST:PORT`` and ``unix:PATH``."""

from __future__ import annotations

import os
from dataclasses import dataclass


class AddressError(ValueError):
    """Text that is not a server's address."""


@dataclass(frozen=True)
class TcpAddress:
    """A TCP address; ``host`` is a name or an IPv4 or IPv6 address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A Unix stream socket's path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress

#: Longest path that fits ``sun_path`` with its final zero (unix(7)).
_MAX_UNIX_PATH_BYTES = 107
_MAX_PORT_DIGITS = 5
#: Longest part of a host's name between two dots (RFC 1035, 2.3.4).
_MAX_LABEL_BYTES = 63


def parse_address(text: str) -> Address:
    """The address in ``text``; raises :class:`AddressError` saying what is wrong with it."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise AddressError(f"address '{text}' has no path; write unix:/path/to/socket")
        if "\0" in path:
            raise AddressError(f"address {text!r}: a path has no zero bytes")
        length = len(os.fsencode(path))
        if length > _MAX_UNIX_PATH_BYTES:
            raise AddressError(
                f"address '{text}': a Unix socket's path has at most "
                f"{_MAX_UNIX_PATH_BYTES} bytes, this one has {length}"
            )
        return UnixAddress(path)
    if text.startswith("tcp://"):
        host, colon, port = text.removeprefix("tcp://").rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        bracketed = "[" in host or "]" in host
        if not colon or not host or bracketed or not (port.isascii() and port.isdigit()):
            raise AddressError(f"address '{text}' is not of the form tcp://HOST:PORT")
        if len(port.lstrip("0")) > _MAX_PORT_DIGITS or int(port) > 0xFFFF:
            raise AddressError(f"address '{text}': port {port} is above 65535")
        if not _is_host(host):
            raise AddressError(f"address '{text}': '{host}' can't be a host's name")
        return TcpAddress(host, int(port))
    raise AddressError(f"address '{text}' is neither tcp://HOST:PORT nor unix:PATH")


def _is_host(host: str) -> bool:
    """Whether a resolver can be asked for it: Python's raises UnicodeError for anything else."""
    if not host.isascii():
        try:
            host.encode("idna")
        except UnicodeError:
            return False
        return True
    labels = host.removesuffix(".").split(".")
    return host.isprintable() and all(0 < len(label) <= _MAX_LABEL_BYTES for label in labels)
