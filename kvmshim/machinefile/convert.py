"""Converters: each checks one value of a machine file and returns what the machine needs.

They raise :class:`BadValue` with what is wrong; the reader adds the file, the line and the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping

from devserver.protocol.address import AddressError, parse_address
from kvmshim.errors import InputError
from kvmshim.loader import ImageKind
from kvmshim.machinefile import spec
from kvmshim.units import format_size, parse_size

MAX_PORT = 0xFFFF
#: The last address of a machine's memory space.
MAX_ADDRESS = (1 << 64) - 1
#: The last input of KVM's IOAPIC.
MAX_IRQ = 23

#: What a register's policies can be (docs/protocol.md, WantedDevice).
WRITE_POLICIES = ("finish", "posted", "coalesced")
READ_POLICIES = ("asked", "leased")
_WHOLE: Mapping[str, Mapping[str, str]] = {"declared": {}, "strict": spec.STRICT_POLICIES}

Converter = Callable[[object], object]


class BadValue(ValueError):
    """A value that can't be used; ``path`` leads to the part of it that is wrong."""

    def __init__(self, why: str, *path: str | int) -> None:
        super().__init__(why)
        self.path = path

    def within(self, *path: str | int) -> BadValue:
        """The same complaint about a part of a larger value."""
        return BadValue(str(self), *path, *self.path)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """What to add to a complaint about a name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are: {', '.join(names)}"


def boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BadValue(f"expected true or false, got {value!r:.60}")
    return value


def text(value: object) -> str:
    """Text without zero bytes, which no system call or guest would take."""
    if not isinstance(value, str):
        raise BadValue(f"expected text in quotes, got {value!r:.60}")
    if "\0" in value:
        raise BadValue("the text contains a zero byte; take it out")
    return value


def name(value: object) -> str:
    """A name that can be printed in a message."""
    checked = text(value)
    if not checked or not checked.isprintable():
        raise BadValue(f"expected a printable name, got {value!r:.60}")
    return checked


def file_path(value: object) -> str:
    """A path, still as written."""
    checked = text(value)
    if not checked:
        raise BadValue("the path is empty; give a file, relative to this one")
    return checked


def file_paths(value: object) -> tuple[str, ...]:
    """Paths, still as written."""
    if not isinstance(value, list):
        raise BadValue(f'expected a list such as ["dice.py"], got {value!r:.60}')
    for at, path in enumerate(value):
        try:
            file_path(path)
        except BadValue as error:
            raise error.within(at) from None
    return tuple(value)


def choice(*known: str) -> Callable[[object], str]:
    """A converter that takes only the texts ``known``."""

    def convert(value: object) -> str:
        checked = text(value)
        if checked not in known:
            raise BadValue(f"{checked!r} is not supported{suggest(checked, known)}")
        return checked

    return convert


def image_kind(value: object) -> ImageKind | None:
    """A kind of image; None stands for ``auto``."""
    checked = choice("auto", *ImageKind)(value)
    return None if checked == "auto" else ImageKind(checked)


def _number(value: object) -> int:
    try:
        return parse_size(value)  # type: ignore[arg-type]
    except InputError as error:
        raise BadValue(str(error)) from None


def memory(value: object) -> int:
    """The size of guest memory, in bytes."""
    size_bytes = _number(value)
    if not spec.MIN_MEMORY_BYTES <= size_bytes <= spec.MAX_MEMORY_BYTES:
        raise BadValue(
            f"memory must be between {format_size(spec.MIN_MEMORY_BYTES)} and "
            f"{format_size(spec.MAX_MEMORY_BYTES)}, not {format_size(size_bytes)}"
        )
    if size_bytes % spec.MEMORY_GRANULE_BYTES:
        raise BadValue(
            f"memory must be a multiple of {format_size(spec.MEMORY_GRANULE_BYTES)}, "
            f"not {size_bytes} bytes"
        )
    return size_bytes


def address(value: object) -> int:
    """A guest-physical address of 32 bits."""
    number = _number(value)
    if number >> 32:
        raise BadValue(f"address {number:#x} has more than 32 bits")
    return number


def register_value(value: object) -> int:
    """A register's value; how large it may be is up to the register."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadValue(f"expected a number, got {value!r:.60}")
    if value < 0:
        raise BadValue(f"{value} is negative; write what the register is to hold, in hexadecimal")
    return value


def _bounded(what: str, most: int, form: str) -> Callable[[object], int]:
    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadValue(f"expected a number, got {value!r:.60}")
        if not 0 <= value <= most:
            raise BadValue(f"{what} {value:{form}} is not between 0 and {most:{form}}")
        return value

    return convert


port = _bounded("port", MAX_PORT, "#x")
irq = _bounded("interrupt line", MAX_IRQ, "d")


def _table_of(item: Callable[[object], int], example: str) -> Callable[[object], dict[str, int]]:
    def convert(value: object) -> dict[str, int]:
        if not isinstance(value, Mapping):
            raise BadValue(f"expected a table such as {example}, got {value!r:.60}")
        converted = {}
        for key, part in value.items():
            try:
                name(key)
                converted[key] = item(part)
            except BadValue as error:
                raise error.within(key) from None
        return converted

    return convert


mem = _bounded("address", MAX_ADDRESS, "#x")
mems = _table_of(mem, "{ fifo = 0xfed00000 }")
ports = _table_of(port, "{ io = 0x3f8 }")
irqs = _table_of(irq, "{ irq = 4 }")


def policy(value: object) -> dict[str, str]:
    """The policies of a whole device, as the wiring has them."""
    return dict(_WHOLE[choice(*_WHOLE)(value)])


def policies(value: object) -> dict[str, str]:
    """The policies of single registers, as the wiring has them: ``posted+asked``."""
    if not isinstance(value, Mapping):
        raise BadValue(f'expected a table such as {{ THR = "posted" }}, got {value!r:.60}')
    converted = {}
    for register, words in value.items():
        try:
            name(register)
            converted[register] = _policy_words(words)
        except BadValue as error:
            raise error.within(register) from None
    return converted


def _policy_words(value: object) -> str:
    words = value if isinstance(value, list) else [value]
    for at, word in enumerate(words):
        try:
            choice(*WRITE_POLICIES, *READ_POLICIES)(word)
        except BadValue as error:
            raise error.within(*[at] * isinstance(value, list)) from None
    of_writes = [word for word in words if word in WRITE_POLICIES]
    of_reads = [word for word in words if word in READ_POLICIES]
    if not words or len(of_writes) > 1 or len(of_reads) > 1:
        raise BadValue(
            f"give one of {', '.join(WRITE_POLICIES)} for writes, "
            f"one of {', '.join(READ_POLICIES)} for reads, or one of each in a list"
        )
    return "+".join(of_writes + of_reads)


def server_address(value: object) -> str:
    """A server's address, in its usual form."""
    try:
        return str(parse_address(text(value)))
    except AddressError as error:
        raise BadValue(str(error)) from None


def options(value: object) -> Mapping[str, object]:
    """Options go to the model as they are; they only have to fit what travels (msgpack)."""
    if not isinstance(value, Mapping):
        raise BadValue(f"expected a table of options, got {value!r:.60}")
    _check_plain(value)
    return value


def _check_plain(value: object) -> None:
    if isinstance(value, (Mapping, list)):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            try:
                _check_plain(part)
            except BadValue as error:
                raise error.within(key) from None
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise BadValue(f"{value:#x} does not fit 64 bits")
    elif not isinstance(value, (str, float)):
        raise BadValue("dates and times are no options; write it as text")
