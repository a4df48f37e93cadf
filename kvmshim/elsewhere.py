"""Devices on several servers: the owner is asked for all, and says where else to go."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from devserver.protocol.messages import Elsewhere, WantedDevice
from kvmshim.errors import ServerError
from kvmshim.handshake import Attachment, attach, connect


@dataclass(frozen=True)
class VmIdentity:
    """What a server is told of a VM; ``vm_id`` 0: it is to give it one."""

    name: str
    hypervisor: int
    memory_bytes: int
    epoch_ns: int
    leased: bool = True
    vm_id: int = 0


def attach_everywhere(
    sock: socket.socket, owner: str, wanted: Sequence[WantedDevice], vm: VmIdentity
) -> list[Attachment]:
    """Attaches a VM's devices on the owner at the other end of ``sock``, and on every server that
    it names for some of them. Raises as :func:`kvmshim.handshake.attach`."""
    found = [_attach(sock, owner, wanted, vm)]
    first = found[0]
    try:
        for other in first.attached.elsewhere:
            theirs = [device for device in wanted if device.name in other.devices]
            found.append(_attach_at(other, owner, theirs, vm, first))
    except BaseException:
        for attachment in found:
            attachment.sock.close()
        raise
    return found


def _attach_at(
    other: Elsewhere, owner: str, wanted: Sequence[WantedDevice], vm: VmIdentity, first: Attachment
) -> Attachment:
    """At the server's own address if it has told one and can be reached there, else through the
    owner."""
    if other.address:
        with contextlib.suppress(ServerError):
            there = connect(other.address)
            return _attach(there, f"{other.address} ('{other.name}')", wanted, vm, first)
    label = f"{owner} (for I/O server '{other.name}')"
    try:
        return _attach(connect(owner), label, wanted, vm, first, other.server_id)
    except ServerError as error:
        raise ServerError(f"I/O server '{other.name}' can't be used: {error}") from error


def _attach(
    sock: socket.socket,
    server: str,
    wanted: Sequence[WantedDevice],
    vm: VmIdentity,
    first: Attachment | None = None,
    server_id: int = 0,
) -> Attachment:
    return attach(
        sock,
        server,
        wanted,
        vm_name=vm.name,
        vm_id=first.attached.vm_id if first else vm.vm_id,
        hypervisor=vm.hypervisor,
        memory_bytes=vm.memory_bytes,
        epoch_ns=vm.epoch_ns,
        leased=vm.leased,
        server_id=server_id,
        client_id=first.welcome.client_id if first else 0,
    )
