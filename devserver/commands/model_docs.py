"""The bundled models as Markdown, made from their declarations; ``docs/models.md`` carries it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence

from devserver.machine.board import PC_BOARD, DeviceWiring
from devserver.models import catalog
from devserver.models.device import Device
from devserver.models.registers import Region, Register, Space

_NUMBERED = re.compile(r"(\D+)(\d+)$")


def as_markdown(kinds: Iterable[str] = catalog.BUNDLED) -> str:
    """A section for each kind: what it is, where a PC has it, and its registers."""
    return "\n\n".join("\n\n".join(_section(kind)) for kind in sorted(kinds)) + "\n"


def summary(model: type[Device]) -> str:
    """The first sentence of a model's description, without marks."""
    paragraph = " ".join(_prose(model).partition("\n\n")[0].split())
    return paragraph.replace("`", "").partition(". ")[0].removesuffix(".")


def _section(kind: str) -> Iterator[str]:
    model = catalog.find(kind)
    wiring = next((wiring for wiring in PC_BOARD if wiring.kind == kind), None)
    yield f"### {kind}"
    yield _prose(model)
    yield "\n".join(_facts(model, wiring))
    for region in model.regions:
        yield _heading(region, wiring)
        yield "\n".join(_table(region))


def _prose(model: type[Device]) -> str:
    """The model's description, with the marks of Markdown for those of reStructuredText."""
    text = re.sub(r":\w+:(?=`)", "", inspect.getdoc(model) or "")
    return text.replace("``", "`")


def _facts(model: type[Device], wiring: DeviceWiring | None) -> Iterator[str]:
    on_board = f"`{wiring.name}` on the PC board" if wiring else "not on the PC board"
    yield f"- version {model.version}, {on_board}"
    if model.outputs:
        yield f"- interrupt outputs: {', '.join(_outputs(model.outputs, wiring))}"
    if model.feeds:
        yield f"- takes from the world: {_codes(model.feeds)}"
    if model.emits:
        yield f"- sends to the world: {_codes(model.emits)}"
    if options := dataclasses.fields(model.Options):
        yield f"- options: {_codes(option.name for option in options)}"


def _outputs(outputs: Sequence[str], wiring: DeviceWiring | None) -> Iterator[str]:
    lines = wiring.lines if wiring else {}
    wired = [(output, lines.get(output)) for output in outputs]
    if len(wired) > 2 and all(line == at for at, (_, line) in enumerate(wired)):
        yield f"`{outputs[0]}` to `{outputs[-1]}` on lines 0 to {len(wired) - 1}"
        return
    for output, line in wired:
        yield f"`{output}`" + (f" on line {line}" if line is not None else "")


def _heading(region: Region, wiring: DeviceWiring | None) -> str:
    what = "port" if region.space is Space.PORT else "byte"
    size = f"1 {what}" if region.size == 1 else f"{region.size} {what}s"
    base = wiring.bases.get(region.name) if wiring else None
    place = f", at {_hex(base)} on the PC board" if base is not None else ""
    return f"Region `{region.name}`: {size}{place}."


def _table(region: Region) -> Iterator[str]:
    banked = any(register.bank for register in region.registers)
    bank = " bank |" if banked else ""
    yield f"| offset | name | bytes |{bank} access | reset | policy | source |"
    yield "|---" * (8 if banked else 7) + "|"
    for first, last in _runs(region.registers):
        yield _row(first, last, banked)


def _row(first: Register, last: Register, banked: bool) -> str:
    to = first is not last
    cells = [
        _hex(first.offset) + (f" to {_hex(last.offset)}" if to else ""),
        f"`{first.name}`" + (f" to `{last.name}`" if to else ""),
        str(first.width),
        *([f"`{first.bank}`" if first.bank else "every"] if banked else []),
        first.access.value,
        _hex(first.reset),
        _policies(first),
        first.source,
    ]
    return f"| {' | '.join(cells)} |"


def _policies(register: Register) -> str:
    words = [register.policy.value] if register.access.writable else []
    return ", ".join(words + ["leased"] * register.leased)


def _runs(registers: Sequence[Register]) -> Iterator[tuple[Register, Register]]:
    """Registers, those that differ only in the number at their names' ends taken together."""
    start = 0
    for at in range(1, len(registers) + 1):
        if at == len(registers) or not _follows(registers[at - 1], registers[at]):
            yield registers[start], registers[at - 1]
            start = at


def _follows(one: Register, two: Register) -> bool:
    before, after = _NUMBERED.match(one.name), _NUMBERED.match(two.name)
    if before is None or after is None or int(after[2]) != int(before[2]) + 1:
        return False
    moved = dataclasses.replace(
        one, name=f"{before[1]}{after[2]}", offset=one.offset + one.width, storage=two.storage
    )
    return moved == two


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _hex(number: int) -> str:
    return f"{number:02X}h"
