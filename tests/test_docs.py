"""The manuals say what the code does: every list in them is held against it, every example runs."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from commandline import environment

from devserver.commands import cli as devserver_cli
from devserver.commands.model_docs import as_markdown
from devserver.models import catalog
from kvmshim.bundled import guests
from kvmshim.commands import cli as kvmshim_cli
from kvmshim.errors import HostError, InputError, KvmError, KvmshimError, ServerError
from kvmshim.loader import ImageKind
from kvmshim.vmm import outcome

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PACKAGES = ("devserver", "kvmshim")
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
COMMANDS = {
    "kvmshim run": kvmshim_cli.main,
    "kvmshim resume": kvmshim_cli.main,
    "kvmshim bench": kvmshim_cli.main,
    "kvmshim lab": kvmshim_cli.main,
    "kvmshim doctor": kvmshim_cli.main,
    "kvmshim agent": kvmshim_cli.main,
    "kvmshim guests": kvmshim_cli.main,
    "devserver serve": devserver_cli.main,
    "devserver host": devserver_cli.main,
    "devserver models": devserver_cli.main,
}
#: The manuals of commands that are not in running.md.
MANUALS = {
    "kvmshim lab": "lab.md",
    "kvmshim agent": "panel.md",
    "devserver vm": "panel.md",
    "devserver registry": "registry.md",
}
IMPURE = {"asyncio", "select", "selectors", "socket", "threading", "time"}

#: How README.md attaches its dice.
DICE = "dice,port=0x500"
#: Reads port 500h two hundred times; status 42 if each value was from 1 to 6, else 1.
THROW_DICE = bytes.fromhex(
    "ba 00 05"  #       mov dx, 500h
    "b9 c8 00"  #       mov cx, 200
    "ec"  #       next: in al, dx
    "3c 01 72 0a"  #    cmp al, 1; jb bad
    "3c 06 77 06"  #    cmp al, 6; ja bad
    "e2 f5"  #          loop next
    "b0 2a eb 02"  #    mov al, 42; jmp end
    "b0 01"  #     bad: mov al, 1
    "e6 f4"  #     end: out 0f4h, al
    "f4"  #             hlt
)


def code_blocks(page: Path, language: str) -> list[str]:
    """The code in a page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def section(page: Path, heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    pattern = rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)"
    found = re.search(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section '{heading}'"
    return found[1]


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a text: their rows' cells, without the heads."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]
        for rows in (table.splitlines() for table in found)
    ]


def commands_shown(program: str) -> list[list[str]]:
    """The arguments of every call of a program in the pages' shell examples."""
    shown = []
    for block in (block for page in PAGES for block in code_blocks(page, "sh")):
        for part in re.split(r"[|;&\n]+", block):
            words = shlex.split(re.split(r"[<>]", part)[0], comments=True)
            words = words[1:] if words[:1] == ["sudo"] else words
            # What comes after a -- is a command of its own.
            cut = words.index("--") if "--" in words else len(words)
            for call in (words[:cut], words[cut + 1 :]):
                if call and Path(call[0]).name == program:
                    shown.append(call[1:])
    return shown


def run_python(code: str) -> None:
    """Runs code in a process of its own, as a reader would who pastes it into a file."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# -- commands -----------------------------------------------------------------------------------


@pytest.fixture
def usage(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    """The usage lines that the command of the test's parameter prints."""
    command: str = request.param
    with pytest.raises(SystemExit):
        COMMANDS[command]([command.split()[1], "--help"])
    return capsys.readouterr().out.partition("\n\n")[0]


def option_rows(command: str) -> dict[str, str]:
    """The option names in the first column of a command's table, with the whole row."""
    page = DOCS / MANUALS.get(command, "running.md")
    (options,) = (table for table in tables(section(page, command)) if len(table[0]) == 3)
    return {name: " ".join(row) for row in options for name in re.findall(r"`(--?[\w-]+)", row[0])}


@pytest.mark.parametrize(("usage", "command"), [(c, c) for c in COMMANDS], indirect=["usage"])
def test_running_lists_every_option_and_no_other(usage: str, command: str) -> None:
    short_and_long = {"-h", "--help"}
    known = set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", usage.partition("]")[2]))
    assert set(option_rows(command)) == known | short_and_long


@pytest.mark.parametrize(("usage", "command"), [(c, c) for c in COMMANDS], indirect=["usage"])
def test_running_names_every_choice_of_an_option(usage: str, command: str) -> None:
    for option, choices in re.findall(r"(--[\w-]+) \{(.*?)\}", usage):
        for choice in choices.split(","):
            assert f"`{choice}`" in option_rows(command)[option]


