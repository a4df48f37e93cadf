"""The C code under sanitizers, against its own tests in ``native/tests``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
AT_MOST_S = 120

LINK = (
    "codec",
    "vm/control",
    "wait/spin_budget",
    "wait/shm_stream",
    "vm/lines",
    "link/lease",
    "link/link",
    "link/link_end",
    "link/link_receive",
    "link/link_send",
    "link/link_serve",
    "link/link_wait",
    "wait/spin_wait",
)
GUEST = (
    *LINK,
    "vcpu/access",
    "vcpu/coalesced",
    "vcpu/halts",
    "link/lease_use",
    "vcpu/routes",
    "vcpu/unclaimed",
)
#: Test program -> the sources that it tests.
PROGRAMS = {
    "codec_test": ("codec",),
    "serve_test": (
        "codec",
        "wait/spin_budget",
        "wait/shm_stream",
        "wait/spin_wait",
        "serve/serve",
        "serve/serve_message",
        "serve/serve_out",
        "serve/serve_turn",
        "serve/serve_wait",
    ),
    "link_test": LINK,
    "link_end_test": LINK,
    "link_busy_test": LINK,
    "shm_stream_test": ("wait/shm_stream",),
    "halts_test": ("vm/control", "vcpu/halts", "vm/lines"),
    "spin_wait_test": ("wait/spin_budget", "wait/spin_wait"),
    "lease_test": GUEST,
    "coalesced_test": (*GUEST, "vcpu/ring_poller"),
    "emulated_test": (*GUEST, "unicorn/emulated", "vcpu/irqchip", "vcpu/ring_poller", "vcpu/vcpu"),
}
MEMORY, THREADS = "address,undefined", "thread"
CASES = [(name, MEMORY) for name in PROGRAMS] + [
    (name, THREADS) for name in PROGRAMS if "link/link" in PROGRAMS[name]
]

OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command; what it says on both streams is in ``stdout``."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=AT_MOST_S,
        env={**os.environ, **OPTIONS, **environment},
    )


def gcc(sanitizer: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    flags = [
        "-std=gnu11",
        "-g",
        "-O1",
        "-pthread",
        f"-fsanitize={sanitizer}",
        "-fno-sanitize-recover=all",
        "-Wl,--wrap=ioctl",
        f"-I{NATIVE / 'src'}",
        *WARNINGS,
    ]
    return run(["gcc", *flags, *map(str, arguments)])


class Objects:
    """What the sources are compiled to, once for each sanitizer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, str], Path] = {}

    def of(self, source: str, sanitizer: str) -> Path:
        if (source, sanitizer) not in self._made:
            made = self._folder / f"{source.replace('/', '-')}-{sanitizer}.o"
            built = gcc(sanitizer, "-c", NATIVE / "src" / f"{source}.c", "-o", made)
            assert built.returncode == 0, built.stdout
            self._made[source, sanitizer] = made
        return self._made[source, sanitizer]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sanitizers that do not work here, and why."""
    folder = tmp_path_factory.mktemp("probe")
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    found = {}
    for sanitizer in (MEMORY, THREADS):
        program = folder / sanitizer
        result = gcc(sanitizer, source, "-o", program)
        if result.returncode == 0:
            result = run([str(program)])
        if result.returncode != 0:
            found[sanitizer] = result.stdout.strip().partition("\n")[0]
    return found


@pytest.mark.sanitize
@pytest.mark.parametrize(("name", "sanitizer"), CASES)
def test_the_c_code_holds_under_a_sanitizer(
    name: str, sanitizer: str, lacking: dict[str, str], objects: Objects, tmp_path: Path
) -> None:
    if sanitizer in lacking:
        pytest.skip(f"-fsanitize={sanitizer} does not work here: {lacking[sanitizer]}")
    parts = [objects.of(source, sanitizer) for source in PROGRAMS[name]]
    built = gcc(sanitizer, NATIVE / "tests" / f"{name}.c", *parts, "-o", tmp_path / name)
    assert built.returncode == 0, built.stdout
    result = run([str(tmp_path / name)])
    assert result.returncode == 0, result.stdout
    if name != "shm_stream_test" and "wait/shm_stream" in PROGRAMS[name]:
        # The same again, with bytes that go through memory.
        result = run([str(tmp_path / name)], OVER_MEMORY="1")
        assert result.returncode == 0, result.stdout


def test_every_c_test_is_run() -> None:
    assert {path.stem for path in (NATIVE / "tests").glob("*_test.c")} == set(PROGRAMS)
