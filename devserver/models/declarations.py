"""What is wrong with a model, said where it is wrong: with its name, the register, and the line.

What a class declares is looked at when it is made. Whether it has the methods that its registers
need is looked at when it is registered, or made an object of for the first time: methods may be put
into a class behind its body.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, partialmethod
from typing import Any

from devserver.models.context import ModelError, OptionError
from devserver.models.lease import Lease
from devserver.models.lineage import lineage
from devserver.models.registers import Region, Register, Space
from devserver.plain import PlainError, from_plain, to_plain
from devserver.wording import in_one_line

_WIDTHS = (1, 2, 4, 8)
_PORTS = 0x10000
_METHOD = re.compile(r"(read|write|lease)_(\w+?)(_run)?")
#: Positional arguments of a register's methods, beside ``self``.
_TAKES = {"read": ("now_ns",), "write": ("value", "now_ns"), "lease": ("now_ns",)}
_RUN_TAKES = ("values", "times_ns")
_checked: set[type] = set()
#: A class derived from :class:`devserver.models.device.Device`, which imports this module.
Model = type[Any]


def check(model: Model) -> None:
    """Raises :class:`ModelError` for a class whose declarations contradict themselves."""
    _check_names(model)
    for region in model.regions:
        _check_region(model, region)
        _check_overlaps(model, region)
    for what, cls in (("State", model.State), ("Options", model.Options)):
        if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
            raise _wrong(model, f"{what} is no dataclass; put @dataclass above it", cls)
        _check_defaults(model, what, cls)
    for _, register in registers(model):
        if register.storage is not None:
            _check_storage(model, register)


def check_methods(model: Model) -> None:
    """Raises :class:`ModelError` for a class that lacks methods, or has some that serve nothing."""
    if model in _checked:
        return
    for region, register in registers(model):
        _check_served(model, region, register)
    names = {r.name.lower() for cls in model.__mro__ for _, r in registers(cls)}
    for name, method in _own_methods(model):
        match = _METHOD.fullmatch(name)
        if match is None or not callable(_function(method)):
            continue
        verb, register_name, run = match[1], match[2], match[3]
        if register_name not in names and f"{register_name}{run or ''}" not in names:
            raise _serves_nothing(model, name, verb, run or "", sorted(names), method)
        _check_arguments(model, name, verb, bool(run and register_name in names), method)
    if lineage(model).defines("deadline_ns") and not lineage(model).defines("advance"):
        method = model.deadline_ns
        raise _wrong(model, "it has deadline_ns, and no advance to call then", method)
    _check_state(model)
    _checked.add(model)


def registers(model: Any) -> Iterator[tuple[Region, Register]]:
    """Every register with its region."""
    for region in getattr(model, "regions", ()):
        for register in region.registers:
            yield region, register


# -- at a call --------------------------------------------------------------------------------


def not_declared(
    kind: str, call: str, name: object, group: str, known: Sequence[str]
) -> ModelError:
    """The error of a call that names an output or a channel that the model does not have."""
    return ModelError(
        f"model '{kind}': {call}({name!r:.40}) names none of its {group}"
        f"{_near(name, known) if isinstance(name, str) else _all(known)}"
    )


def checked_answer(model: Model, register: Register, answer: object) -> int:
    """What a read gave; raises :class:`ModelError` if it is no whole number."""
    if isinstance(answer, int):
        return int(answer)
    name = f"read_{register.name.lower()}"
    method = getattr(model, name, None)
    if method is None:
        what = f"register {register.name} is stored in State.{register.storage}, which is"
    else:
        what = f"register {register.name}: {name} returned"
    raise ModelError(
        f"model '{model.kind}': {what} {answer!r:.40}, and no int",
        register.place if method is None else place_of(method),
    )


def checked_count(model: Model, channel: str, took: object, most: int) -> int:
    """How much of its input a device took; raises :class:`ModelError` if that can't be."""
    if isinstance(took, int) and 0 <= took <= most:
        return took
    raise ModelError(
        f"model '{model.kind}': feed('{channel}') returned {took!r:.40}; it returns how many "
        f"of the {most} bytes it took",
        place_of(model.feed),
    )


def checked_lease(model: Model, register: str, lease: object) -> None:
    """Raises :class:`ModelError` if what a model leases is no lease that can be told."""
    name = f"lease_{register.lower()}"
    wrong = lease.problem() if isinstance(lease, Lease) else "it is no Lease and not None"
    if isinstance(lease, Lease) and not wrong:
        return
    raise ModelError(
        f"model '{model.kind}': register {register}: {name} returned {lease!r:.60}: {wrong}",
        place_of(getattr(model, name, None)),
    )


