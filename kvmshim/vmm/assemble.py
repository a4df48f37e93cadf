"""From what a user asked for (a name, a file, options) to a machine that can be run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from devserver.machine.board import IN_MEMORY, DeviceWiring
from devserver.protocol.names import BadName, check_name
from kvmshim.bundled import find_guest, guests
from kvmshim.errors import InputError
from kvmshim.hypervisor.choose import choose
from kvmshim.loader import load_image
from kvmshim.loader.registers import LONG
from kvmshim.machinefile import (
    DeviceSpec,
    ImageSpec,
    MachineSpec,
    default_machine,
    load_machine,
)
from kvmshim.machinefile.convert import MAX_ADDRESS, MAX_IRQ, MAX_PORT
from kvmshim.machinefile.fwcfg import add_files
from kvmshim.machinefile.spec import HYPERVISORS, PLACED_LOCALLY, ModuleSpec
from kvmshim.remote.embedded_server import ServerProcess
from kvmshim.remote.link import WaitPolicy
from kvmshim.units import parse_size
from kvmshim.vmm.disk import check_disk_writable
from kvmshim.vmm.machine import Machine

_DEVICE_KEYS = ("port", "mem", "irq", "name", "placement")
#: Keys that may name a region or an output behind a dot.
_DOTTED = ("port.", "mem.", "irq.")


def assemble(options: argparse.Namespace, process: ServerProcess | None = None) -> Machine:
    """The machine that ``kvmshim run`` was asked for. Raises :class:`InputError`.

    ``process`` is a server for it that was started already.
    """
    spec = machine_of(options.what)
    image = spec.image
    if image is None:
        raise InputError(
            f"machine file '{options.what}' names no image; add an [image] table with a path"
        )
    changed = {
        "kind": options.kind,
        "load_address": _address("--load-address", options.load_address),
        "entry": _address("--entry", options.entry),
        "append": options.append or None,
        "bios": options.bios,
        "screen": options.screen,
        "disk_writes": options.disk_writes,
    }
    given = {key: value for key, value in changed.items() if value is not None}
    image = dataclasses.replace(image, **given)
    if image.screen is None:
        image = dataclasses.replace(image, screen=sys.stdout is not None and sys.stdout.isatty())
    if options.memory is not None:
        spec = dataclasses.replace(spec, memory_bytes=_memory(options.memory))
    if options.hypervisor is not None:
        spec = dataclasses.replace(spec, hypervisor=choose(options.hypervisor).name)
    if options.irqchip is not None:
        spec = dataclasses.replace(spec, irqchip=options.irqchip)
    spec = spec.with_controllers()
    devices = (*spec.devices, *(parse_device(text) for text in options.device))
    if options.placement is not None:
        devices = tuple(
            dataclasses.replace(device, placement=options.placement) for device in devices
        )
    strict = options.policy == "strict"
    modules = (*spec.modules, *map(parse_module, options.module))
    spec = dataclasses.replace(spec, devices=devices, image=image, strict=strict, modules=modules)
    spec = add_files(spec, options.fw_cfg)
    if options.model and options.server is not None:
        _check_models_are_for_here(spec)
    return machine_for(
        spec,
        server=options.server,
        models=options.model,
        wait=WaitPolicy(
            options.wait,
            options.cores,
            share=options.share,
            model_timeout_s=options.model_timeout,
        ),
        process=process,
    )


def _check_models_are_for_here(spec: MachineSpec) -> None:
    if all(device.placement != PLACED_LOCALLY for device in spec.devices):
        raise InputError(
            "--model makes models known to this process and its embedded server only, and --server "
            "names another; give the file to 'devserver serve --model', or place the device local"
        )


def machine_of(what: str) -> MachineSpec:
    """The machine that a bundled guest's name, an image or a machine file stands for."""
    if what.endswith(".toml"):
        return load_machine(what)
    path = Path(what)
    if what in guests() and not path.exists():
        guest = find_guest(what)
        path = guest.path
    elif "/" not in what and not path.exists() and "." not in what:
        find_guest(what)  # raises, naming the nearest
    return dataclasses.replace(default_machine(), image=ImageSpec(path=path))


