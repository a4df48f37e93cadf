"""The machine that the benchmark's guests run on, with its policies, and the servers for it."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from kvmshim.bench.guest import Trace
from kvmshim.errors import HostError, ServerError
from kvmshim.loader import BootPlan
from kvmshim.machinefile import MachineSpec, default_machine
from kvmshim.machinefile.spec import PLACED_LOCALLY
from kvmshim.remote.link import WaitPolicy
from kvmshim.vmm.cores import choose
from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome

#: Every access waits for its answer.
STRICT = "strict"
#: What the models declare.
DECLARED = "declared"
#: The devices are in the client's process.
LOCAL = "local"

#: On the I/O server of a server that relays.
BEHIND_RELAY = "server/hop"

_ALL_STRICT = {"*": "finish+asked"}
_LISTENING = "devserver: listening on "
_TIMEOUT_S = 600.0


def machine_spec(
    policy: str = DECLARED,
    overrides: Mapping[str, Mapping[str, str]] | None = None,
    places: Mapping[str, str] | None = None,
) -> MachineSpec:
    """A PC under a policy; ``overrides`` are policies of registers by the device's name, ``places``
    are placements."""
    spec = default_machine()
    wanted = overrides or {}
    devices = []
    for device in spec.devices:
        if policy == LOCAL:
            device = dataclasses.replace(device, placement=PLACED_LOCALLY)
        policies = _ALL_STRICT if policy == STRICT else wanted.get(device.wiring.name)
        if policies is not None:
            wiring = dataclasses.replace(device.wiring, policies=dict(policies))
            device = dataclasses.replace(device, wiring=wiring)
        if device.wiring.name in (places or {}):
            device = dataclasses.replace(device, placement=(places or {})[device.wiring.name])
        devices.append(device)
    return dataclasses.replace(spec, devices=tuple(devices))


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a guest's devices are and how both ends wait.

    ``server`` is an address; None starts one of the VM's own over a Unix socket. ``share``: bytes
    go through memory where they can.
    """

    server: str | None = None
    wait: str = "adaptive"
    cores: str = "any"
    share: bool = True

    def run(self, spec: MachineSpec, plan: BootPlan, room: int) -> Trace:
        """Runs a guest to its end; its exits, as long as there is ``room``."""
        wait = WaitPolicy(self.wait, cores=self.cores, share=self.share)
        with Machine(spec, plan, server=self.server, wait=wait) as machine:
            result = machine.run(timeout_s=_TIMEOUT_S, trace_exits=room)
        if result.outcome is not Outcome.EXITED:
            raise HostError(f"the benchmark's guest did not end well: {result.message}")
        return result.trace


@contextlib.contextmanager
def serving(
    listen: str, wait: str = "adaptive", cores: str = "any", *options: str
) -> Iterator[tuple[str, int]]:
    """A server while it lasts; gives its address and process."""
    with _started(("serve", "--listen", listen, *options), wait, cores) as (line, pid):
        yield line.removeprefix(_LISTENING), pid


@contextlib.contextmanager
def _started(command: Sequence[str], wait: str, cores: str) -> Iterator[tuple[str, int]]:
    """A server while it lasts; the line that it says at its start, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "devserver", *command, "--log", "error", "--wait", wait],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("devserver: "):
            raise ServerError("the benchmark's server did not start; see its message above")
        choose(cores, wait, embedded=True).bind_server(process.pid)
        yield line.strip(), process.pid
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def place_for(given: str | None, transport: str, wait: str, cores: str) -> Iterator[Place]:
    """Where to run a guest for a row: on the server at the ``given`` address, or else on one that
    lasts no longer, as one that spins would cost the other rows a core."""
    if given is not None:
        yield Place(given, wait, cores)
    elif transport != "tcp":
        yield Place(None, wait, cores, share=transport == "unix")
    else:
        with serving("tcp://127.0.0.1:0", wait, cores) as (address, _):
            yield Place(address, wait, cores)


@contextlib.contextmanager
def relayed_place_for(transport: str, wait: str, cores: str) -> Iterator[Place]:
    """The same, on a server that relays to an I/O server."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmshim-bench-"))
        listen = "tcp://127.0.0.1:0" if transport == "tcp" else f"unix:{folder}/socket"
        owner, _ = stack.enter_context(serving(listen, wait, cores, "--route", "relay"))
        join = ("host", "--join", owner, "--listen", f"unix:{folder}/hop", "--name", "hop")
        stack.enter_context(_started(join, wait, cores))
        yield Place(owner, wait, cores)


def allow_descriptors(wanted: int) -> None:
    """Lets this process, and those that it starts, open so many files, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
