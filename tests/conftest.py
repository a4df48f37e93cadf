"""What a host must offer for each marker's tests, and a check that CI really ran the KVM tests.

A ``requires_<marker>`` function returns why this host cannot run the tests of that marker, or None.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings
from ownpostgres import PostgreSql, postgresql

# No test asserts a time: on a busy host an example takes as long as it takes.
settings.register_profile("kvmshim", deadline=None)
settings.load_profile("kvmshim")

# A shell starts what runs in its background with these ignored, and every command started by a test
# would inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        _is_interrupt = _number == signal.SIGINT
        signal.signal(_number, signal.default_int_handler if _is_interrupt else signal.SIG_DFL)

KVM = Path("/dev/kvm")
QEMU_BINARIES = ("qemu-system-x86_64", "qemu-system-i386")


@cache
def requires_kvm() -> str | None:
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{KVM} cannot be opened: {errno.errorcode[error.errno or 0]}"
    return None


@cache
def requires_netns() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is not installed"
    name = f"kvmshim-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"ip netns add failed: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return None


@cache
def requires_qemu() -> str | None:
    if any(shutil.which(binary) for binary in QEMU_BINARIES):
        return None
    return f"neither {' nor '.join(QEMU_BINARIES)} is installed"


@cache
def requires_postgresql() -> str | None:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return "PostgreSQL (Debian's postgresql) is not installed"
    return None if os.geteuid() == 0 else "starting PostgreSQL as its own user needs root"


@cache
def requires_sanitize() -> str | None:
    return None if shutil.which("gcc") else "gcc is not installed"


@cache
def requires_unicorn() -> str | None:
    return None if find_spec("unicorn") else "the package unicorn is not installed"


@pytest.fixture(scope="session")
def own_postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL for the tests that are marked so."""
    with postgresql() as running:
        yield running


REQUIREMENTS: dict[str, Callable[[], str | None]] = {
    "kvm": requires_kvm,
    "netns": requires_netns,
    "qemu": requires_qemu,
    "postgresql": requires_postgresql,
    "sanitize": requires_sanitize,
    "unicorn": requires_unicorn,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, requires in REQUIREMENTS.items():
        lack = requires() if item.get_closest_marker(marker) else None
        if lack is None:
            continue
        if marker == "kvm" and os.environ.get("KVMSHIM_REQUIRE_KVM") == "1" and KVM.exists():
            pytest.fail(f"{lack}, and KVMSHIM_REQUIRE_KVM=1 demands it", pytrace=False)
        pytest.skip(lack)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.option.markexpr:
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if item not in soaks]


class KvmTally:
    """Counts the KVM tests that ran; in CI a host with KVM on which they did not is a failure."""

    def __init__(self) -> None:
        self.seen = False
        self.ran: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of every test, also of those that another process runs for this one."""
        if "kvm" not in report.keywords:
            return
        self.seen = True
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.add(report.nodeid)
        elif report.when == "call":
            self.ran.add(report.nodeid)

    @property
    def failure(self) -> str | None:
        """Why this run must not pass, if so."""
        if os.environ.get("CI") != "true" or not KVM.exists() or not self.seen:
            return None
        if self.skipped and requires_kvm():
            return f"{KVM} exists, but KVM tests were skipped: {requires_kvm()}"
        return None if self.ran else f"{KVM} exists, but no KVM test ran"

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.failure and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_line(f"KVM tests: {len(self.ran)} ran, {len(self.skipped)} skipped")
        if self.failure:
            terminalreporter.write_line(f"FAILED: {self.failure}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="kvmshim-tests-")  # not the user's own
    config.pluginmanager.register(KvmTally(), "kvm-tally")
