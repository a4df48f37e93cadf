"""Finds device models by kind: the bundled ones, and those of the ``devserver.models`` entry point.

Bundled models are imported when they are first asked for.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from devserver.models.device import Device
from devserver.wording import in_one_line

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "devserver.models"

#: kind -> "module:class"
BUNDLED: dict[str, str] = {
    "uart16550": "devserver.models.uart16550.device:Uart16550",
    "pit8254": "devserver.models.pit8254.device:Pit8254",
    "i8259": "devserver.models.i8259.device:I8259",
    "mc146818": "devserver.models.mc146818.device:Mc146818",
    "postcode": "devserver.models.postcode:PostCode",
    "debugcon": "devserver.models.debugcon:DebugConsole",
    "debugexit": "devserver.models.debugexit:DebugExit",
    "testdev": "devserver.models.testdev:TestDevice",
    "mailbox": "devserver.models.mailbox:Mailbox",
    "fw_cfg": "devserver.models.fw_cfg:FwCfg",
}

_registered: dict[str, type[Device]] = {}


class UnknownModel(LookupError):
    """No model of that kind is known here."""


def register(model: type[Device]) -> type[Device]:
    """Makes a model known in this process under its kind; usable as a decorator."""
    if not model.kind:
        raise ValueError(f"{model.__name__} declares no kind")
    _registered[model.kind] = model
    return model


def load_file(path: str) -> list[type[Device]]:
    """Registers every model that a Python file defines; returns them.

    Raises :class:`UnknownModel` if the file can't be run or defines none, naming the line.
    """
    spec = importlib.util.spec_from_file_location(f"device_models_{len(_registered)}", path)
    if spec is None or spec.loader is None:
        raise UnknownModel(f"model file '{path}' is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise UnknownModel(f"model file '{path}' can't be read: {error.strerror}") from None
    except (Exception, SystemExit) as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        line = getattr(error, "lineno", None) or line
        raise UnknownModel(f"{path}:{line}: {in_one_line(error)}") from None
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Device)
        and value.kind
        and value.__module__ == spec.name
    ]
    if not found:
        raise UnknownModel(f"model file '{path}' defines no Device with a kind")
    return [register(model) for model in found]


def preload() -> None:
    """Imports the bundled models now rather than when they are first asked for."""
    for target in BUNDLED.values():
        import_module(target.partition(":")[0])


def kinds() -> list[str]:
    """Every kind that can be asked for here, sorted."""
    return sorted({*BUNDLED, *_registered, *_entry_points()})


def find(kind: str) -> type[Device]:
    """The model class of a kind; raises :class:`UnknownModel` naming the nearest known one."""
    if kind in _registered:
        return _registered[kind]
    target = BUNDLED.get(kind)
    if target is not None:
        module, _, name = target.partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    entry = _entry_points().get(kind)
    if entry is not None:
        return entry.load()  # type: ignore[no-any-return]
    near = difflib.get_close_matches(kind, kinds(), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(kinds())})"
    raise UnknownModel(f"no device model of kind '{kind}'{hint}")


@cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
