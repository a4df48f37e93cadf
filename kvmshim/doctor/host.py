"""The host as the doctor sees it: a protocol, so that any host can be presented, and this host."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import resource
import stat
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kvmshim.errors import HostError, KvmshimError
from kvmshim.hypervisor.unicorn.package import library_version

if TYPE_CHECKING:
    from kvmshim.abi import Capability
    from kvmshim.doctor.report import Measurements

_HYPERVISOR_LEAF = 0x4000_0000
_HELP_TIMEOUT_S = 10.0
_NODE_KINDS = {
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "regular file",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


class Limit(Enum):
    """Resource limits of this process that guests run into (setrlimit(2))."""

    OPEN_FILES = resource.RLIMIT_NOFILE
    ADDRESS_SPACE_BYTES = resource.RLIMIT_AS


@dataclass(frozen=True)
class Node:
    """A file system node. ``device`` is its major and minor number, if it is a device."""

    kind: str
    mode: int
    owner: str
    group: str
    device: tuple[int, int] | None = None


class Kvm(Protocol):
    """An open /dev/kvm. Every method may raise :class:`KvmshimError`."""

    def api_version(self) -> int:
        """KVM_GET_API_VERSION."""

    def check(self, capability: Capability) -> int:
        """KVM_CHECK_EXTENSION: 0 if absent."""

    def measure(self) -> Measurements:
        """Runs guests and takes their time."""

    def close(self) -> None:
        """Closes it."""


class Host(Protocol):
    """What the doctor asks of a host. Paths are absolute."""

    def read(self, path: str) -> str | None:
        """A file's text without white space around it; None if it can't be read."""

    def names(self, folder: str) -> list[str]:
        """The sorted names in a folder; none if it can't be read."""

    def node(self, path: str) -> Node:
        """What ``path`` is; raises OSError."""

    def usable_cpus(self) -> int:
        """How many processors this process may use."""

    def limit(self, which: Limit) -> int | None:
        """A resource limit; None if there is none."""

    def kernel(self) -> tuple[str, str]:
        """The kernel's release and the machine's architecture (uname(2))."""

    def hypervisor_signature(self) -> str | None:
        """What CPUID leaf 40000000h says below the host's own kernel; None if unknown."""

    def unicorn_version(self) -> str | None:
        """The version of the Unicorn engine; None if it is not installed."""

    def load_native(self) -> None:
        """Loads the compiled module; raises ImportError."""

    def open_kvm(self) -> Kvm:
        """Opens /dev/kvm; raises OSError."""

    def try_server(self) -> float:
        """Starts an embedded server, shakes hands, ends it; returns seconds until it answered.

        Raises :class:`KvmshimError`.
        """


class ThisHost:
    """The host that this process runs on, or what a file tree below ``root`` says of one."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def read(self, path: str) -> str | None:
        """See :class:`Host`."""
        try:
            return self._below(path).read_text(errors="replace").strip()
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        """See :class:`Host`."""
        try:
            return sorted(os.listdir(self._below(folder)))
        except OSError:
            return []

    def node(self, path: str) -> Node:
        """See :class:`Host`."""
        status = self._below(path).stat()
        kind = stat.S_IFMT(status.st_mode)
        is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
        return Node(
            kind=_NODE_KINDS.get(kind, "unknown kind of file"),
            mode=stat.S_IMODE(status.st_mode),
            owner=_user_name(status.st_uid),
            group=_group_name(status.st_gid),
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        )

    def usable_cpus(self) -> int:
        """See :class:`Host`."""
        return len(os.sched_getaffinity(0))

    def limit(self, which: Limit) -> int | None:
        """See :class:`Host`."""
        soft, _ = resource.getrlimit(which.value)
        return None if soft == resource.RLIM_INFINITY else soft

    def kernel(self) -> tuple[str, str]:
        """See :class:`Host`."""
        name = os.uname()
        return name.release, name.machine

    def hypervisor_signature(self) -> str | None:
        """See :class:`Host`. Needs the cpuid module and usually root (cpuid(4))."""
        try:
            fd = os.open(self._below("/dev/cpu/0/cpuid"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            registers = os.pread(fd, 16, _HYPERVISOR_LEAF)
        except OSError:
            return None
        finally:
            os.close(fd)
        if len(registers) != 16:
            return None
        (signature,) = struct.unpack_from("12s", registers, 4)  # EBX, ECX, EDX
        return str(signature.rstrip(b"\0").decode("ascii", "replace").strip()) or None

    def unicorn_version(self) -> str | None:
        """See :class:`Host`."""
        return library_version()

    def load_native(self) -> None:
        """See :class:`Host`."""
        import kvmshim.abi  # noqa: F401

    def open_kvm(self) -> Kvm:
        """See :class:`Host`."""
        return _OpenKvm(str(self._below("/dev/kvm")))

    def try_server(self) -> float:
        """See :class:`Host`."""
        try:
            return _try_server()
        except KvmshimError:
            raise
        except ImportError as error:
            raise HostError(f"a Python package is not installed: {error}") from error
        except OSError as error:
            raise HostError(f"can't start the server: {error_name(error)}") from error
        except subprocess.TimeoutExpired as error:
            raise HostError(f"'python -m devserver' hangs for {_HELP_TIMEOUT_S:.0f} s") from error

    def _below(self, path: str) -> Path:
        return self._root / path.lstrip("/")


class _OpenKvm:
    """Unlike :class:`System`, it opens a device of any API version, to say which it has."""

    def __init__(self, path: str) -> None:
        from kvmshim.abi import ffi, lib

        self._path = path
        self._fd: int = lib.kvm_open(os.fsencode(path))
        if self._fd < 0:
            number = ffi.errno
            raise OSError(number, os.strerror(number), path)

    def api_version(self) -> int:
        from kvmshim import abi

        return abi.call_value(self._fd, "KVM_GET_API_VERSION", 0, self._path)

    def check(self, capability: Capability) -> int:
        from kvmshim import abi

        return abi.call_value(self._fd, "KVM_CHECK_EXTENSION", capability.number, self._path)

    def measure(self) -> Measurements:
        from kvmshim.doctor.measure import measure

        return measure(self._path)

    def close(self) -> None:
        from kvmshim.abi import lib

        lib.kvm_close(self._fd)


def _check_server_command() -> None:
    """Raises :class:`HostError` with the last words of a server that can't even print its help.

    Asked apart, because a real one has this process's standard error for its own.
    """
    done = subprocess.run(
        [sys.executable, "-m", "devserver", "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_HELP_TIMEOUT_S,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise HostError(f"'python -m devserver' fails: {words[-1]}")


def _try_server() -> float:
    from devserver.protocol.messages import Hypervisor
    from kvmshim.remote.embedded_server import ServerProcess
    from kvmshim.remote.handshake import attach

    _check_server_command()
    started_s = time.monotonic()
    with contextlib.closing(ServerProcess()) as server:
        attachment = attach(
            server.sock,
            "embedded",
            (),
            vm_name="doctor",
            vm_id=0,
            hypervisor=Hypervisor.KVM,
            memory_bytes=0,
            epoch_ns=time.time_ns(),
        )
        answered_s = time.monotonic()
        attachment.close()
    return answered_s - started_s


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def error_name(error: OSError) -> str:
    """An error's meaning and its number's name: ``Permission denied (EACCES)``."""
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    return f"{error.strerror or os.strerror(number)} ({name})"
