"""A terminal attached to a VM's console through the panel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from devserver.commandline.streams import OutputError
from devserver.commandline.terminal import ESCAPE, ESCAPE_NAME, raw
from devserver.rpc import Handler, Peer, RpcError

_READ_BYTES = 4096


async def show(peer: Peer, handlers: dict[str, Handler], vm: str, *, read_only: bool) -> int:
    """Shows a console until it is closed or Ctrl-] is typed."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def output(vm_id: int, data: bytes) -> None:
        try:
            _write(data)
        except (OSError, OutputError) as error:  # nobody reads it, or the disk is full
            if not ended.done():
                ended.set_exception(error)

    async def closed(vm_id: int, why: str) -> None:
        if not ended.done():
            ended.set_result(why)

    handlers.update(output=output, console_closed=closed)
    answer = await peer.call("console", vm=vm, write=not read_only)
    _write(answer["backlog"])
    with _terminal(read_only) as on_terminal:
        tasks = [asyncio.create_task(_until_gone(peer, ended))]
        if on_terminal or not read_only:
            typed = None if read_only else answer["vm_id"]
            tasks.append(asyncio.create_task(_type(peer, typed, ended, on_terminal)))
        try:
            why = await ended
        finally:
            for task in tasks:
                task.cancel()
    if why:
        print(f"\ndevserver: console of VM '{vm}' closed: {why}", file=sys.stderr)
    return 0


async def _until_gone(peer: Peer, ended: asyncio.Future[str]) -> None:
    await peer.gone.wait()
    if not ended.done():
        ended.set_result("the connection to the server was lost")


async def _type(
    peer: Peer, vm_id: int | None, ended: asyncio.Future[str], on_terminal: bool
) -> None:
    """Has a VM read what is typed, up to the escape key; None: only that key counts."""
    escape = bytes([ESCAPE])
    async for data in _input(sys.stdin.fileno()):
        before, leave, _ = data.partition(escape) if on_terminal else (data, b"", b"")
        if before and vm_id is not None:
            with contextlib.suppress(RpcError):
                await peer.call("input", vm_id=vm_id, data=before)
        if leave and not ended.done():
            ended.set_result("")
    # At the input's end, what the guest prints is still shown.


async def _input(fd: int) -> AsyncIterator[bytes]:
    """What can be read from a descriptor, up to its end."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    try:
        loop.add_reader(fd, lambda: chunks.put_nowait(_read(fd)))
    except PermissionError:  # a file or /dev/null: there is nothing to wait for
        while data := _read(fd):
            yield data
        return
    try:
        while data := await chunks.get():
            yield data
    finally:
        loop.remove_reader(fd)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:  # a terminal that has hung up
        return b""


@contextlib.contextmanager
def _terminal(read_only: bool) -> Iterator[bool]:
    """Whether a person types; if so, the keys come one by one. Who only looks has Ctrl-C too."""
    fd = sys.stdin.fileno()
    if not os.isatty(fd) or (read_only and os.tcgetpgrp(fd) != os.getpgrp()):  # in the background
        yield False
        return
    print(f"devserver: {ESCAPE_NAME} leaves the console", file=sys.stderr)
    with raw(fd, signals=read_only):
        yield True


def _write(data: Any) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
