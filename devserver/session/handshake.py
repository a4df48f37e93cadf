"""How a conversation begins: who comes, where to, and with which devices."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from devserver.cluster.directory import Directory, IoServer
from devserver.identity import Identity
from devserver.machine.inventory import describe
from devserver.protocol import codec, limits
from devserver.protocol.greetings import LEASES, SHARED_MEMORY
from devserver.protocol.messages import (
    Attach,
    Attached,
    Elsewhere,
    Hello,
    Join,
    Panel,
    Welcome,
)
from devserver.session.attached_vm import AttachedVm
from devserver.session.outbox import Outbox

log = logging.getLogger("devserver.session")


class ServerHandshake:
    """Answers HELLO, JOIN and ATTACH."""

    def __init__(
        self,
        identity: Identity,
        allot_id: Callable[[], int],
        directory: Directory,
        outbox: Outbox,
        peer: str,
        may_share: bool = False,
    ) -> None:
        """``may_share``: whether bytes can go through memory (``native/src/wait/shm_stream.h``)."""
        self.takes_leases = False
        self._may_share = may_share
        self._shares = False
        #: Messages in the outbox that stand before the first one which goes through memory, once
        #: the client is to be given it.
        self.shared_behind: int | None = None
        #: The server that the client wants, if it is another one, and what it is to be told first.
        self.forward_to: tuple[IoServer, bytes] | None = None
        #: Who wants the control panel, if that is what the client wants.
        self.panel: Panel | None = None
        self._identity = identity
        self._allot_id = allot_id
        self._directory = directory
        self._outbox = outbox
        self._peer = peer
        self._joined: IoServer | None = None
        #: The VM that is attached, as the control panel is told of it; without its devices.
        self.guest: dict[str, Any] | None = None
        self._client_name = ""

    def hello(self, hello: Hello) -> None:
        """Takes a client in, or notes the :attr:`forward_to` that it wants.

        Raises :class:`RemoteProtocolError` if it wants a server that is not known.
        """
        if hello.server_id not in (0, self._identity.server_id):
            server = self._directory.find(hello.server_id)
            known = [name for name in hello.features if name != SHARED_MEMORY]  # it has a relay
            self.forward_to = server, codec.frame(codec.encode(replace(hello, features=known)))
            return
        self.takes_leases = LEASES in hello.features
        self._shares = self._may_share and SHARED_MEMORY in hello.features
        used = {LEASES: self.takes_leases, SHARED_MEMORY: self._shares}
        self._client_name = hello.name
        self._welcome(
            self._identity.server_id,
            client_id=hello.client_id or self._allot_id(),
            features=[name for name, is_used in used.items() if is_used],
        )

    def join(self, join: Join) -> None:
        """Takes an I/O server in; raises :class:`RemoteProtocolError`."""
        self._joined = self._directory.join(join)
        self._welcome(self._joined.server_id, client_id=0, features=[])
        log.info("%s: server '%s' at %s has joined", self._peer, join.name, join.address)

    def attach(self, attach: Attach, vm: AttachedVm) -> None:
        """Gives a VM its devices; raises :class:`RemoteProtocolError`."""
        elsewhere: list[Elsewhere] = []
        if not attach.key:
            own, elsewhere = self._directory.share_out(attach.devices, self._peer)
            attach = replace(attach, devices=own)
        try:
            vm_id = vm.attach(attach)
        finally:
            self._outbox.forget()  # the levels of the lines are told below
        devices = describe(vm.bus)
        self.guest = {
            "vm_id": vm_id,
            "name": attach.vm_name,
            "client": self._client_name,
            "hypervisor": attach.hypervisor,
            "memory_bytes": attach.memory_bytes,
        }
        self._outbox.send(
            Attached(
                vm_id=vm_id,
                window=self._identity.window,
                devices=devices,
                key=vm.key,
                elsewhere=elsewhere,
            )
        )
        if self._shares:
            self.shared_behind = len(self._outbox.outgoing)
        for line, level in vm.bus.line_levels().items():
            if level:  # raised while the devices were being made, or before they were left behind
                self._outbox.line(line, level)
        if self.takes_leases:
            vm.grant_leases()
        how = "took over" if attach.key else "attached"
        log.info("%s: VM '%s' %s %d devices", self._peer, attach.vm_name, how, len(devices))

    def close(self) -> None:
        """The connection is gone."""
        if self._joined is not None:
            self._directory.leave(self._joined.server_id)
            log.warning("%s: server '%s' is gone", self._peer, self._joined.name)
            self._joined = None

    def _welcome(self, server_id: int, client_id: int, features: list[str]) -> None:
        identity = self._identity
        welcome = Welcome(
            version=limits.PROTOCOL_VERSION,
            server_id=server_id,
            client_id=client_id,
            epoch=self._allot_id(),
            name=identity.name,
            heartbeat_ns=identity.heartbeat_ns,
            deadline_ns=identity.deadline_ns,
            features=features,
        )
        self._outbox.send(welcome)