@pytest.mark.parametrize("program", ["kvmshim", "devserver"])
def test_every_option_in_an_example_is_listed(program: str) -> None:
    shown = commands_shown(program)
    assert shown
    for command, *arguments in shown:
        used = {word.partition("=")[0] for word in arguments if word.startswith("-")}
        assert not used or used <= set(option_rows(f"{program} {command}"))


def test_running_lists_every_exit_status() -> None:
    (rows,) = tables(section(DOCS / "running.md", "Exit statuses"))
    codes = {value for name, value in vars(outcome).items() if name.startswith("EXIT_")}
    ends = {end.value for end in outcome.Outcome if end is not outcome.Outcome.EXITED}
    assert re.findall(r"\d+", rows[0][0]) == ["0", str(outcome.MAX_GUEST_STATUS)]
    assert [int(row[0]) for row in rows[1:]] == sorted(codes | ends)


def test_running_says_which_error_has_which_status() -> None:
    text = DOCS.joinpath("running.md").read_text()
    errors = (InputError, HostError, KvmError, ServerError)
    assert all(issubclass(error, KvmshimError) for error in errors)
    assert "`InputError` (113), `HostError` and `KvmError` (114) and `ServerError` (115)" in text


def test_running_lists_every_kind_of_image_in_the_order_of_trying() -> None:
    (rows,) = tables(section(DOCS / "running.md", "What can be booted"))
    listed = [row[0].strip("`") for row in rows]
    assert set(listed) == set(ImageKind)
    assert listed[0] == ImageKind.MULTIBOOT
    assert listed[-1] == ImageKind.FLAT


