"""Typed dataclasses to plain data and back, checked: device states, options, session messages.

Plain data is what msgpack carries: ``int``, ``bool``, ``str``, ``bytes``, ``None``, lists and maps
of these. A dataclass may further hold enumerations and other such dataclasses. Nothing is ever
pickled.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from functools import cache
from typing import Any


class PlainError(ValueError):
    """Plain data that does not fit the type it is to become."""


def to_plain(value: Any) -> Any:
    """Turns a dataclass, or a value inside one, into plain data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def from_plain(wanted: Any, value: Any, where: str = "state", *, lenient: bool = False) -> Any:
    """Rebuilds a value of the annotated type ``wanted`` from plain data.

    Raises :class:`PlainError` naming the field that is missing, unknown or of a wrong type. With
    ``lenient``, unknown fields are passed over and missing ones take their defaults.
    """
    if wanted is Any:
        return value
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(wanted), value, where)
    if origin in (list, tuple):
        _expect(isinstance(value, (list, tuple)), where, "a list", value)
        item = typing.get_args(wanted)[0]
        return origin(
            from_plain(item, part, f"{where}[{i}]", lenient=lenient) for i, part in enumerate(value)
        )
    if origin is dict:
        _expect(isinstance(value, dict), where, "a map", value)
        key_type, item = typing.get_args(wanted)
        return {
            from_plain(key_type, key, where): from_plain(
                item, part, f"{where}[{key!r}]", lenient=lenient
            )
            for key, part in value.items()
        }
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _from_map(wanted, value, where, lenient)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(value)
        except ValueError as error:
            raise PlainError(f"{where}: {error}") from None
    if wanted is bytearray:
        _expect(isinstance(value, (bytes, bytearray)), where, "bytes", value)
        return bytearray(value)
    fits = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    _expect(fits, where, wanted.__name__, value)
    return value


def _from_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) != 1:
        raise PlainError(f"{where}: a state field has at most one type beside None")
    return from_plain(rest[0], value, where)


def _from_map(cls: type, value: Any, where: str, lenient: bool) -> Any:
    _expect(isinstance(value, dict), where, "a map", value)
    fields = dataclasses.fields(cls)
    names = [f.name for f in fields]
    if lenient:
        optional = {
            f.name
            for f in fields
            if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        }
        names = [name for name in names if name in value or name not in optional]
        value = {name: value[name] for name in names if name in value}
    if set(value) != set(names):
        missing, unknown = sorted(set(names) - set(value)), sorted(set(value) - set(names))
        raise PlainError(f"{where}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    hints = _hints(cls)
    return cls(
        **{
            name: from_plain(hints[name], value[name], f"{where}.{name}", lenient=lenient)
            for name in names
        }
    )


def _expect(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        raise PlainError(f"{where}: expected {wanted}, got {value!r:.80}")
