"""The ``devserver`` command."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from devserver import logs
from devserver.cluster.directory import ROUTES
from devserver.cluster.isolation import homes_of, isolated_hosts
from devserver.cluster.membership import JoinError, Membership
from devserver.cluster.workers import workers
from devserver.commandline.completion import add_completion
from devserver.commandline.errors import CommandError, InputError
from devserver.commandline.manual import add_help
from devserver.commandline.parser import EXIT_USAGE, Parser
from devserver.commandline.program import run_program
from devserver.commandline.streams import OutputError
from devserver.commandline.tables import print_json
from devserver.commands import vm
from devserver.deadline import end_soon
from devserver.host.device_host import DeviceHost
from devserver.identity import Identity
from devserver.machine.callers import ModelOutput
from devserver.models import catalog
from devserver.panel.default_registry import REGISTRY_VARIABLE, default_registry
from devserver.panel.launcher import PanelLauncher
from devserver.protocol.address import AddressError, parse_address
from devserver.protocol.connection import Connection, Role
from devserver.protocol.errors import ErrorCode, cut
from devserver.protocol.messages import Error
from devserver.protocol.names import MAX_NAME, BadName, check_server_name
from devserver.temporary import own_folder
from devserver.transport import ListenError, bound_address, listen_on, stop_listening
from devserver.waiting import MODEL_TIMEOUT_S, WAITS

EXIT_OK = 0
EXIT_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_program("devserver", lambda: _work(arguments), _explain)


def _work(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _explain(error: Exception) -> tuple[str, int] | None:
    if isinstance(error, AddressError | BadName | catalog.UnknownModel | InputError):
        return str(error), EXIT_USAGE
    if isinstance(error, ListenError | JoinError | CommandError | OutputError):
        return str(error), EXIT_FAILED
    return None


def parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="devserver", description="Hosts device models for virtual machines.")
    parser.add_version()
    commands = parser.commands()

    serve = commands.add_parser("serve", help="serve device models to client platforms")
    where = serve.add_mutually_exclusive_group(required=True)
    _add_listen(where)
    where.add_argument("--fd", type=int, help="serve one socket that is already connected")
    _add_serving(serve, name="devserver")
    serve.add_argument("--server-id", type=_positive, metavar="N", help="its number (default: 1)")
    serve.add_argument(
        "--route",
        choices=ROUTES,
        default="auto",
        help="how clients come to the devices of I/O servers: handed on here, or by themselves",
    )
    serve.add_argument(
        "--hosts", type=_positive, default=1, metavar="N", help="run so many device hosts"
    )
    serve.add_argument(
        "--isolate",
        action="store_true",
        help="run a device host of its own for each --model file, and for no other models",
    )
    serve.add_argument(
        "--registry",
        metavar="URL",
        default=os.environ.get(REGISTRY_VARIABLE),
        help="the control panel's database: sqlite:////FOLDER/FILE or postgresql://…",
    )
    serve.add_argument(
        "--only-registered", action="store_true", help="refuse clients that are not registered"
    )
    serve.set_defaults(run=_serve)

    host = commands.add_parser("host", help="serve device models as an I/O server of another")
    host.add_argument("--join", required=True, metavar="ADDRESS", help="the owner's address")
    _add_listen(host.add_mutually_exclusive_group(required=True))
    _add_serving(host, name="")
    host.add_argument("--advertise", metavar="ADDRESS", help="where clients reach it, if elsewhere")
    host.add_argument("--with-owner", action="store_true", help="end when the owner is gone")
    host.set_defaults(run=_host)

    panel = commands.add_parser("panel")  # what a server starts for itself
    panel.add_argument("--fd", type=int, required=True)
    panel.add_argument("--name", required=True)
    panel.add_argument("--address", required=True)
    panel.add_argument("--only-registered", action="store_true")
    panel.add_argument("--log", choices=("debug", "info", "warning", "error"), default="info")
    panel.set_defaults(run=_panel)

    vm.add_parser(commands)

    models = commands.add_parser("models", help="list the device models that can be asked for")
    models.add_argument(
        "--markdown", action="store_true", help="describe the bundled ones, with their registers"
    )
    models.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="list also the device models that this Python file defines",
    )
    models.add_json()
    models.set_defaults(run=_models)
    add_help(parser, commands)
    add_completion(parser, commands)
    return parser


def _add_listen(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="tcp://HOST:PORT (port 0: any) or unix:PATH; may be given several times",
    )


def _add_serving(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--name", default=name, help="what the server calls itself")
    parser.add_argument("--max-clients", type=_positive, default=1024, metavar="N")
    parser.add_argument(
        "--heartbeat", type=_seconds, default=5.0, help="ask a client silent for so many seconds"
    )
    parser.add_argument(
        "--deadline", type=_seconds, default=20.0, help="give it up after so many seconds"
    )
    parser.add_argument(
        "--window", type=_positive, default=4096, help="posted writes a client may have under way"
    )
    parser.add_argument(
        "--keep", type=_seconds, default=60.0, help="keep devices left behind for so many seconds"
    )
    parser.add_argument("--wait", choices=WAITS, default="adaptive")
    parser.add_argument(
        "--engine",
        choices=("native", "python"),
        default="native",
        help="the data loop: compiled, or the readable reference that it must equal",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="also serve the device models that this Python file defines",
    )
    parser.add_argument(
        "--model-timeout",
        type=_seconds,
        default=MODEL_TIMEOUT_S,
        metavar="SECONDS",
        help="a call of a model that takes longer is interrupted, and its VM ends",
    )
    parser.add_argument(
        "--log", choices=("debug", "info", "warning", "error"), default="info", help="how much"
    )


def _serve(options: argparse.Namespace) -> int:
    logs.set_up(options.log)
    _check_times(options)
    check_server_name(options.name)
    if options.hosts > 1:
        check_server_name(f"{options.name}-{options.hosts}")
    inherited = None if options.fd is None else _inherited(options.fd)
    homes = {}
    try:
        if options.isolate and inherited is None:
            homes = homes_of(options.model, options.name)
        else:
            for path in options.model:
                catalog.load_file(path)
    except catalog.UnknownModel as error:
        if inherited is None:
            raise
        with inherited:  # to the one who can say it best: the client
            refusal = Error(ErrorCode.MACHINE, cut(str(error)))
            inherited.sendall(Connection(Role.SERVER).send(refusal))
        return EXIT_FAILED
    if inherited is not None:
        host = _make_host(options, options.server_id or 1, options.route, until_idle=True)
        # A server of one VM's own lives as long as its socket; the terminal's Ctrl-C is the VM's.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.getLogger("devserver.fault").setLevel(logging.CRITICAL)  # the client says it
        host.add_client(inherited, "embedded")
        catalog.preload()  # while the client sets up its machine
        host.run()
        return EXIT_OK
    sockets = listen_on(options.listen)
    try:
        address = str(bound_address(sockets[0]))
        launcher = _panel_launcher(options, address)
        server_id = 1 if options.registry is None else _check_in(options, address)
        host = _make_host(
            options, options.server_id or server_id, options.route, panel=launcher, homes=homes
        )
        if options.registry is not None:
            host.start_panel()  # the others are to see that this one is up
    except BaseException:
        for sock in sockets:
            stop_listening(sock)
        raise
    for sock in sockets:
        host.add_listener(sock)
        print(f"devserver: listening on {bound_address(sock)}", flush=True)
    further = workers(options.hosts - 1, sockets[0], options)
    with further, isolated_hosts(homes, options.hosts + 1, sockets[0], options):
        host.run()
    return EXIT_OK


def _panel_launcher(options: argparse.Namespace, address: str) -> PanelLauncher:
    arguments = ["--log", options.log, "--name", options.name, "--address", address]
    if options.only_registered:
        arguments.append("--only-registered")
    return PanelLauncher(
        arguments, {REGISTRY_VARIABLE: options.registry or default_registry(address)}
    )


def _check_in(options: argparse.Namespace, address: str) -> int:
    """The server's number by the registry that it was given. Raises :class:`CommandError`."""
    from devserver.panel.registry.errors import RegistryError
    from devserver.panel.registry.registry import Registry

    try:
        with contextlib.closing(Registry(options.registry, options.name)) as registry:
            return registry.server_up(address)
    except RegistryError as error:
        raise CommandError(str(error)) from None


