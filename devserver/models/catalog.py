"""Finds device models by kind: the bundled ones, and those of the ``devserver.models`` entry point.

Bundled models are imported when they are first asked for.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from devserver.models.declarations import check_methods, place_of
from devserver.models.device import Device, ModelError
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
    "i8042": "devserver.models.i8042:I8042",
    "port92": "devserver.models.port92:SystemControlPortA",
    "resetctl": "devserver.models.resetctl:ResetControl",
    "vgastatus": "devserver.models.vgastatus:VgaStatus",
    "testdev": "devserver.models.testdev:TestDevice",
    "mailbox": "devserver.models.mailbox:Mailbox",
    "fw_cfg": "devserver.models.fw_cfg:FwCfg",
}

_registered: dict[str, type[Device]] = {}


class UnknownModel(LookupError):
    """No model of that kind is known here."""


def register(model: type[Device]) -> type[Device]:
    """Makes a model known in this process under its kind; usable as a decorator.

    Raises :class:`ModelError` if a device can't be made of it.
    """
    if not model.kind:
        raise ValueError(f"{model.__name__} declares no kind")
    check_methods(model)
    _registered[model.kind] = model
    return model


def load_file(path: str) -> list[type[Device]]:
    """Registers every model that a Python file defines; returns them.

    The file can import others of its folder. Raises :class:`UnknownModel` if it can't be run,
    defines no model, or one that is wrong, naming the line.
    """
    folder = str(Path(path).resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last: nobody's file is to stand in for a module of Python's own
    spec = importlib.util.spec_from_file_location(f"device_models_{len(_registered)}", path)
    if spec is None or spec.loader is None:
        raise UnknownModel(f"model file '{path}' is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        return _register_all(path, spec.name, vars(module).values())
    except (UnknownModel, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and error.__traceback__ and not _frames_in(folder, error):
            raise UnknownModel(f"model file '{path}' can't be read: {error.strerror}") from None
        file, line = _place(folder, error)
        shown = path if file is None or os.path.realpath(file) == os.path.realpath(path) else file
        what = error.what if isinstance(error, ModelError) else in_one_line(error)
        raise UnknownModel(f"{shown}:{line}: {what}") from None


def _frames_in(folder: str, error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [f for f in frames if os.path.realpath(f.filename).startswith(folder + os.sep)]


def _place(folder: str, error: BaseException) -> tuple[str | None, int]:
    """The file and the line of an error, as near to it as the model's folder has it."""
    if isinstance(error, ModelError) and error.place is not None:
        return error.place
    if isinstance(error, SyntaxError) and error.lineno:
        return error.filename, error.lineno
    frames = _frames_in(folder, error)
    return (frames[-1].filename, frames[-1].lineno or 1) if frames else (None, 1)


def _register_all(path: str, module: str, values: Iterable[object]) -> list[type[Device]]:
    classes = dict.fromkeys(value for value in values if isinstance(value, type))
    found = [
        cls for cls in classes if issubclass(cls, Device) and cls.kind and cls.__module__ == module
    ]
    if not found:
        raise UnknownModel(f"model file '{path}' defines no Device with a kind")
    for model in found:
        check_methods(model)
        others = [other for other in found if other.kind == model.kind and other is not model]
        if others:
            what = f"two models are of kind '{model.kind}', {model.__name__} and "
            raise ModelError(f"{what}{others[0].__name__}; give each its own", place_of(model))
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
