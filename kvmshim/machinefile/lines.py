"""On which line of a TOML document each key stands; :mod:`tomllib` does not tell.

The scanner trusts that tomllib accepted the text: it follows the grammar (TOML 1.0.0) only as far
as finding keys needs, and checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left

#: Where a value stands: keys, and indexes into arrays (arrays of tables included).
KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n,]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_OTHER_SCALAR = re.compile(r"[^,\]}#\n]+")


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line, counted from 1, that first mentions each key of the valid TOML document ``text``.

    >>> find_lines("[machine]\\nmemory = '1M'")
    {('machine',): 1, ('machine', 'memory'): 2}
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._tables: dict[KeyPath, int] = {}  # arrays of tables: how many each has so far

    def document(self) -> None:
        prefix: KeyPath = ()
        while self._more():
            if self._take("[["):
                prefix = self._array_of_tables_header()
            elif self._take("["):
                prefix = self._resolve(self._key())
                self._mark(prefix, 0)
                self._take("]")
            else:
                self._key_and_value(prefix)

    def _array_of_tables_header(self) -> KeyPath:
        *parents, name = self._key()
        self._take("]]")
        array = (*self._resolve(parents), name)
        index = self._tables.get(array, 0)
        self._tables[array] = index + 1
        path = (*array, index)
        self._mark(path, 0)
        return path

    def _resolve(self, keys: list[str]) -> KeyPath:
        """The path a header's ``keys`` mean: through arrays of tables, each one's last table."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        return path

    def _key_and_value(self, prefix: KeyPath) -> None:
        path = (*prefix, *self._key())
        self._mark(path, len(prefix))
        self._take("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._match(_SPACE)
        if self._take("["):
            index = 0
            while self._more("]"):
                self._mark((*path, index), len(path))
                self._value((*path, index))
                index += 1
        elif self._take("{"):
            while self._more("}"):
                self._key_and_value(path)
        elif not self._match(_STRING):
            self._match(_OTHER_SCALAR)

    def _key(self) -> list[str]:
        keys: list[str] = []
        while not keys or self._take("."):
            self._match(_SPACE)
            bare = self._match(_BARE_KEY)
            keys.append(bare or tomllib.loads(f"k = {self._match(_STRING)}")["k"])
            self._match(_SPACE)
        return keys

    def _mark(self, path: KeyPath, known: int) -> None:
        """Notes the present line for ``path`` and what leads to it beyond ``known`` elements."""
        line = bisect_left(self._newlines, self._at) + 1
        for length in range(known + 1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _more(self, closing: str = "") -> bool:
        """Passes over blanks and commas; whether something is left before ``closing``."""
        self._match(_BLANK)
        if closing and self._take(closing):
            return False
        return self._at < len(self._text)

    def _take(self, token: str) -> bool:
        found = self._text.startswith(token, self._at)
        if found:
            self._at += len(token)
        return found

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()