def checked_device(device: Any) -> None:
    """Raises :class:`ModelError` for a device whose making left out that of :class:`Device`."""
    if not hasattr(device, "context"):
        model = type(device)
        raise _wrong(model, "its __init__ does not call super().__init__(context)", model.__init__)


def checked_deadline(model: Model, due_ns: object) -> int:
    """A deadline that is no plain int; raises :class:`ModelError`."""
    if isinstance(due_ns, int):
        return int(due_ns)
    raise ModelError(
        f"model '{model.kind}': deadline_ns returned {due_ns!r:.40}, and no int and not None",
        place_of(model.deadline_ns),
    )


def place_of(thing: object) -> tuple[str, int] | None:
    """The file and the line where a function or a class begins, if it is known."""
    function = _function(thing)
    code = getattr(function, "__code__", None)
    if code is not None:
        return code.co_filename, code.co_firstlineno
    try:
        return inspect.getsourcefile(function) or "?", inspect.getsourcelines(function)[1]
    except (OSError, TypeError, IndexError):
        return None


# -- names and places -------------------------------------------------------------------------


def _check_names(model: Model) -> None:
    if not isinstance(model.kind, str) or not model.kind.isprintable() or "," in model.kind:
        raise _wrong(model, "its kind is no printable text without commas")
    if not isinstance(model.version, int) or model.version < 1:
        raise _wrong(model, f"its version is {model.version!r:.40}; it is a number from 1 on")
    for group in ("outputs", "feeds", "emits"):
        names = getattr(model, group)
        if isinstance(names, str) or not isinstance(names, Iterable):
            hint = f'{group} = ("{names}",)' if isinstance(names, str) else f'{group} = ("…",)'
            raise _wrong(model, f"{group} is {names!r:.40}; it is a tuple of names: {hint}")
        _check_unique(model, group, tuple(names))
    if not isinstance(model.regions, (tuple, list)) or not all(
        isinstance(region, Region) for region in model.regions
    ):
        raise _wrong(model, "regions is no tuple of Region: regions = (Region(…),)")
    _check_unique(model, "regions", [region.name for region in model.regions])


