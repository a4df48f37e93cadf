"""Devices on several servers: the owner is asked for all, and says where else to go."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from devserver.protocol.messages import WantedDevice
from kvmshim.errors import ServerError
from kvmshim.remote.handshake import Attachment, Whereabouts, attach, connect
from kvmshim.vmstate.state import DetachedDevices

log = logging.getLogger("kvmshim")

#: For how long another client may have the devices that are to be taken back.
_TAKEN_S = 5.0
_RETRY_S = 0.05


@dataclass(frozen=True)
class VmIdentity:
    """What a server is told of a VM; ``vm_id`` 0: it is to give it one."""

    name: str
    hypervisor: int
    memory_bytes: int
    epoch_ns: int
    leased: bool = True
    share: bool = True
    vm_id: int = 0


def attach_everywhere(
    sock: socket.socket, owner: str, wanted: Sequence[WantedDevice], vm: VmIdentity
) -> list[Attachment]:
    """Attaches a VM's devices on the owner at the other end of ``sock``, and on every server that
    it names for some of them. Raises as :func:`kvmshim.remote.handshake.attach`."""
    found = [_attach(sock, owner, wanted, vm)]
    first = found[0]
    try:
        for other in first.attached.elsewhere:
            theirs = [device for device in wanted if device.name in other.devices]
            same = replace(vm, vm_id=first.attached.vm_id)
            found.append(attach_at(other, owner, theirs, same, first.welcome.client_id))
    except BaseException:
        for attachment in found:
            attachment.close()
        raise
    return found


def attach_at(
    other: Whereabouts,
    owner: str,
    wanted: Sequence[WantedDevice],
    vm: VmIdentity,
    client_id: int,
    key: str = "",
) -> Attachment:
    """Attaches devices at the server's own address if it has told one and can be reached there,
    else through the owner; with a ``key``, those that the VM has left behind there. Raises as
    :func:`kvmshim.remote.handshake.attach`."""
    there = None
    if other.address:
        with contextlib.suppress(ServerError):
            there = connect(other.address)
    if there is not None:
        label = f"{other.address} ('{other.name}')"
        attachment = _attach(there, label, wanted, vm, client_id, key=key)
    else:
        label = f"{owner} (for I/O server '{other.name}')"
        try:
            sock = connect(owner)
            attachment = _attach(sock, label, wanted, vm, client_id, other.server_id, key)
        except ServerError as error:
            raise ServerError(f"I/O server '{other.name}' can't be used: {error}") from error
    attachment.where = other
    return attachment


def reattach(
    devices: DetachedDevices, owner: str, wanted: Sequence[WantedDevice], vm: VmIdentity
) -> Attachment:
    """Has the devices that a VM has left behind on a server.

    If they are not there any more they are made again, from the states in ``wanted``. Raises as
    :func:`kvmshim.remote.handshake.attach`.
    """
    vm = replace(vm, vm_id=devices.vm_id)
    try:
        return _reattach_over(devices, owner, (), vm, devices.key)
    except ServerError:
        log.warning("VM '%s': its devices are not kept any more; making them again", vm.name)
    end_s = time.monotonic() + _TAKEN_S
    while True:
        try:
            return _reattach_over(devices, owner, wanted, vm)
        except ServerError:  # a client that is just going may still have them
            if time.monotonic() >= end_s:
                raise
        time.sleep(_RETRY_S)


def _reattach_over(
    devices: DetachedDevices,
    owner: str,
    wanted: Sequence[WantedDevice],
    vm: VmIdentity,
    key: str = "",
) -> Attachment:
    if devices.name:
        return attach_at(devices, owner, wanted, vm, 0, key)
    return _attach(connect(owner), owner, wanted, vm, key=key)


def _attach(
    sock: socket.socket,
    server: str,
    wanted: Sequence[WantedDevice],
    vm: VmIdentity,
    client_id: int = 0,
    server_id: int = 0,
    key: str = "",
) -> Attachment:
    return attach(
        sock,
        server,
        wanted,
        vm_name=vm.name,
        vm_id=vm.vm_id,
        hypervisor=vm.hypervisor,
        memory_bytes=vm.memory_bytes,
        epoch_ns=vm.epoch_ns,
        leased=vm.leased,
        share=vm.share,
        key=key,
        server_id=server_id,
        client_id=client_id,
    )
