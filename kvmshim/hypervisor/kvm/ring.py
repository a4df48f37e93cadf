"""KVM's ring of coalesced writes, looked after while the guest runs on without an exit."""

from __future__ import annotations

import os
from typing import Any

from devserver.protocol.messages import AddressSpace
from kvmshim.abi import ffi, lib
from kvmshim.errors import HostError
from kvmshim.hypervisor.interface import Vcpu
from kvmshim.hypervisor.kvm.vm import CoalescedRing


class Ring:
    """The ring (native/src/vcpu/coalesced.h), looked after for the length of one run."""

    def __init__(self, handle: Any, vcpu: Vcpu, place: CoalescedRing | None) -> None:
        """``handle`` is the ``struct vcpu`` in whose mapping the ring is; None: there is none."""
        self._vcpu = handle
        self._ring = ffi.NULL
        if place is not None:
            self._ring = lib.coalesced_new(handle, ffi.cast("char *", vcpu.run_page) + place.at)
            if self._ring == ffi.NULL:
                raise MemoryError("no memory for the ring of coalesced writes")
            for zone in place.zones:
                port = zone.space == AddressSpace.PORT
                lib.coalesced_zone(self._ring, zone.start, zone.length, port)
        handle.coalesced = self._ring

    @property
    def is_there(self) -> bool:
        """Whoever looks after it also notices when the vCPU has halted for good."""
        return bool(self._ring != ffi.NULL)

    def start(self) -> None:
        """Has the ring looked after. Raises :class:`HostError`."""
        if self._ring != ffi.NULL and lib.ring_poller_add(self._ring) < 0:
            raise HostError(f"can't look after KVM's ring of writes: {os.strerror(ffi.errno)}")

    def close(self) -> None:
        """Has it looked after no longer; the vCPU must not run any more."""
        if self._ring == ffi.NULL:
            return
        lib.ring_poller_remove(self._ring)
        self._vcpu.coalesced = ffi.NULL
        lib.coalesced_free(self._ring)
        self._ring = ffi.NULL
