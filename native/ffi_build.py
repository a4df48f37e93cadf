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
            "link/lease",
            "link/link",
            "vcpu/routes",
            "vcpu/unclaimed",
            "vcpu/vcpu",
            "vcpu/coalesced",
            "unicorn/emulated",
            "unicorn/engine",
            "bench/floor",
            "bench/load",
        ),
        headers=(
            "vcpu/access",
            "codec",
            "vm/control",
            "unicorn/emulated",
            "unicorn/engine",
            "bench/floor",
            "vcpu/irqchip",
            "vcpu/ring_poller",
            "kvm",
            "link/lease",
            "link/link",
            "bench/load",
            "vcpu/vcpu",
        ),
        sources=(
            "vcpu/access",
            "vcpu/coalesced",
            "codec",
            "vm/control",
            "wait/spin_budget",
            "wait/shm_stream",
            "unicorn/emulated",
            "unicorn/engine",
            "bench/floor",
            "vcpu/halts",
            "vcpu/irqchip",
            "vcpu/ring_poller",
            "kvm",
            "link/lease",
            "link/lease_use",
            "vm/lines",
            "link/link",
            "link/link_end",
            "link/link_receive",
            "link/link_send",
            "link/link_serve",
            "link/link_wait",
            "bench/load",
            "wait/spin_wait",
            "vcpu/routes",
            "vcpu/unclaimed",
            "vcpu/vcpu",
        ),
    ),
    Module(
        "devserver._native",
        topics=("serve/serve", "serve/relay"),
        headers=("serve/relay", "serve/serve"),
        sources=(
            "codec",
            "wait/spin_budget",
            "wait/shm_stream",
            "wait/spin_wait",
            "serve/relay",
            "serve/serve",
            "serve/serve_message",
            "serve/serve_out",
            "serve/serve_turn",
            "serve/serve_wait",
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
