"""docs/doctor.md lists every finding, in the doctor's order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fakehost import host_with

from kvmshim.doctor import examine

MANUAL = (Path(__file__).resolve().parents[2] / "docs/doctor.md").read_text()


def shape(value: Any) -> Any:
    """The keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(value[0])] if isinstance(value, list) else type(value)


def test_the_manual_lists_every_finding_in_order() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| (?:yes|no) \|", MANUAL, re.MULTILINE)

    assert listed == [finding.name for finding in examine(host_with()).findings]


def test_the_manual_says_of_every_capability_whether_it_is_required_and_what_for() -> None:
    for finding in examine(host_with()).findings:
        if finding.use:
            use, _, need = finding.use.removesuffix(")").rpartition(" (")
            required = "yes" if need == "required" else "no"
            assert f"| `{finding.name}` | {required} | {use} |" in MANUAL


def test_the_manuals_json_example_has_the_form_of_the_real_thing() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", MANUAL, re.DOTALL)

    assert shape(json.loads(example)) == shape(examine(host_with()).as_object())
