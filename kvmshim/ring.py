"""KVM's ring of coalesced writes, looked after while the guest runs on without an exit."""

from __future__ import annotations

import threading
from typing import Any

from kvmshim.abi import ffi, lib
from kvmshim.vcpu import Vcpu


class Ring:
    """The ring and its thread (native/src/coalesced.h), for the length of one run."""

    def __init__(self, handle: Any, vcpu: Vcpu, at: int | None) -> None:
        """``handle`` is the ``struct vcpu`` whose mapping has the ring ``at`` bytes from its start;
        None: there is no ring."""
        self._vcpu = handle
        self._thread: threading.Thread | None = None
        self._ring = ffi.NULL
        if at is not None:
            self._ring = lib.coalesced_new(handle, ffi.cast("char *", vcpu.run_page) + at)
            if self._ring == ffi.NULL:
                raise MemoryError("no memory for the ring of coalesced writes")
        handle.coalesced = self._ring

    def start(self) -> None:
        """Starts the thread."""
        if self._ring != ffi.NULL:
            self._thread = threading.Thread(
                target=lib.coalesced_serve, args=(self._ring,), name="coalesced", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Ends the thread; the vCPU must not run any more."""
        if self._ring == ffi.NULL:
            return
        lib.coalesced_close(self._ring)
        if self._thread is not None:
            self._thread.join()
        self._vcpu.coalesced = ffi.NULL
        lib.coalesced_free(self._ring)
        self._ring = ffi.NULL
