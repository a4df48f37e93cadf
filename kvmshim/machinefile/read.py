"""Reads a machine file; what is wrong with one is told with file, line and key."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devserver.machine.board import BOARDS, CONTROLLERS
from kvmshim.errors import InputError, printable
from kvmshim.files import read_file
from kvmshim.loader.registers import Setting
from kvmshim.machinefile import keys, spec
from kvmshim.machinefile.convert import BadValue, suggest
from kvmshim.machinefile.devices import changed_wiring, check_forms, new_wiring
from kvmshim.machinefile.fwcfg import with_contents
from kvmshim.machinefile.keys import Key
from kvmshim.machinefile.lines import KeyPath, find_lines
from kvmshim.machinefile.registers import setting
from kvmshim.machinefile.spec import DeviceSpec, ImageSpec, MachineSpec, ModuleSpec

MAX_FILE_BYTES = 1 << 20

_TABLES = tuple(table.strip("[]") for table in keys.TABLES)
_POSITION = re.compile(r" \(at line (\d+), column (\d+)\)$")
#: Python converts no longer numbers, and says so without a line.
_ENDLESS_NUMBER = re.compile(r"[0-9][0-9_]{3000,}")


def load_machine(path: str | os.PathLike[str]) -> MachineSpec:
    """The machine that the file ``path`` describes; raises :class:`InputError`, one line long."""
    limit = f"more than a machine file's {MAX_FILE_BYTES >> 20} MiB; is it the right file?"
    data = read_file(Path(path), "cannot read the machine file", MAX_FILE_BYTES, limit)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(Path(path), line, "not text in UTF-8; save it in that encoding") from None
    return parse_machine(text, Path(path))


def parse_machine(text: str, path: Path) -> MachineSpec:
    """The machine that ``text`` describes; ``path`` names it in errors and places the image."""
    try:
        document = tomllib.loads(text)
        lines = find_lines(text)
    except RecursionError:
        raise _error(path, 1, "values are nested too deeply; flatten them") from None
    except ValueError as error:
        raise _syntax_error(path, text, error) from None
    return _Reader(path, lines).machine(document)


def _syntax_error(path: Path, text: str, error: ValueError) -> InputError:
    why = str(error)
    if position := _POSITION.search(why):
        why = f"{why[: position.start()]} (column {position[2]})"
        return _error(path, int(position[1]), f"not valid TOML: {why}")
    if number := _ENDLESS_NUMBER.search(text):
        line = text.count("\n", 0, number.start()) + 1
        return _error(path, line, "not valid TOML: a number with thousands of digits")
    return _error(path, len(text.splitlines()) or 1, f"not valid TOML: {why}")


def _error(path: Path, line: int, why: str) -> InputError:
    return InputError(printable(f"{path}:{line}: {why}"))


class _Reader:
    """Turns a parsed document into a machine, with the lines at hand for complaints."""

    def __init__(self, path: Path, lines: Mapping[KeyPath, int]) -> None:
        self._path = path
        self._lines = lines

    def machine(self, document: dict[str, Any]) -> MachineSpec:
        for key in document:
            if key not in _TABLES:
                raise self._error((key,), f"unknown table {key!r}{suggest(key, _TABLES)}")
        machine = self._table(document, "machine", keys.MACHINE_KEYS)
        servers = self._servers(document)
        placement = machine.get("placement", spec.PLACED_ON_SERVER)
        self._check_placement(placement, servers, ("machine", "placement"))
        irqchip = machine.get("irqchip", spec.IRQCHIPS[0])
        board = machine.get("board", spec.DEFAULT_BOARD)
        return MachineSpec(
            memory_bytes=machine.get("memory", spec.DEFAULT_MEMORY_BYTES),
            devices=self._devices(document, board, irqchip, placement, servers),
            image=self._image(document),
            modules=self._modules(document),
            registers=self._registers(document),
            servers=servers,
            irqchip=irqchip,
            hypervisor=machine.get("hypervisor", spec.HYPERVISORS[0]),
            models=tuple(str(self._path.parent / path) for path in machine.get("models", ())),
            path=self._path,
        )

    def _image(self, document: dict[str, Any]) -> ImageSpec | None:
        if "image" not in document:
            return None
        given = self._table(document, "image", keys.IMAGE_KEYS)
        if "path" not in given:
            raise self._error(("image",), "[image] has no 'path'; name the file to boot")
        named = {key.replace("-", "_"): value for key, value in given.items()}
        named["path"] = self._path.parent / named["path"]
        return ImageSpec(**named)

    def _modules(self, document: dict[str, Any]) -> tuple[ModuleSpec, ...]:
        modules = []
        for index, item in enumerate(self._expect_tables(document, "module", "modules")):
            path: KeyPath = ("module", index)
            given = self._keys(item, keys.MODULE_KEYS, path, "[[module]]")
            if "path" not in given:
                raise self._error(path, "[[module]] has no 'path'; name the file")
            given["path"] = self._path.parent / given["path"]
            modules.append(ModuleSpec(**given))
        return tuple(modules)

    def _registers(self, document: dict[str, Any]) -> tuple[Setting, ...]:
        (any_register,) = keys.REGISTER_KEYS
        settings: list[Setting] = []
        for name, raw in self._expect_table(document, "registers").items():
            path: KeyPath = ("registers", name)
            value = self._convert(any_register, name, raw, ("registers",), "[registers]")
            assert isinstance(value, int)
            where = f"{self._path}:{self._line(path)}"
            with self._complaints(path, f"{name!r} in [registers]"):
                settings.append(setting(name, value, where, settings))
        return tuple(settings)

    def _servers(self, document: dict[str, Any]) -> dict[str, str]:
        (any_server,) = keys.SERVER_KEYS
        raw = self._expect_table(document, "servers")
        for reserved in (spec.PLACED_ON_SERVER, spec.PLACED_LOCALLY):
            if reserved in raw:
                raise self._error(
                    ("servers", reserved),
                    f"a server can't be named {reserved!r}, which is a placement of its own; "
                    "choose another name",
                )
        return {
            name: str(self._convert(any_server, name, value, ("servers",), "[servers]"))
            for name, value in raw.items()
        }

    def _devices(
        self,
        document: dict[str, Any],
        board: str,
        irqchip: str,
        placement: str,
        servers: Iterable[str],
    ) -> tuple[DeviceSpec, ...]:
        controllers = [CONTROLLERS] if irqchip != spec.IRQCHIPS[0] else []
        devices = {
            wiring.name: DeviceSpec(wiring=wiring, placement=placement)
            for wiring in (*controllers, *BOARDS[board])
        }
        seen: dict[str, int] = {}
        for index, given in enumerate(self._device_tables(document)):
            path: KeyPath = ("device", index)
            name = given["name"]
            if name in seen:
                raise self._error(
                    (*path, "name"), f"device {name!r} is already on line {seen[name]}; rename one"
                )
            seen[name] = self._line((*path, "name"))
            if given.get("remove"):
                if devices.pop(name, None) is None:
                    hint = suggest(name, devices) if devices else ", which is empty"
                    raise self._error(path, f"device {name!r} is not on board {board!r}{hint}")
                continue
            devices[name] = self._device(given, devices.get(name), placement, path)
            self._check_placement(devices[name].placement, servers, (*path, "placement"))
        return tuple(devices.values())

    def _device_tables(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        given = []
        for index, item in enumerate(self._expect_tables(document, "device", "devices")):
            name = item.get("name")
            where = f"[[device]] {name!r}" if isinstance(name, str) else "[[device]]"
            path: KeyPath = ("device", index)
            given.append(self._keys(item, keys.DEVICE_KEYS, path, where))
            if "name" not in item:
                raise self._error(path, "[[device]] has no 'name'; give it one")
            with self._complaints(path, where):
                check_forms(given[index])
        return given

    def _device(
        self, given: dict[str, Any], known: DeviceSpec | None, placement: str, path: KeyPath
    ) -> DeviceSpec:
        with self._complaints(path, f"[[device]] {given['name']!r}"):
            if known is not None:
                wiring = changed_wiring(known.wiring, given)
            elif "kind" in given:
                wiring = new_wiring(given)
            else:
                raise BadValue("it is not on the board and has no 'kind'; say what it is")
            wiring = with_contents(wiring, self._path.parent)
        return DeviceSpec(wiring=wiring, placement=given.get("placement", placement))

    def _check_placement(self, placement: str, servers: Iterable[str], path: KeyPath) -> None:
        known = [spec.PLACED_ON_SERVER, spec.PLACED_LOCALLY, *servers]
        server, _, host = placement.partition("/")  # a server, and one of its I/O servers
        if host and server != spec.PLACED_LOCALLY:
            placement = server
        if placement not in known:
            raise self._error(
                path, f"placement {placement!r} is no server{suggest(placement, known)}"
            )

    # -- tables and values ----------------------------------------------------------------------

    def _table(self, document: dict[str, Any], name: str, known: tuple[Key, ...]) -> dict[str, Any]:
        return self._keys(self._expect_table(document, name), known, (name,), f"[{name}]")

    def _expect_table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        table = document.get(name, {})
        if not isinstance(table, dict):
            raise self._error((name,), f"{name!r} is a table; write it as [{name}]")
        return table

    def _expect_tables(
        self, document: dict[str, Any], name: str, several: str
    ) -> list[dict[str, Any]]:
        raw = document.get(name, [])
        if not isinstance(raw, list) or not all(isinstance(item, dict) for item in raw):
            raise self._error((name,), f"{several} are written as tables under [[{name}]]")
        return raw

    def _keys(
        self, table: dict[str, Any], known: tuple[Key, ...], path: KeyPath, where: str
    ) -> dict[str, Any]:
        """The table's values, converted; raises for an unknown key or a bad value."""
        by_name = {key.name: key for key in known}
        converted = {}
        for name, value in table.items():
            if name not in by_name:
                hint = suggest(name, by_name)
                raise self._error((*path, name), f"unknown key {name!r} in {where}{hint}")
            converted[name] = self._convert(by_name[name], name, value, path, where)
        return converted

    def _convert(self, key: Key, name: str, value: object, path: KeyPath, where: str) -> object:
        try:
            return key.convert(value)
        except BadValue as error:
            part = ".".join(str(part) for part in (name, *error.path))
            raise self._error((*path, name, *error.path), f"{part!r} in {where}: {error}") from None

    @contextmanager
    def _complaints(self, path: KeyPath, where: str) -> Iterator[None]:
        """Adds the file, the line and ``where`` to what is wrong with several keys together."""
        try:
            yield
        except BadValue as error:
            raise self._error((*path, *error.path), f"{where}: {error}") from None

    def _line(self, path: KeyPath) -> int:
        """The line of ``path``, or of the nearest thing around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _error(self, path: KeyPath, why: str) -> InputError:
        return _error(self._path, self._line(path), why)
