"""Network namespaces for a client and its servers, with a veth pair from the client to each.

Nothing of it is visible in the namespace of whoever builds it: a pair is made with its two ends in
their namespaces already, and a namespace that is removed takes its interfaces with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns
from pyroute2.netlink.exceptions import NetlinkError

from kvmshim.errors import HostError

MAX_SERVERS = 64

_PREFIX = "kvmshim-lab"
_NAME = re.compile(rf"{_PREFIX}-(\d+)-(\d+)-(?:client|server\d+)")
_RUN = Path("/run/netns")
_PREFIX_LENGTH = 30  # two hosts on each link
#: Packets that netem may hold for each direction.
_NETEM_LIMIT = 100_000
_END_TIMEOUT_S = 5.0
_END_ROUNDS = 10


class Network:
    """The namespaces of the lab of this process."""

    def __init__(self, servers: int) -> None:
        """A network for so many servers; :meth:`build` makes it."""
        owner = f"{_PREFIX}-{os.getpid()}-{_start_time(os.getpid())}"
        self.client = f"{owner}-client"
        self.servers = tuple(f"{owner}-server{n}" for n in range(1, servers + 1))

    @staticmethod
    def host_of(server: int) -> str:
        """The IPv4 address of the server with that index, from 0."""
        return f"10.77.{server + 1}.2"

    def build(self) -> None:
        """Makes namespaces and links; raises HostError."""
        try:
            for name in (self.client, *self.servers):
                netns.create(name)
                with NetNS(name) as space:
                    space.link("set", index=_index(space, "lo"), state="up")
            for number, name in enumerate(self.servers):
                self._link(number, name)
        except (NetlinkError, OSError) as error:
            raise HostError(f"can't build the lab's network: {_reason(error)}") from error

    def _link(self, number: int, name: str) -> None:
        interface = f"server{number + 1}"
        with IPRoute() as route:
            route.link(
                "add",
                ifname=interface,
                kind="veth",
                net_ns_fd=self.client,
                peer={"ifname": "client", "net_ns_fd": name},
            )
        host = self.host_of(number)
        ends = ((self.client, interface, host[:-1] + "1"), (name, "client", host))
        for space_name, end, address in ends:
            with NetNS(space_name) as space:
                index = _index(space, end)
                space.addr("add", index=index, address=address, prefixlen=_PREFIX_LENGTH)
                space.link("set", index=index, state="up")

    def shape(self, rtt_ns: int, loss: float) -> bool:
        """Makes the kernel delay and lose packets; False where it has no netem. Raises HostError.

        Each direction delays by half of ``rtt_ns`` and loses the share ``loss``.
        """
        try:
            for number, name in enumerate(self.servers):
                for space_name, end in ((self.client, f"server{number + 1}"), (name, "client")):
                    _add_netem(space_name, end, -(-rtt_ns // 2000), loss)
        except (NetlinkError, OSError) as error:
            # A kernel without the module says that there is no such thing as netem.
            if isinstance(error, NetlinkError) and error.code == errno.ENOENT:
                return False
            raise HostError(f"can't delay the lab's links: {_reason(error)}") from error
        return True

    def close(self) -> None:
        """Ends every process in the namespaces and removes them, as many as there are."""
        _remove([name for name in (self.client, *self.servers) if (_RUN / name).exists()])


def remove_leftovers() -> None:
    """Removes the namespaces, with all processes in them, of labs whose process has gone."""
    here = _identity(Path("/proc/self/ns/net"))  # perhaps a lab's, that was killed around us
    dead = (name for name in _existing() if not _is_owned(name))
    _remove([name for name in dead if _identity(_RUN / name) != here])


def _existing() -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        yield from (path.name for path in _RUN.iterdir() if _NAME.fullmatch(path.name))


def _is_owned(name: str) -> bool:
    """Whether the process that made a namespace runs: one with the same number and start."""
    found = _NAME.fullmatch(name)
    return found is not None and _start_time(int(found[1])) == int(found[2])


def _start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _index(space: NetNS, interface: str) -> int:
    index: int = space.link_lookup(ifname=interface)[0]
    return index


def _add_netem(space_name: str, interface: str, delay_us: int, loss: float) -> None:
    with NetNS(space_name) as space:
        index = _index(space, interface)
        space.tc("add", "netem", index, delay=delay_us, loss=loss * 100, limit=_NETEM_LIMIT)


def _remove(names: Sequence[str]) -> None:
    for _ in range(_END_ROUNDS):  # what was started while others were ended comes next
        inside = list(_processes_in(names))
        if not inside:
            break
        for descriptor in inside:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for descriptor in inside:
            select.select([descriptor], [], [], _END_TIMEOUT_S)
            os.close(descriptor)
    for name in names:
        with contextlib.suppress(OSError):  # another lab removes the same leftovers
            netns.remove(name)


def _processes_in(names: Sequence[str]) -> Iterator[int]:
    """A descriptor for each process in the named namespaces; the caller closes it."""
    with contextlib.ExitStack() as held:
        wanted = set()
        for name in names:
            with contextlib.suppress(OSError):  # another lab has removed it
                # While it is open its number can't come to mean another namespace.
                space = os.open(_RUN / name, os.O_RDONLY | os.O_CLOEXEC)
                held.callback(os.close, space)
                wanted.add(_numbers(os.fstat(space)))
        for entry in Path("/proc").iterdir() if wanted else ():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it has ended since
                descriptor = os.pidfd_open(int(entry.name))
                # Looked at only now that the number can't come to mean another process.
                if _identity(entry / "ns/net") in wanted:
                    yield descriptor
                else:
                    os.close(descriptor)


def _numbers(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _identity(namespace: Path) -> tuple[int, int] | None:
    try:
        found = namespace.stat()
    except OSError:  # it has gone, or its process has ended
        return None
    return _numbers(found)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
