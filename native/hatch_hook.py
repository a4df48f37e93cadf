"""Compiles the native modules when the package is built or installed (a hatchling build hook)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        sys.path.insert(0, str(ROOT / "native"))
        try:
            import ffi_build
        finally:
            sys.path.pop(0)
        for built in ffi_build.compile_modules(ROOT):
            build_data["artifacts"].append(str(built.relative_to(ROOT)))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False
