"""``kvmshim run``: boots a guest and is its terminal."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from devserver.commandline.parser import Parser
from devserver.commandline.server import server_of
from devserver.waiting import MODEL_TIMEOUT_S
from kvmshim import termination
from kvmshim.commands import suspending
from kvmshim.commands.output import Output
from kvmshim.commands.reporting import report, tell_reasons, told
from kvmshim.remote.embedded_server import ServerProcess
from kvmshim.vmm.outcome import Outcome

if TYPE_CHECKING:
    from kvmshim.vmm.machine import Machine
    from kvmshim.vmm.outcome import RunResult

#: So much after --timeout the process ends, whatever holds it up.
_TIMEOUT_GRACE_S = 2.0

_EPILOG = """\
exit status: the guest's own (what it wrote to port f4h) up to 111; 112 if that was larger;
113 bad input; 114 the host lacks something (see 'kvmshim doctor'); 115 server unreachable or
refusing; 116 server lost; 117 guest crashed; 118 guest halted for good; 119 device model failed;
120 guest reset the machine; 121 suspended to a file; 124 --timeout is over; 130 stopped by Ctrl-C
or the escape key.
On a terminal, Ctrl-] ends the guest.
"""


def add_parser(commands: Any) -> None:
    """Declares the command."""
    parser = commands.add_parser(
        "run",
        help="boot a guest",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", metavar="GUEST", help="a bundled guest's name, an image, or a machine file (.toml)"
    )
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="device server, tcp://HOST:PORT or unix:PATH "
        "(default: KVMSHIM_SERVER if that is set, else one of this VM's own)",
    )
    parser.add_argument(
        "--irqchip",
        choices=("kernel", "remote"),
        help="where the interrupt controllers are: in KVM, or a device on the server",
    )
    parser.add_argument(
        "--hypervisor",
        metavar="KIND",
        help="what runs the guest's processor: kvm (default), or unicorn, which emulates it",
    )
    parser.add_argument("--memory", metavar="SIZE", help="such as 16M")
    parser.add_argument(
        "--kind",
        choices=(
            *(
                "flat",
                "boot-sector",
                "rom",
                "elf32",
                "elf64",
                "multiboot",
                "multiboot2",
                "flat32",
                "flat64",
            ),
        ),
        help="what the image is, if it can't tell by itself",
    )
    parser.add_argument("--load-address", metavar="ADDRESS", help="of a flat image")
    parser.add_argument("--entry", metavar="ADDRESS", help="of a flat image")
    parser.add_argument("--append", default="", metavar="TEXT", help="multiboot command line")
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="FILE[,TEXT]",
        help="a file that a multiboot kernel is handed, and its command line",
    )
    parser.add_argument("--bios", action=argparse.BooleanOptionalAction, help="boot through it")
    parser.add_argument(
        "--screen",
        action=argparse.BooleanOptionalAction,
        help="the BIOS shows positions and colours, as control sequences (default: on a terminal)",
    )
    parser.add_argument(
        "--disk-writes",
        action=argparse.BooleanOptionalAction,
        help="what the guest writes to its disk goes into the image file when the run ends",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE.py",
        help="make this file's device models known to the embedded server",
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="KIND,port=N|mem=N[,irq=N][,name=TEXT][,placement=PLACE]",
        help="add a device to the machine",
    )
    parser.add_argument(
        "--fw-cfg",
        action="append",
        default=[],
        metavar="NAME,file=PATH|string=TEXT",
        help="a file that the guest finds in the device fw_cfg",
    )
    parser.add_argument(
        "--placement", metavar="PLACE", help="where all devices run: server (default) or local"
    )
    parser.add_argument(
        "--policy",
        choices=("declared", "strict"),
        default="declared",
        help="which accesses wait for the server: those that models and machine file say, or all",
    )
    add_common(parser)
    suspending.add_options(parser)
    parser.set_defaults(run=run)


def add_common(parser: Parser) -> None:
    """Adds the options of every command that runs a guest."""
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end the guest then")
    parser.add_argument("--wait", choices=("adaptive", "spin", "block"), default="adaptive")
    parser.add_argument(
        "--cores",
        choices=("auto", "any", "same", "apart"),
        default="auto",
        help="where the virtual CPU and its own server run",
    )
    add_sharing(parser)
    add_model_timeout(parser)
    parser.add_argument("--stats", action="store_true", help="print counters as JSON at the end")
    parser.add_json("say how it ended as a JSON object, in the last line of standard error")


def add_model_timeout(parser: argparse.ArgumentParser) -> None:
    """Adds the option of every command that has devices of its own."""
    parser.add_argument(
        "--model-timeout",
        type=_seconds,
        default=MODEL_TIMEOUT_S,
        metavar="SECONDS",
        help="end the guest if a device model of its own takes longer for one access",
    )


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Adds the option of every command that has links to servers."""
    parser.add_argument(
        "--no-shared-memory",
        dest="share",
        action="store_false",
        help="send everything through the socket, also to a server on this machine",
    )


