"""The cffi build of ``kvmshim._native``: one cdef file per topic, API mode, warnings are errors.

``python native/ffi_build.py`` compiles the module in place, for work on the C sources.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cffi import FFI

TOPICS = ("kvm", "codec", "link", "vcpu", "floor")
WARNINGS = ("-Wall", "-Wextra", "-Werror")


def make_builder(root: Path) -> FFI:
    """The cffi builder for the C sources below ``root/native``."""
    native = root / "native"
    builder = FFI()
    for topic in TOPICS:
        builder.cdef((native / "cdef" / f"{topic}.h").read_text())
    builder.set_source(
        "kvmshim._native",
        '#include "native.h"',
        sources=sorted(str(path) for path in (native / "src").glob("*.c")),
        include_dirs=[str(native / "src")],
        extra_compile_args=["-O2", "-std=gnu11", "-pthread", *WARNINGS],
        extra_link_args=["-pthread"],
    )
    return builder


def compile_module(root: Path) -> Path:
    """Compiles the extension and puts it beside the Python package; returns its path."""
    scratch = root / "native" / "build"
    scratch.mkdir(exist_ok=True)
    built = Path(make_builder(root).compile(tmpdir=str(scratch)))
    target = root / "kvmshim" / built.name
    fresh = target.with_suffix(".fresh")
    shutil.copy2(built, fresh)
    fresh.replace(target)  # a running process keeps the file it has mapped
    return target


if __name__ == "__main__":
    print(compile_module(Path(__file__).resolve().parent.parent))
