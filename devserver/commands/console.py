"""A terminal attached to a VM's console through the panel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from devserver.rpc import Handler, Peer, RpcError

#: Ctrl-] leaves, as with kvmshim run.
ESCAPE = b"\x1d"
_READ_BYTES = 4096


async def show(peer: Peer, handlers: dict[str, Handler], vm: str, *, read_only: bool) -> int:
    """Shows a console until it is closed, the input ends or Ctrl-] is typed."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def output(vm_id: int, data: bytes) -> None:
        _write(data)

    async def closed(vm_id: int, why: str) -> None:
        if not ended.done():
            ended.set_result(why)

    handlers.update(output=output, console_closed=closed)
    answer = await peer.call("console", vm=vm, write=not read_only)
    _write(answer["backlog"])
    tasks = [asyncio.get_running_loop().create_task(_until_gone(peer, ended))]
    with _raw_terminal(not read_only) as on_terminal:
        if not read_only:
            work = _type(peer, answer["vm_id"], ended, on_terminal)
            tasks.append(asyncio.get_running_loop().create_task(work))
        why = await ended
    for task in tasks:
        task.cancel()
    if why:
        print(f"\ndevserver: console of VM '{vm}' closed: {why}", file=sys.stderr)
    return 0


async def _until_gone(peer: Peer, ended: asyncio.Future[str]) -> None:
    await peer.gone.wait()
    if not ended.done():
        ended.set_result("the connection to the server was lost")


async def _type(peer: Peer, vm_id: int, ended: asyncio.Future[str], on_terminal: bool) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    fd = sys.stdin.fileno()
    loop.add_reader(fd, lambda: chunks.put_nowait(os.read(fd, _READ_BYTES)))
    try:
        while data := await chunks.get():
            before, escape, _ = data.partition(ESCAPE) if on_terminal else (data, b"", b"")
            if before:
                with contextlib.suppress(RpcError):
                    await peer.call("input", vm_id=vm_id, data=before)
            if escape:
                break
        else:
            loop.remove_reader(fd)
            return  # what the guest prints is still shown
        if not ended.done():
            ended.set_result("")
    finally:
        loop.remove_reader(fd)


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[bool]:
    fd = sys.stdin.fileno()
    if not wanted or not os.isatty(fd):
        yield False
        return
    print("devserver: Ctrl-] leaves the console", file=sys.stderr)
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _write(data: Any) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
