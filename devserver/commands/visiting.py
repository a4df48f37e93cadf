"""One command of an operator at a server's control panel, and every way in which it can end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from devserver.commandline.errors import CommandError
from devserver.commandline.progress import Progress
from devserver.commandline.streams import OutputGone
from devserver.protocol.names import BadName
from devserver.rpc import CALL_S, Peer, RpcError, connect_panel
from devserver.wording import in_one_line

#: A command may take as long as it takes. So often it is asked whether anybody is there still.
_LOOK_S = 10.0
_PATIENCE_S = 20.0
#: A sign of life, parts of files, and what a console's user does.
_WITHOUT_PROGRESS = ("ping", "parcel", "console", "input")
_ENDING = (signal.SIGTERM, signal.SIGHUP)


async def visit(server: str, options: argparse.Namespace) -> int:
    """Does ``options.work`` at the panel of a server; the exit status.

    Raises :class:`CommandError`.
    """
    logging.getLogger("devserver.rpc").setLevel(logging.CRITICAL)  # what it logs is said here
    ended: list[int] = []
    loop = asyncio.get_running_loop()
    task = loop.create_task(_work(server, options))
    for number in _ENDING:
        loop.add_signal_handler(number, _end, task, ended, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not ended:
            raise
        return 128 + ended[0]
    except RpcError as error:
        raise CommandError(str(error)) from None


class _Patient(Peer):
    """Somebody at a terminal, who sees what is waited for."""

    async def call(self, op: str, patience_s: float = CALL_S, /, **arguments: Any) -> Any:
        if op in _WITHOUT_PROGRESS:
            return await super().call(op, patience_s, **arguments)
        with Progress(f"waiting for the server: {op.replace('_', ' ')}"):
            return await super().call(op, patience_s, **arguments)


def _end(task: asyncio.Task[int], ended: list[int], number: int) -> None:
    ended.append(number)
    task.cancel()


async def _work(server: str, options: argparse.Namespace) -> int:
    try:
        reader, writer = await connect_panel(server, "operator", "")
    except OSError as error:
        raise CommandError(
            f"can't reach the server at {server}: {error.strerror or error}; "
            f"is 'devserver serve --listen {server}' running there?"
        ) from None
    options.handlers = {}
    peer = _Patient(reader, writer, options.handlers)
    serving = asyncio.get_running_loop().create_task(peer.serve())
    try:
        return await _while_there(peer, server, options.work(peer, options))
    except (OutputGone, BadName):
        raise
    except OSError as error:
        why = error.strerror or error
        raise CommandError(f"the connection to the server at {server} was lost: {why}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CommandError(
            f"the server at {server} says what this program does not understand "
            f"({in_one_line(error)}); is it of the same version?"
        ) from error
    finally:
        peer.close()
        serving.cancel()


async def _while_there(peer: Peer, server: str, work: Coroutine[Any, Any, int]) -> int:
    """What the work gives, however long it takes, as long as the other end answers."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
            if not peer.gone.is_set() and not await peer.is_there(_PATIENCE_S):
                raise CommandError(f"the server at {server} does not answer any more; see its log")
        return await task
    finally:
        task.cancel()
