"""The architecture's rules, held against what the modules really import."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Modules of any size are read, never of no end: above this, one wants to be two.
MAX_LINES = 420
#: Files that may be longer, and how long.
LARGER = {"devserver/session/session.py": 480}
#: What would let a device model or the protocol do more than compute.
WORLDLY = {
    "asyncio",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
#: Small helpers that know nothing of a server.
HELPERS = ("devserver.plain", "devserver.wording")
#: The folders of the top level, and no others.
FOLDERS = {".ci", ".github", "devserver", "docs", "guests", "kvmshim", "native", "tests"}


def modules(*folders: str) -> list[Path]:
    """Every Python file below these folders of the project, relative to it."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert found, f"no modules below {folders}"
    return [path.relative_to(ROOT) for path in found]


@cache
def imports(path: Path) -> frozenset[str]:
    """The full names of the modules that a file imports, wherever in it."""
    return frozenset(_imports(ast.parse((ROOT / path).read_text(), str(path))))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if node.level == 0:  # a name may be a module: "from devserver import hotloop"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, *packages: str) -> bool:
    """Whether a module is one of these, or inside one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(paths: list[Path], *forbidden: str) -> list[str]:
    """Each import of something forbidden, for people."""
    return [
        f"{path} imports {name}"
        for path in paths
        for name in sorted(imports(path))
        if is_within(name, *forbidden)
    ]


def strangers(paths: list[Path], *allowed: str) -> list[str]:
    """Each import of a part of the server that is not among these, for people."""
    return [
        f"{path} imports {name}"
        for path in paths
        for name in sorted(imports(path))
        if name.startswith("devserver.") and not is_within(name, *allowed)
    ]


def test_the_server_knows_nothing_of_the_client() -> None:
    assert offences(modules("devserver"), "kvmshim") == []


def test_the_protocol_and_the_models_know_nothing_of_each_other() -> None:
    assert offences(modules("devserver/protocol"), "devserver.models") == []
    assert offences(modules("devserver/models"), "devserver.protocol") == []


@pytest.mark.parametrize("package", ["protocol", "models"])
def test_what_both_platforms_share_only_computes(package: str) -> None:
    """No sockets, no threads, no clock: the same code runs anywhere, in tests too."""
    assert offences(modules(f"devserver/{package}"), *WORLDLY) == []


@pytest.mark.parametrize("package", ["protocol", "models"])
def test_what_both_platforms_share_needs_no_other_part_of_a_server(package: str) -> None:
    assert strangers(modules(f"devserver/{package}"), f"devserver.{package}", *HELPERS) == []


#: It calls a function of the interpreter (PyThreadState_SetAsyncExc), which takes no structure.
INTERRUPTS = "kvmshim/vmm/local_watch.py imports ctypes"


def test_nobody_makes_system_calls_with_structures_copied_by_hand() -> None:
    """Every ioctl goes through the compiled module, where the compiler supplies the numbers."""
    everything = modules("kvmshim", "devserver", "native", "guests", "tests")
    found = [each for each in offences(everything, "fcntl", "ctypes") if each != INTERRUPTS]
    assert found == []


def test_modules_are_imported_by_their_full_names() -> None:
    paths = modules("kvmshim", "devserver")
    relative = [f"{p} imports {n}" for p in paths for n in imports(p) if n.startswith(".")]
    assert relative == []


@pytest.mark.parametrize("folder", ["kvmshim", "devserver", "native", "guests"])
def test_no_module_has_grown_beyond_what_one_reads_at_once(folder: str) -> None:
    files = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.[ch]")]
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in files
        if not {"build", "tests"} & set(path.relative_to(ROOT).parts)
    }
    assert {path: n for path, n in sizes.items() if n > LARGER.get(path, MAX_LINES)} == {}


@pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a git checkout"
)
def test_the_top_level_has_no_folder_that_the_design_does_not_know() -> None:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    folders = {line.partition("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert folders <= FOLDERS
    assert {"devserver", "docs", "guests", "kvmshim", "native", "tests"} <= folders


def test_the_rules_would_notice_an_offence() -> None:
    tree = ast.parse("import a.b\ndef f():\n    from c import d\nfrom .e import g\n")
    assert set(_imports(tree)) == {"a.b", "c", "c.d", ".e"}
    assert is_within("a.b", "a")
    assert not is_within("ab", "a")
