"""An agent that takes part in a migration up to a point, in a process of its own.

``python fakeagent.py ADDRESS NAME OPERATION refuse|die``: at that operation it does as it is told.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from devserver.rpc import Handler, Peer, RpcError, connect_panel

_OPERATIONS = ("receive", "memory", "land", "go", "abort")


async def visit(address: str, name: str, at: str, how: str) -> None:
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
    await peer.call("register", hostname="nowhere", hypervisors=["kvm"], vms=[])
    print("serves", flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(visit(*sys.argv[1:5]))
