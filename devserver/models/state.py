"""A device's state as plain data: what reset, snapshot and restore all derive from."""

from __future__ import annotations

from devserver.plain import PlainError as StateError
from devserver.plain import from_plain, to_plain

__all__ = ["StateError", "from_plain", "to_plain"]
