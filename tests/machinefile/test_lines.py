"""Finding the line of every key of a TOML document."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmshim.machinefile.lines import KeyPath, find_lines


def paths(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of everything inside ``value``."""
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, part in items:
        yield (*path, key)
        yield from paths(part, (*path, key))


EXAMPLES: dict[str, tuple[str, dict[KeyPath, int]]] = {
    "tables and comments": (
        "# [not]\n[a] # b = 1\n\nb = 1 # c = 2\n[a.'x y'.\"\\u0041\"]\n  d   =   2",
        {
            ("a",): 2,
            ("a", "b"): 4,
            ("a", "x y"): 5,
            ("a", "x y", "A"): 5,
            ("a", "x y", "A", "d"): 6,
        },
    ),
    "dotted keys": (
        "a.b . 'c' = 1\na.d = 2",
        {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "d"): 2},
    ),
    "arrays of tables": (
        "[[t]]\nk = 1\n[t.o]\nx = 1\n[[t]]\nk = 2\n[t.o]\nx = 2\n[[t.u]]\n[[t.u]]",
        {
            ("t", 0, "k"): 2,
            ("t", 0, "o", "x"): 4,
            ("t", 1): 5,
            ("t", 1, "k"): 6,
            ("t", 1, "o"): 7,
            ("t", 1, "u", 1): 10,
        },
    ),
    "inline tables and arrays": (
        "a = { b = 1, c.d = [\n  2, # ]\n  { e = '}' },\n] }\nf = 3",
        {("a", "b"): 1, ("a", "c", "d", 0): 2, ("a", "c", "d", 1, "e"): 3, ("f",): 5},
    ),
    "strings of several lines": (
        'a = """\nx = 1\n\\""" [y]\n"""""\nb = \'\'\'\n\\\'\'\'\nc = 1',
        {("a",): 1, ("b",): 5, ("c",): 7},
    ),
    "strings with brackets": (
        'a = ["]", \']\', "\\"]"]\nb = 1979-05-27 07:32:00\nc = 1',
        {("a", 2): 1, ("b",): 2, ("c",): 3},
    ),
    "windows line ends": ("a = 1\r\n\r\nb = 2\r\n", {("a",): 1, ("b",): 3}),
}


@pytest.mark.parametrize(("text", "lines"), EXAMPLES.values(), ids=list(EXAMPLES))
def test_keys_stand_on_their_lines(text: str, lines: dict[KeyPath, int]) -> None:
    found = find_lines(text)
    assert {path: found[path] for path in lines} == lines
    assert set(found) >= set(paths(tomllib.loads(text)))


# -- documents whose lines are known because they were written here ----------------------------

PIECES = ["1", "'x'", '"]#"', "true", "[1, 2]", "{ p = 1, q.r = 2 }", "[[], [{ z = 0 }]]"]
TALL_PIECES = ['"""\n[t]\n"""', "'''\nk = 1\n'''", "[\n# ]\n1,\n\n]"]
GAPS = ["", "\n", "# note = 1\n", "   \n\t\n"]
NAMES = st.sampled_from(["a", "b-c", "1", "'q.r'", '"s t"'])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    """A TOML document and the lines of its headers and keys."""
    text, known = "", {}
    prefix: KeyPath = ()
    for index in range(draw(st.integers(1, 8))):
        text += draw(st.sampled_from(GAPS))
        line = text.count("\n") + 1
        if draw(st.booleans()):
            count = sum(path[:1] == ("t",) and len(path) == 2 for path in known)
            array = draw(st.booleans())
            prefix = ("t", count) if array else (f"h{index}",)
            text += "[[ t ]]\n" if array else f"[h{index}]\n"
            known[prefix] = line
        else:
            name, value = draw(NAMES), draw(st.sampled_from(PIECES + TALL_PIECES))
            text += f"k{index}.{name} = {value}\n"
            known[(*prefix, f"k{index}", name.strip("'\""))] = line
    return text, known


@settings(max_examples=100, deadline=None)
@given(documents())
def test_every_key_that_was_written_is_found_on_its_line(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, known = document
    found = find_lines(text)
    assert {path: found.get(path) for path in known} == known


@settings(max_examples=50, deadline=None)
@given(documents())
def test_nothing_that_toml_sees_is_missed_or_made_up(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, _ = document
    assert set(find_lines(text)) == set(paths(tomllib.loads(text)))