def _panel(options: argparse.Namespace) -> int:
    import asyncio

    from devserver.panel.server import PanelServer

    logs.set_up(options.log)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _inherited(options.fd) as host, own_folder("kvmshim-panel-"):
        where = (os.environ[REGISTRY_VARIABLE], options.name, options.address)
        asyncio.run(PanelServer(host, *where, options.only_registered).run())
    return EXIT_OK


def _host(options: argparse.Namespace) -> int:
    logs.set_up(options.log)
    _check_times(options)
    for path in options.model:
        catalog.load_file(path)
    parse_address(options.join)
    options.name = options.name or f"{socket.gethostname()}-{os.getpid()}"[-MAX_NAME:]
    check_server_name(options.name)
    sockets = listen_on(options.listen)
    address = options.advertise or str(bound_address(sockets[0]))
    parse_address(address)
    on_lost = (lambda: os.kill(os.getpid(), signal.SIGTERM)) if options.with_owner else None
    try:
        membership = Membership(options.join, options.name, address, on_lost)
    except OSError:
        for sock in sockets:
            stop_listening(sock)
        raise
    try:
        host = _make_host(options, membership.server_id)
        for sock in sockets:
            host.add_listener(sock)
        print(
            f"devserver: host '{options.name}' (server {membership.server_id}) listening on "
            f"{address}, joined {options.join}",
            flush=True,
        )
        host.run()
    finally:
        membership.close()
    return EXIT_OK


