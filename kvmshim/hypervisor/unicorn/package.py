"""The Python package of the Unicorn engine: whether it is installed, and where its library is."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

#: How to get it.
ADVICE = "pip install 'kvmshim[unicorn]'"
_PACKAGE = "unicorn"
_LIBRARY = "libunicorn.so.2"


def find_library() -> Path | None:
    """Where the engine's library is; None if the package is not installed."""
    package = find_spec(_PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "lib" / _LIBRARY
        if path.exists():
            return path
    return None


def library_version() -> str | None:
    """The package's version; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to come by

    if find_library() is None:
        return None
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        return "unknown"