def run(options: argparse.Namespace) -> int:
    """Boots the guest; returns the exit status."""
    return told(lambda: _boot(options), as_json=options.json)


def _boot(options: argparse.Namespace) -> int:
    options.server = server_of(options.server)
    suspending.check_options(options)
    with contextlib.ExitStack() as stack:
        process = None
        if options.server is None and options.placement != "local":
            # Most likely wanted, and as slow to start as all that follows here: so do it first.
            models = [*options.model, *models_of(options.what)]
            process = ServerProcess(models, options.wait, options.model_timeout)
            stack.callback(process.close)
        from kvmshim.vmm.assemble import assemble

        return run_to_the_end(stack.enter_context(assemble(options, process)), options)


def models_of(what: str) -> tuple[str, ...]:
    """The files of device models that a machine file names."""
    if not what.endswith(".toml"):
        return ()
    from kvmshim.machinefile import load_machine

    return load_machine(what).models


def run_to_the_end(machine: Machine, options: argparse.Namespace) -> int:
    """Runs a machine at the terminal until it ends or is suspended; the exit status."""
    if machine.notice:
        print(f"kvmshim: {machine.notice}", file=sys.stderr)
    with _clock(options.timeout):
        with termination.asking(machine.stop), suspending.pausing(machine, options):
            result = _run(machine, options.timeout)
        if termination.is_interrupted():
            tell_reasons(result)
        termination.check()
        if options.suspend_to is not None:
            result = suspending.suspended(machine, result, options.suspend_to)
        machine.close()  # before the last words: nothing is left running then
        report(result, stats=options.stats, as_json=options.json)
    return result.exit_status


def _clock(timeout_s: float | None) -> contextlib.AbstractContextManager[None]:
    """Ends even what a run's own timeout can't: a model or a stream that holds up everything."""
    if timeout_s is None:
        return contextlib.nullcontext()
    words = (
        f"kvmshim: the guest did not end within {timeout_s:g} s, and could not be stopped: "
        "a device in this process does not return, or nobody reads this"
    )
    return termination.at_latest(timeout_s + _TIMEOUT_GRACE_S, Outcome.TIMED_OUT.value, words)


def _run(machine: Machine, timeout_s: float | None) -> RunResult:
    end_s = None if timeout_s is None else time.monotonic() + timeout_s

    def gives_up() -> bool:
        return machine.is_stopping or (end_s is not None and time.monotonic() > end_s)

    with Output(gives_up, machine.stop) as output:
        result = _run_at_terminal(machine, timeout_s, output)
        output.finish()
    if output.lost and result.outcome is Outcome.EXITED:
        why = f"the guest ended, but nobody read the last {output.lost} bytes of its output"
        return dataclasses.replace(result, outcome=Outcome.TIMED_OUT, message=f"{why} in time")
    return result


def _run_at_terminal(machine: Machine, timeout_s: float | None, to: Output) -> RunResult:
    from kvmshim.commands import terminal

    fd = sys.stdin.fileno() if sys.stdin is not None else None
    on_terminal = fd is not None and os.isatty(fd)
    console = machine.console()
    shown = {device.name for _, device in machine.devices() if not device.feeds} | {console}

    def output(device: str, channel: str, data: bytes) -> None:
        if channel == "tx" and device in shown:
            to.write(data)

    with contextlib.ExitStack() as stack:
        if fd is not None and on_terminal and console:
            print(f"kvmshim: {terminal.ESCAPE_NAME} ends the guest", file=sys.stderr)
            stack.enter_context(terminal.raw(fd))
        return machine.run(
            timeout_s=timeout_s,
            input_fd=fd,
            output=output,
            on_input=terminal.until_escape if on_terminal else None,
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value