def _check_times(options: argparse.Namespace) -> None:
    if options.deadline <= options.heartbeat:
        raise InputError("--deadline must be longer than --heartbeat")


def _make_host(
    options: argparse.Namespace,
    server_id: int,
    route: str = "auto",
    until_idle: bool = False,
    panel: PanelLauncher | None = None,
    homes: Mapping[str, tuple[str, str]] | None = None,
) -> DeviceHost:
    identity = Identity(
        server_id=server_id,
        name=options.name,
        heartbeat_ns=int(options.heartbeat * 1e9),
        deadline_ns=int(options.deadline * 1e9),
        window=options.window,
    )
    host = DeviceHost(
        identity,
        max_clients=options.max_clients,
        wait=options.wait,
        until_idle=until_idle,
        engine=options.engine,
        keep_ns=int(options.keep * 1e9),
        route=route,
        panel=panel,
        model_timeout_s=options.model_timeout,
        homes={kind: name for kind, (name, _) in (homes or {}).items()},
    )
    sys.stdout = ModelOutput(sys.stdout)

    def stop(number: int, frame: FrameType | None) -> None:
        host.stop()
        end_soon()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return host


def _inherited(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListenError(f"descriptor {descriptor} is not a socket: {error.strerror}") from error


def _models(options: argparse.Namespace) -> int:
    from devserver.commands.model_docs import as_markdown, summary

    for path in options.model:
        catalog.load_file(path)
    if options.markdown:
        print(as_markdown(), end="")
        return EXIT_OK
    models = [catalog.find(kind) for kind in catalog.kinds()]
    if options.json:
        print_json([{"kind": m.kind, "version": m.version, "summary": summary(m)} for m in models])
        return EXIT_OK
    for model in models:
        print(f"{model.kind:12} version {model.version}  {summary(model)}")
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
