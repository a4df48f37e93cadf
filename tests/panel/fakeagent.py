"""An agent that does as it should up to a point, in a process of its own.

``python fakeagent.py ADDRESS NAME OPERATION refuse|die [VM_ID VM_NAME]``: at that operation it does
as it is told. It says that it has that VM, and prints what the panel says to that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from devserver.rpc import Handler, Peer, RpcError, connect_panel

KVM = {"kind": "kvm", "version": "", "capabilities": {}}
_OPERATIONS = ("launch", "suspend", "restore", "receive", "memory", "land", "go", "abort")


async def visit(address: str, name: str, at: str, how: str, *vm: str) -> None:
    """Serves the panel until it is told to do what it does wrong."""

    def handler(operation: str) -> Handler:
        async def answer(**_: Any) -> dict[str, Any]:
            if operation == at and how == "die":
                os._exit(1)
            if operation == at:
                raise RpcError(f"no {operation} here")
            return {"devices": []}

        return answer

    reader, writer = await connect_panel(address, "agent", name)
    peer = Peer(reader, writer, {operation: handler(operation) for operation in _OPERATIONS})
    serving = asyncio.create_task(peer.serve())
    vms = [{"vm_id": int(vm[0]), "name": vm[1], "state": "running"}] if vm else []
    answer = await peer.call("register", hostname="nowhere", hypervisors=[KVM], vms=vms)
    print(f"serves; must let go: {answer['drop']}", flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(visit(*sys.argv[1:]))
