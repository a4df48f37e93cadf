"""The cffi builds of ``kvmshim._native`` and ``devserver._native``.

API mode, one cdef file per topic, warnings are errors. ``python native/ffi_build.py`` compiles both
in place, for work on the C sources.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cffi import FFI

WARNINGS = ("-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Module:
    """An extension module: its cdef topics, what they include, and its C sources."""

    name: str
    topics: tuple[str, ...]
    headers: tuple[str, ...]
    sources: tuple[str, ...]


MODULES = (
    Module(
        "kvmshim._native",
        topics=(
            "kvm",
            "kvm_state",
            "codec",
            "lease",
            "link",
            "routes",
            "vcpu",
            "coalesced",
            "emulated",
            "engine",
            "floor",
            "load",
        ),
        headers=(
            "access",
            "codec",
            "control",
            "emulated",
            "engine",
            "floor",
            "intr",
            "keeper",
            "kvm",
            "lease",
            "link",
            "load",
            "vcpu",
        ),
        sources=(
            "access",
            "coalesced",
            "codec",
            "control",
            "crowd",
            "duct",
            "emulated",
            "engine",
            "floor",
            "halts",
            "intr",
            "keeper",
            "kvm",
            "lease",
            "lease_use",
            "lines",
            "link",
            "link_receive",
            "link_send",
            "link_serve",
            "link_wait",
            "load",
            "patience",
            "routes",
            "vcpu",
        ),
    ),
    Module(
        "devserver._native",
        topics=("serve", "relay"),
        headers=("relay", "serve"),
        sources=(
            "codec",
            "crowd",
            "duct",
            "patience",
            "relay",
            "serve",
            "serve_message",
            "serve_out",
            "serve_wait",
        ),
    ),
)


def make_builder(root: Path, module: Module) -> FFI:
    """The cffi builder of one module, for the C sources below ``root/native``."""
    native = root / "native"
    builder = FFI()
    for topic in module.topics:
        builder.cdef((native / "cdef" / f"{topic}.h").read_text())
    builder.set_source(
        module.name,
        "".join(f'#include "{header}.h"\n' for header in module.headers),
        sources=[str(native / "src" / f"{source}.c") for source in module.sources],
        include_dirs=[str(native / "src")],
        extra_compile_args=["-O2", "-std=gnu11", "-pthread", *WARNINGS],
        extra_link_args=["-pthread", "-ldl"],
    )
    return builder


def compile_modules(root: Path) -> list[Path]:
    """Compiles the extensions and puts each beside its Python package; returns their paths."""
    scratch = root / "native" / "build"
    targets = []
    for module in MODULES:
        folder = scratch / module.name
        folder.mkdir(parents=True, exist_ok=True)
        built = Path(make_builder(root, module).compile(tmpdir=str(folder)))
        target = root / module.name.partition(".")[0] / built.name
        fresh = target.with_suffix(".fresh")
        shutil.copy2(built, fresh)
        fresh.replace(target)  # a running process keeps the file it has mapped
        targets.append(target)
    return targets


if __name__ == "__main__":
    for path in compile_modules(Path(__file__).resolve().parent.parent):
        print(path)
