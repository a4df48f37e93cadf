"""The files of the device ``fw_cfg``: written as text or named by path, they become bytes here.

The model may run on a server, which has no access to the user's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from devserver.machine.board import DeviceWiring
from devserver.models.context import OptionError
from devserver.models.fw_cfg import MAX_FILES_BYTES, check_files
from kvmshim.errors import InputError
from kvmshim.files import read_file
from kvmshim.machinefile.convert import BadValue, suggest, text
from kvmshim.machinefile.spec import MachineSpec

KIND = "fw_cfg"
_FILES = "files"
_PATH = "path"
_FORM = 'text, or a table such as { path = "FILE" }'


def with_contents(wiring: DeviceWiring, folder: Path) -> DeviceWiring:
    """The wiring with the contents of its files, whose paths start in ``folder``.

    Raises :class:`BadValue`. Devices of other kinds stay as they are.
    """
    if wiring.kind != KIND or _FILES not in wiring.options:
        return wiring
    given = wiring.options[_FILES]
    if not isinstance(given, Mapping):
        raise BadValue(f"expected a table of files, got {given!r:.60}", "options", _FILES)
    contents = {}
    for name, value in given.items():
        try:
            contents[name] = _content(value, folder)
            check_files({name: contents[name]})
        except OptionError as error:
            raise BadValue(str(error), "options", _FILES, name) from None
        except BadValue as error:
            raise error.within("options", _FILES, name) from None
    return _replaced(wiring, contents)


def _content(value: object, folder: Path) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, Mapping):
        if not isinstance(value, str):
            raise BadValue(f"expected {_FORM}, got {value!r:.60}")
        return text(value).encode()
    for key in value:
        if key != _PATH:
            raise BadValue(f"unknown key {key!r} of a file{suggest(key, [_PATH])}", key)
    if not value:
        raise BadValue(f"expected {_FORM}, got an empty table")
    try:
        return _read(folder / text(value[_PATH]))
    except (BadValue, InputError) as error:
        raise BadValue(str(error), _PATH) from None


def add_files(machine: MachineSpec, options: Sequence[str]) -> MachineSpec:
    """The machine with the files of ``--fw-cfg`` options; raises :class:`InputError`."""
    if not options:
        return machine
    added = dict(map(_parse, options))
    device = next((d for d in machine.devices if d.wiring.kind == KIND), None)
    if device is None:
        raise InputError(
            f"--fw-cfg {options[0]}: the machine has no {KIND}; add --device {KIND},port=0x510"
        )
    had = device.wiring.options.get(_FILES, {})
    assert isinstance(had, Mapping)
    try:
        wiring = _replaced(device.wiring, {**had, **added})
    except BadValue as error:
        raise InputError(f"--fw-cfg: {error}") from None
    changed = replace(device, wiring=wiring)
    return replace(machine, devices=tuple(changed if d is device else d for d in machine.devices))


def _parse(option: str) -> tuple[str, bytes]:
    """``[name=]NAME,file=PATH`` or ``[name=]NAME,string=TEXT``, as QEMU has them."""
    name, comma, rest = option.removeprefix("name=").partition(",")
    how, equals, value = rest.partition("=")
    if not (comma and equals and how in ("file", "string")):
        raise InputError(f"--fw-cfg {option}: expected NAME,file=PATH or NAME,string=TEXT")
    data = value.encode(errors="surrogateescape") if how == "string" else _read(Path(value))
    try:
        check_files({name: data})
    except OptionError as error:
        raise InputError(f"--fw-cfg {option}: {error}") from None
    return name, data


def _read(path: Path) -> bytes:
    limit = f"the {MAX_FILES_BYTES >> 10} KiB that all files of {KIND} together may have"
    return read_file(path, f"cannot read a file of {KIND}", MAX_FILES_BYTES, limit)


def _replaced(wiring: DeviceWiring, contents: Mapping[str, bytes]) -> DeviceWiring:
    try:
        check_files(contents)
    except OptionError as error:
        raise BadValue(str(error), "options", _FILES) from None
    return replace(wiring, options={**wiring.options, _FILES: dict(contents)})
