"""Builds the guests of the manifest with nasm; the same sources always give the same bytes.

``python guests/build.py`` builds all into ``guests/built``; ``--check`` builds them elsewhere and
says which committed images differ from their sources.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

GUESTS = Path(__file__).resolve().parent
BUILT = GUESTS / "built"


class BuildError(Exception):
    """nasm is missing or did not accept a source."""


def load_manifest() -> dict[str, Any]:
    """The manifest, whose tables ``guest`` and ``support`` map names to what they describe."""
    return tomllib.loads((GUESTS / "manifest.toml").read_text())


def images() -> dict[str, dict[str, Any]]:
    """Every image that is built, by name: the guests and what supports them."""
    manifest = load_manifest()
    return {**manifest["guest"], **manifest["support"]}


def build(source: str, target: Path) -> None:
    """Assembles ``source``, a path below the guests' folder, into the file ``target``."""
    include = ["-I", f"{GUESTS / 'include'}/", "-I", f"{GUESTS}/"]
    command = ["nasm", "-f", "bin", "-Wall", "-Werror", *include, "-o", str(target), source]
    try:
        done = subprocess.run(command, cwd=GUESTS, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError("nasm is not installed; get it with 'apt install nasm'") from None
    if done.returncode:
        raise BuildError(f"nasm refused {source}:\n{done.stderr.rstrip()}")


def build_all(folder: Path) -> list[Path]:
    """Builds every image into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = []
    for image in images().values():
        target = folder / image["file"]
        build(image["source"], target)
        targets.append(target)
    return targets


def differing(folder: Path) -> list[str]:
    """The names of images that are not the same in ``folder`` and in ``guests/built``."""
    return [
        path.name
        for path in build_all(folder)
        if not (BUILT / path.name).is_file()
        or (BUILT / path.name).read_bytes() != path.read_bytes()
    ]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(description="Builds the bundled guests with nasm.")
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    check: bool = parser.parse_args(arguments).check
    try:
        if not check:
            print(f"built {len(build_all(BUILT))} images in {BUILT}")
            return 0
        with tempfile.TemporaryDirectory() as folder:
            stale = differing(Path(folder))
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    for name in stale:
        print(f"built/{name} is not what its source gives; run guests/build.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
