"""How a ``[[device]]`` of a machine file changes the board's device of that name, or adds one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from devserver.machine.board import IN_MEMORY, DeviceWiring
from kvmshim.machinefile.convert import BadValue

#: Stands for the first region, or the only output, of a model that may not be known here.
UNNAMED = ""


def check_forms(given: Mapping[str, Any]) -> None:
    """Refuses keys that exclude each other."""
    for single, several in (
        ("port", "ports"),
        ("mem", "mems"),
        ("irq", "irqs"),
        ("policy", "policies"),
    ):
        if single in given and several in given:
            raise BadValue(f"give either {single!r} or {several!r}, not both", several)
    if given.get("remove") and len(given) > 2:
        other = next(key for key in given if key not in ("name", "remove"))
        raise BadValue(f"a device that is removed takes no {other!r}", other)


def new_wiring(given: Mapping[str, Any]) -> DeviceWiring:
    """The wiring of a device that is not on the board."""
    return changed_wiring(DeviceWiring(name=given["name"], kind=given["kind"]), given)


def changed_wiring(board: DeviceWiring, given: Mapping[str, Any]) -> DeviceWiring:
    """The board's wiring with the given keys in place of its own.

    ``port`` replaces the first region's; ``ports``, ``irqs``, ``options`` and ``policies`` replace
    key by key; ``policy`` replaces all policies.
    """
    if given.get("kind", board.kind) != board.kind:
        board = _for_other_kind(board, given)
    return replace(
        board,
        bases=_bases(board, given),
        lines=_lines(board, given),
        options=_options(board, given),
        policies=_policies(board, given),
    )


def _for_other_kind(board: DeviceWiring, given: Mapping[str, Any]) -> DeviceWiring:
    """Another model has other names: only the first port and a single interrupt carry over."""
    bases = [] if "ports" in given else list(board.bases.values())[:1]
    lines = [] if "irqs" in given or len(board.lines) != 1 else list(board.lines.values())
    return DeviceWiring(
        name=board.name,
        kind=given["kind"],
        bases=dict.fromkeys([UNNAMED], bases[0]) if bases else {},
        lines=dict.fromkeys([UNNAMED], lines[0]) if lines else {},
    )


def _bases(board: DeviceWiring, given: Mapping[str, Any]) -> dict[str, int]:
    bases = {**board.bases, **given.get("ports", {}), **given.get("mems", {})}
    if "port" in given:
        bases[next(iter(board.bases), UNNAMED)] = given["port"]
    if "mem" in given:
        bases[IN_MEMORY] = given["mem"]
    return bases


def _lines(board: DeviceWiring, given: Mapping[str, Any]) -> dict[str, int]:
    if "irq" in given:
        if len(board.lines) > 1:
            raise BadValue(
                f"this device has {len(board.lines)} interrupt outputs; "
                f"say which, as in irqs = {{ {next(iter(board.lines))} = {given['irq']} }}",
                "irq",
            )
        return {next(iter(board.lines), UNNAMED): given["irq"]}
    return {**board.lines, **given.get("irqs", {})}


def _options(board: DeviceWiring, given: Mapping[str, Any]) -> dict[str, object]:
    return {**board.options, **given.get("options", {})}


def _policies(board: DeviceWiring, given: Mapping[str, Any]) -> dict[str, str]:
    if "policy" in given:
        return dict(given["policy"])
    return {**board.policies, **given.get("policies", {})}