def machine_for(
    spec: MachineSpec,
    *,
    server: str | None = None,
    models: Sequence[str] = (),
    wait: WaitPolicy | None = None,
    process: ServerProcess | None = None,
    name: str = "",
    vm_id: int = 0,
) -> Machine:
    """A machine for a spec that names its image. Raises :class:`InputError`."""
    image = spec.image
    if image is None:
        raise InputError("the machine names no image to boot")
    _check_names(spec)
    plan = load_image(
        image.path,
        memory_bytes=spec.memory_bytes,
        kind=image.kind,
        load_address=image.load_address,
        entry=image.entry,
        append=image.append,
        bios=image.bios,
        modules=[(module.path, module.append) for module in spec.modules],
        settings=spec.registers,
        screen=bool(image.screen),
    )
    if plan.start.mode == LONG and spec.hypervisor != HYPERVISORS[0]:
        raise InputError(
            f"cannot boot {plan.name!r}: it starts {plan.start}, and the hypervisor "
            f"'{spec.hypervisor}' emulates 32-bit processors only; run it on '{HYPERVISORS[0]}'"
        )
    if image.disk_writes:
        check_disk_writable(image.path, plan)
    return Machine(
        spec,
        plan,
        server=server,
        models=models,
        wait=wait,
        process=process,
        name=name or image.path.stem,
        vm_id=vm_id,
    )


def _check_names(spec: MachineSpec) -> None:
    """Names are the machine's, wherever the devices are: no server sees all of them."""
    names = [device.wiring.name for device in spec.devices]
    for name in names:
        try:
            check_name("a device", name)
        except BadName as error:
            raise InputError(str(error)) from None
        if names.count(name) > 1:
            raise InputError(f"two devices are named '{name}'; give one another name")


def parse_module(text: str) -> ModuleSpec:
    """A module as ``--module`` has it: ``FILE[,TEXT]``. The name of a file that is there may have
    commas in it."""
    path, _, append = (text, "", "") if Path(text).is_file() else text.partition(",")
    if not path:
        raise InputError(f"--module {text}: the file comes first")
    return ModuleSpec(path=Path(path), append=append)


def parse_device(text: str) -> DeviceSpec:
    """A device as ``--device`` has it: ``KIND,port=N[,irq=N][,name=TEXT][,placement=PLACE]``.

    ``mem=N`` is where its first region in memory lies; ``port.REGION``, ``mem.REGION`` and
    ``irq.OUTPUT`` name one of several. Any other ``KEY=VALUE`` is an option of the model.
    """
    kind, *rest = text.split(",")
    given: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(f"--device {text}: '{part}' is not of the form KEY=VALUE")
        if key in given:
            raise InputError(f"--device {text}: '{key}' is given twice")
        given[key] = value
    if not kind:
        raise InputError(f"--device {text}: the device's kind comes first")
    wiring = DeviceWiring(
        name=given.get("name", kind),
        kind=kind,
        bases={
            **_places(text, given, "port", MAX_PORT, ""),
            **_places(text, given, "mem", MAX_ADDRESS, IN_MEMORY),
        },
        lines=_places(text, given, "irq", MAX_IRQ, ""),
        options={
            key: _value(value)
            for key, value in given.items()
            if key not in _DEVICE_KEYS and not key.startswith(_DOTTED)
        },
    )
    return DeviceSpec(wiring=wiring, placement=given.get("placement", "server"))


def _places(
    text: str, given: Mapping[str, str], key: str, most: int, unnamed: str
) -> dict[str, int]:
    """What ``key=N`` and ``key.NAME=N`` say."""
    return {
        unnamed if each == key else each.removeprefix(f"{key}."): _bounded(text, given, each, most)
        for each in given
        if each == key or (each.startswith(f"{key}.") and len(each) > len(key) + 1)
    }


def _bounded(text: str, given: Mapping[str, str], key: str, most: int) -> int:
    """The number of a key of ``--device``."""
    try:
        value = parse_size(given[key])
    except InputError as error:
        raise InputError(f"--device {text}: {key}: {error}") from None
    if value > most:
        raise InputError(f"--device {text}: {key} {given[key]} is above {most} ({most:#x})")
    return value


def _value(text: str) -> object:
    """A model's option from the command line: a truth value, a number or text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text, 0)
    except ValueError:
        return text


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except InputError as error:
        raise InputError(f"{option}: {error}") from None


def _address(option: str, text: str | None) -> int | None:
    return None if text is None else _size(option, text)


def _memory(text: str) -> int:
    return check_memory(f"--memory {text}", _size("--memory", text))


def check_memory(given: str, size: int) -> int:
    """``size`` bytes, if a machine may have so much; ``given`` is what errors speak of.

    Raises :class:`InputError`.
    """
    from kvmshim.machinefile.spec import (
        MAX_MEMORY_BYTES,
        MEMORY_GRANULE_BYTES,
        MIN_MEMORY_BYTES,
    )
    from kvmshim.units import format_size

    if not MIN_MEMORY_BYTES <= size <= MAX_MEMORY_BYTES or size % MEMORY_GRANULE_BYTES:
        raise InputError(
            f"{given}: give between {format_size(MIN_MEMORY_BYTES)} and "
            f"{format_size(MAX_MEMORY_BYTES)}, in multiples of {format_size(MEMORY_GRANULE_BYTES)}"
        )
    return size
