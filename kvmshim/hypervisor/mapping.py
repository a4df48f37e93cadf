"""Guest memory: an anonymous mapping that outlives the VM that uses it."""

from __future__ import annotations

import os
from typing import Any

from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError

PAGE_BYTES = 4096


class MemoryMapping:
    """``size`` bytes (a multiple of 4096) of zeros; pages are taken as they are touched."""

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE_BYTES:
            raise ValueError(f"guest memory of {size} bytes is not a multiple of {PAGE_BYTES}")
        self.size = size
        self._base = lib.memory_map(size)
        if self._base == ffi.NULL:
            raise HostError(f"can't map {size} bytes of guest memory: {os.strerror(ffi.errno)}")

    @property
    def address(self) -> int:
        """Where it lies in this process."""
        return int(ffi.cast("uintptr_t", self._base))

    def write(self, offset: int, data: bytes) -> None:
        """Copies ``data`` to ``offset``."""
        self._view(offset, len(data))[:] = data

    def read(self, offset: int, length: int) -> bytes:
        """Copies ``length`` bytes out from ``offset``."""
        return bytes(self._view(offset, length))

    def close(self) -> None:
        """Unmaps it. No VM may use it any more."""
        if self._base != ffi.NULL:
            lib.memory_unmap(self._base, self.size)
            self._base = ffi.NULL

    def _view(self, offset: int, length: int) -> Any:
        if offset < 0 or offset + length > self.size:
            raise ValueError(
                f"{length} bytes at {offset:#x} lie outside {self.size:#x} bytes of guest memory"
            )
        return ffi.buffer(ffi.cast("uint8_t *", self._base) + offset, length)