def _check_unique(model: Model, group: str, names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name:
            raise _wrong(model, f"{group}: {name!r:.40} is no name")
        if names.count(name) > 1:
            raise _wrong(model, f"{group}: {name!r} is there twice; names are given once")


def _check_region(model: Model, region: Region) -> None:
    if not isinstance(region.size, int) or region.size < 1:
        raise _wrong(model, f"region '{region.name}' has size {region.size!r:.40}")
    if region.space is Space.PORT and region.size > _PORTS:
        raise _wrong(model, f"region '{region.name}' has {region.size} ports; there are {_PORTS}")
    for register in region.registers:
        where = f"at offset {register.offset:#x}, {_bytes(register.width)} wide,"
        if not register.name.isidentifier():
            raise _bad(model, register, "has a name that no method can have")
        if register.width not in _WIDTHS:
            raise _bad(model, register, f"is {_bytes(register.width)} wide; it can be 1, 2, 4 or 8")
        if not 0 <= register.offset <= region.size - register.width:
            of = f"of {_bytes(region.size)}"
            raise _bad(model, register, f"{where} lies outside region '{region.name}' {of}")
        if not 0 <= register.reset < 1 << 8 * register.width:
            does = f"has the reset value {register.reset:#x}, which is not one of its width"
            raise _bad(model, register, does)
        if register.leased and (register.width != 1 or not register.access.readable):
            why = "can't be leased: leases are of single bytes that can be read"
            raise _bad(model, register, why)


def _check_overlaps(model: Model, region: Region) -> None:
    """No two registers answer the same access; a bank's own take the place of those of all."""
    for readable in (True, False):
        claimed: dict[tuple[str, int], Register] = {}
        for register in region.registers:
            if not (register.access.readable if readable else register.access.writable):
                continue
            for offset in range(register.offset, register.offset + register.width):
                other = claimed.setdefault((register.bank, offset), register)
                if other is not register:
                    raise _bad(
                        model,
                        register,
                        f"lies at offset {offset:#x} of region '{region.name}', where register "
                        f"{other.name} (line {other.place[1]}) is already; move one of them, or "
                        "give them banks",
                    )


# -- state and options ------------------------------------------------------------------------


def _check_defaults(model: Model, what: str, cls: type) -> None:
    for field in dataclasses.fields(cls):
        missing = dataclasses.MISSING
        if field.default is missing and field.default_factory is missing:
            raise _wrong(model, f"{what}.{field.name} has no default", cls)


def _check_storage(model: Model, register: Register) -> None:
    fields = {field.name: field for field in dataclasses.fields(model.State)}
    storage = register.storage or ""
    if storage not in fields and not hasattr(model.State, storage):
        hint = _near(storage, list(fields))
        raise _bad(model, register, f"is stored in '{storage}', which State does not have{hint}")
    default = fields[storage].default if storage in fields else 0
    if default is not dataclasses.MISSING and not isinstance(default, int):
        raise _bad(model, register, f"is stored in '{storage}', which is {default!r:.40}, no int")


def _check_state(model: Model) -> None:
    """A fresh state can be saved and restored, and the options have defaults that fit."""
    for what, cls in (("State", model.State), ("Options", model.Options)):
        try:
            from_plain(cls, to_plain(cls()), what)
        except OptionError:
            continue  # an option that has to be given
        except PlainError as error:
            why = f"{error}: it can't be saved and restored as docs/models.md has it (Snapshots)"
            raise _wrong(model, why, cls) from None
        except Exception as error:
            raise _wrong(model, f"{what}() fails: {in_one_line(error)}", cls) from None


# -- methods ----------------------------------------------------------------------------------


def _check_served(model: Model, region: Region, register: Register) -> None:
    name = register.name.lower()
    for verb, needed in (("read", register.access.readable), ("write", register.access.writable)):
        if (
            needed
            and register.storage is None
            and not callable(getattr(model, f"{verb}_{name}", 0))
        ):
            near = _misspelt(model, f"{verb}_{name}")
            raise _bad(model, register, f"needs a method {verb}_{name} or a storage field{near}")
    own = lineage(model)
    read, declared = own.depth(f"read_{name}"), own.declared(region, register)
    overridden = read is not None and read < min(declared, default=0)
    stored = register.storage is not None and read is None
    if register.leased and not overridden and not stored and own.depth(f"lease_{name}") is None:
        needs = f"is leased: it needs a method lease_{name}, or a storage field and no read_{name}"
        raise _bad(model, register, needs)


def _misspelt(model: Model, wanted: str) -> str:
    names = [name for name, _ in _own_methods(model)]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.75)
    known = {f"{v}_{r.name.lower()}" for _, r in registers(model) for v in ("read", "write")}
    return f" (it has {near[0]})" if near and near[0] not in known else ""


def _serves_nothing(
    model: Model, name: str, verb: str, run: str, known: Sequence[str], method: object
) -> ModelError:
    near = difflib.get_close_matches(name, [f"{verb}_{each}{run}" for each in known], n=1)
    hint = f"did you mean {near[0]}?" if near else f"a helper's name begins with _: _{name}"
    return _wrong(model, f"{name} serves no register; {hint}", method)


def _check_arguments(model: Model, name: str, verb: str, run: bool, method: object) -> None:
    takes = _RUN_TAKES if run else _TAKES[verb]
    try:
        inspect.signature(getattr(model, name)).bind(None, *takes)
    except TypeError:
        raise _wrong(model, f"{name} has to take (self, {', '.join(takes)})", method) from None
    except ValueError:
        pass  # a function that does not say what it takes


def _own_methods(model: Model) -> Iterator[tuple[str, Any]]:
    """What the model and its bases define, but not :class:`Device`."""
    for cls in model.__mro__[:-2]:
        yield from list(vars(cls).items())


def _function(thing: object) -> Any:
    while isinstance(thing, (partialmethod, partial)):
        thing = thing.func
    return getattr(thing, "__func__", thing)


# -- wording ----------------------------------------------------------------------------------


def _wrong(model: Model, what: str, thing: object = None) -> ModelError:
    place: Callable[[object], tuple[str, int] | None] = place_of
    return ModelError(
        f"model '{model.kind or model.__name__}': {what}", None if thing is None else place(thing)
    )


def _bad(model: Model, register: Register, what: str) -> ModelError:
    return ModelError(f"model '{model.kind}': register {register.name} {what}", register.place)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else _all(known)


def _all(known: Sequence[str]) -> str:
    return f" (it has: {', '.join(known) or 'none'})"


def _bytes(count: object) -> str:
    return f"{count} byte{'' if count == 1 else 's'}"
