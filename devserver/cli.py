"""The ``devserver`` command."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from devserver import logs
from devserver.client import WAITS
from devserver.host import DeviceHost
from devserver.identity import Identity
from devserver.models import catalog
from devserver.protocol.address import AddressError, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode, cut
from devserver.protocol.messages import Error
from devserver.transport import ListenError, bound_address, listen, stop_listening

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except (ListenError, AddressError, catalog.UnknownModel) as error:
        print(f"devserver: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="devserver", description="Hosts device models for virtual machines.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve device models to client platforms")
    where = serve.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="tcp://HOST:PORT (port 0: any) or unix:PATH; may be given several times",
    )
    where.add_argument("--fd", type=int, help="serve one socket that is already connected")
    serve.add_argument("--name", default="devserver", help="what the server calls itself")
    serve.add_argument("--server-id", type=_positive, default=1, metavar="N")
    serve.add_argument("--max-clients", type=_positive, default=1024, metavar="N")
    serve.add_argument(
        "--heartbeat", type=_seconds, default=5.0, help="ask a client silent for so many seconds"
    )
    serve.add_argument(
        "--deadline", type=_seconds, default=20.0, help="give it up after so many seconds"
    )
    serve.add_argument(
        "--window", type=_positive, default=4096, help="posted writes a client may have under way"
    )
    serve.add_argument("--wait", choices=WAITS, default="adaptive")
    serve.add_argument(
        "--engine",
        choices=("native", "python"),
        default="native",
        help="the data loop: compiled, or the readable reference that it must equal",
    )
    serve.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="also serve the device models that this Python file defines",
    )
    serve.add_argument(
        "--log", choices=("debug", "info", "warning", "error"), default="info", help="how much"
    )
    serve.set_defaults(run=_serve)

    models = commands.add_parser("models", help="list the device models that can be asked for")
    models.add_argument(
        "--markdown", action="store_true", help="describe the bundled ones, with their registers"
    )
    models.set_defaults(run=_models)
    return parser


def _serve(options: argparse.Namespace) -> int:
    logs.set_up(options.log)
    if options.deadline <= options.heartbeat:
        raise AddressError("--deadline must be longer than --heartbeat")
    inherited = None if options.fd is None else _inherited(options.fd)
    try:
        for path in options.model:
            catalog.load_file(path)
    except catalog.UnknownModel as error:
        if inherited is None:
            raise
        with inherited:  # to the one who can say it best: the client
            refusal = Error(ErrorCode.MACHINE, cut(str(error)))
            inherited.sendall(Connection(Role.SERVER).send(refusal))
        return EXIT_FAILED
    identity = Identity(
        server_id=options.server_id,
        name=options.name,
        heartbeat_ns=int(options.heartbeat * 1e9),
        deadline_ns=int(options.deadline * 1e9),
        window=options.window,
    )
    host = DeviceHost(
        identity,
        max_clients=options.max_clients,
        wait=options.wait,
        until_idle=inherited is not None,
        engine=options.engine,
    )
    signal.signal(signal.SIGTERM, lambda *_: host.stop())
    if inherited is not None:
        # A server of one VM's own lives as long as its socket; the terminal's Ctrl-C is the VM's.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        host.add_client(inherited, "embedded")
        catalog.preload()  # while the client sets up its machine
    else:
        signal.signal(signal.SIGINT, lambda *_: host.stop())
        _listen(host, options.listen)
    host.run()
    return EXIT_OK


def _inherited(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListenError(f"descriptor {descriptor} is not a socket: {error.strerror}") from error


def _listen(host: DeviceHost, addresses: Sequence[str]) -> None:
    sockets: list[socket.socket] = []
    try:
        for address in map(parse_address, addresses):
            sockets.append(listen(address))
    except (ListenError, AddressError):
        for sock in sockets:
            stop_listening(sock)
        raise
    for sock in sockets:
        host.add_listener(sock)
        print(f"devserver: listening on {bound_address(sock)}", flush=True)


def _models(options: argparse.Namespace) -> int:
    from devserver.modelbook import as_markdown, summary

    if options.markdown:
        print(as_markdown(), end="")
        return EXIT_OK
    for kind in catalog.kinds():
        model = catalog.find(kind)
        print(f"{kind:12} version {model.version}  {summary(model)}")
    return EXIT_OK


def _positive(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0.01 and 86400 seconds")
    return value
