"""The manual of the machine file lists what the code knows, and its example works."""

from __future__ import annotations

import re
from pathlib import Path

from kvmshim.loader import ImageKind
from kvmshim.machinefile import parse_machine
from kvmshim.machinefile.keys import TABLES

MANUAL = (Path(__file__).parents[2] / "docs" / "machine-file.md").read_text()


def section(heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found, f"the manual has no section {heading}"
    return found[1]


def rows(heading: str) -> list[tuple[str, ...]]:
    """The cells of the section's table, without its head and without code marks."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    return [
        tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines[2:]
    ]


def test_the_manual_lists_every_key_with_its_type_and_default() -> None:
    manual = {table: [row[:3] for row in rows(table)] for table in TABLES}
    code = {table: [(key.name, key.type, key.default) for key in TABLES[table]] for table in TABLES}
    assert manual == code


def test_every_key_has_a_meaning() -> None:
    assert all(row[3] for table in TABLES for row in rows(table))


def test_the_manual_explains_every_type() -> None:
    used = {key.type for keys in TABLES.values() for key in keys}
    assert {row[0] for row in rows("Types")} == used


def test_the_manual_lists_every_kind_of_image() -> None:
    assert {row[0].strip('"') for row in rows("Kinds of images")} == set(ImageKind)


def test_the_example_is_a_valid_machine_file() -> None:
    example = re.search(r"```toml\n(.*?)```", MANUAL, re.DOTALL)
    assert example
    machine = parse_machine(example[1], Path("machine.toml"))
    placements = {spec.wiring.name: spec.placement for spec in machine.devices}
    assert placements["dice"] == "lab"
    assert "rtc" not in placements