@pytest.mark.kvm
def test_running_lists_every_counter() -> None:
    hello = [sys.executable, "-m", "kvmshim", "run", "hello", "--stats"]
    done = subprocess.run(
        hello, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    (rows,) = tables(section(DOCS / "running.md", "Counters"))
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    counted = set(re.findall(r'"(\w+)": \d', done.stderr.decode()))
    assert listed == counted


# -- guests and models --------------------------------------------------------------------------


def test_guests_lists_every_bundled_guest() -> None:
    rows = tables(DOCS.joinpath("guests.md").read_text())[0]
    assert sorted(row[0].strip("`") for row in rows) == sorted(guests())


def test_models_has_the_catalogue_that_the_declarations_give() -> None:
    page = DOCS.joinpath("models.md").read_text()
    marker = "<!-- devserver models --markdown -->"
    assert page.partition(marker)[2].strip() == as_markdown().strip()


@pytest.mark.parametrize("kind", catalog.BUNDLED)
def test_the_catalogue_has_every_register(kind: str) -> None:
    described = as_markdown([kind])
    runs = re.findall(r"`([A-Z]+)(\d+)` to `\1(\d+)`", described)
    named = set(re.findall(r"`(\w+)`", described))
    named |= {f"{stem}{n}" for stem, a, b in runs for n in range(int(a), int(b) + 1)}
    for region in catalog.find(kind).regions:
        assert {register.name for register in region.registers} <= named


def test_models_lists_every_option_of_a_bundled_model() -> None:
    rows = tables(section(DOCS / "models.md", "The bundled models"))[0]
    options = [
        (kind, field.name, _in_words(field.default))
        for kind in sorted(catalog.BUNDLED)
        for field in dataclasses.fields(catalog.find(kind).Options)
    ]
    assert [tuple(cell.strip("`") for cell in row[:3]) for row in rows] == options


# -- examples -----------------------------------------------------------------------------------


def _in_words(default: object) -> str:
    """A default as the manual has it; an empty table is none."""
    return "none" if default is dataclasses.MISSING else str(default).lower()


def test_the_examples_of_models_run_from_top_to_bottom() -> None:
    run_python("".join(code_blocks(DOCS / "models.md", "python")))


@pytest.mark.kvm
def test_the_examples_of_running_run_from_top_to_bottom() -> None:
    run_python("".join(code_blocks(DOCS / "running.md", "python")))


@pytest.mark.kvm
def test_the_example_of_api_runs() -> None:
    run_python("".join(code_blocks(DOCS / "api.md", "python")))


@pytest.mark.parametrize("package", ["kvmshim", "devserver.models"])
def test_api_lists_everything_that_is_public(package: str) -> None:
    page = (DOCS / "api.md").read_text()
    section = page.split(f"## `{package}`")[1].split("\n## ")[0]
    listed = set(re.findall(r"`(\w+)[`(]", section))
    assert set(import_module(package).__all__) - listed == set()


def test_the_readmes_dice_roll_from_one_to_six_and_can_be_seeded() -> None:
    (dice,) = code_blocks(README, "python")
    trial = """
        die = Dice()
        first = [die.read("io", 0, 1, now_ns=0) for _ in range(100)]
        die.write("io", 1, 1, 1, now_ns=0)
        assert [die.read("io", 0, 1, now_ns=0) for _ in range(100)] == first
        assert set(first) == set(range(1, 7))
    """
    run_python(dice + textwrap.dedent(trial))


def test_models_begins_with_the_readmes_dice() -> None:
    assert code_blocks(DOCS / "models.md", "python")[0] == code_blocks(README, "python")[0]


@pytest.mark.kvm
@pytest.mark.parametrize("placement", ["server", "local"])
def test_a_guest_throws_the_readmes_dice(tmp_path: Path, placement: str) -> None:
    (dice,) = code_blocks(README, "python")
    tmp_path.joinpath("dice.py").write_text(dice)
    tmp_path.joinpath("guest.bin").write_bytes(THROW_DICE)
    (arguments,) = {tuple(call) for call in commands_shown("kvmshim") if call[-1:] == [DICE]}
    done = subprocess.run(
        [sys.executable, "-m", "kvmshim", *arguments, "--placement", placement],
        env=environment(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (42, b"")


# -- pages --------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have as link targets."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_readme_leads_to_every_manual() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text()))
    assert linked == {page.name for page in DOCS.glob("*.md")}


def test_every_file_that_the_pages_name_is_there() -> None:
    for page in PAGES:
        named = re.findall(
            r"`((?:devserver|kvmshim|native|guests|tests)/[\w/.-]+)`", page.read_text()
        )
        assert [name for name in named if not ROOT.joinpath(name).exists()] == [], page.name


# -- imports ------------------------------------------------------------------------------------


def modules(folder: str) -> list[Path]:
    return sorted(ROOT.joinpath(folder).rglob("*.py"))


def imports(module: Path) -> Iterator[str]:
    """The full names of what a module imports, also late or for type checking only."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    """The dotted name of a module's file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floors() -> dict[str, tuple[int, str]]:
    """The rooms and modules of the architecture's table: each one's floor and package."""
    rules = tables(section(DOCS / "architecture.md", "The tree"))[1]
    names = [
        (int(row[0]), name) for row in rules for name in re.findall(r"`([\w.]+)`", "".join(row))
    ]
    return {name: (floor, name.partition(".")[0]) for floor, name in names}


def shared_with_the_client() -> set[str]:
    """What the architecture lets the client import of the server."""
    text = section(DOCS / "architecture.md", "The tree")
    found = re.search(r"may also import, of the server, (.*?);", text, re.DOTALL)
    assert found is not None
    return set(re.findall(r"`([\w.]+)`", found[1]))


def room_of(name: str, rooms: Iterable[str]) -> str | None:
    """The room that a module is in, or the module itself where it stands alone."""
    return next((room for room in rooms if f"{name}.".startswith(f"{room}.")), None)


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_only_what_stands_below_them(package: str) -> None:
    plan, shared = floors(), shared_with_the_client()
    for path in modules(package):
        if (module := module_name(path)) == package:
            continue  # the public face may show anything
        here = room_of(module, plan)
        assert here is not None, f"{module} has no floor in docs/architecture.md"
        for name in imports(path):
            there = room_of(name, plan)
            if there is None or there == here:
                assert there or name.partition(".")[0] not in PACKAGES, (path, name)
            elif plan[there][1] == package:
                assert plan[there][0] < plan[here][0], f"{path} imports {name}, not below it"
            else:
                assert package == "kvmshim", f"{path} imports {name}"
                assert there in shared, f"{path} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = {module_name(path): path for package in PACKAGES for path in modules(package)}
    sorter = TopologicalSorter(
        {
            name: set(modules_among(imports(path), paths)) - {name, *PACKAGES}
            for name, path in paths.items()
            if name not in PACKAGES
        }
    )
    sorter.prepare()  # raises CycleError, with the circle


def modules_among(names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """The modules that these names are, or are names in."""
    for name in names:
        module = name if name in known else name.rpartition(".")[0]
        if module in known:
            yield module


@pytest.mark.parametrize("folder", ["devserver/protocol", "devserver/models"])
def test_protocol_and_models_know_neither_sockets_nor_threads_nor_time(folder: str) -> None:
    for module in modules(folder):
        assert IMPURE.isdisjoint(name.partition(".")[0] for name in imports(module)), module


def test_fcntl_is_imported_nowhere() -> None:
    for module in [*modules("devserver"), *modules("kvmshim")]:
        assert "fcntl" not in imports(module)
