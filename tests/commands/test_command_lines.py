"""What the command lines of both programs have in common, word for word and stream for stream."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import AT_MOST_S, ROOT, command, environment, start
from commandline import devserver as devserver_at

import devserver
import kvmshim
from devserver.commandline.parser import Parser
from devserver.commands import cli as devserver_cli
from kvmshim.commands import cli as kvmshim_cli

PROGRAMS = {"kvmshim": kvmshim_cli.parser(), "devserver": devserver_cli.parser()}
USAGE = 113


def complaint(capsys: pytest.CaptureFixture[str], words: str) -> str:
    """The one line that a wrong command line gets."""
    program, *arguments = words.split()
    with pytest.raises(SystemExit) as end:
        PROGRAMS[program].parse_args(arguments)
    said = capsys.readouterr()
    assert (end.value.code, said.out, said.err.count("\n")) == (USAGE, "", 1)
    return said.err.rstrip()


def every_parser(parser: Parser) -> Iterator[Parser]:
    yield parser
    for name in parser.children():
        child = parser.child([name])
        assert child is not None
        yield from every_parser(child)


ALL = [parser for program in PROGRAMS.values() for parser in every_parser(program)]


@pytest.mark.parametrize(
    ("words", "hint", "help_of"),
    [
        ("kvmshim rnu", "did you mean 'run'?", "kvmshim"),
        ("kvmshim run hello --sever x", "did you mean '--server'?", "kvmshim run"),
        ("kvmshim run --timout=3", "did you mean '--timeout'?", "kvmshim run"),
        ("kvmshim --timeout 3 run hello", "it is an option of 'kvmshim run'", "kvmshim"),
        ("kvmshim run hello --wait adaptiv", "did you mean 'adaptive'?", "kvmshim run"),
        ("kvmshim doctor --jsn", "did you mean '--json'?", "kvmshim doctor"),
        ("kvmshim lab --servrs 2", "did you mean '--servers'?", "kvmshim lab"),
        ("devserver serv --listen unix:x", "did you mean 'serve'?", "devserver"),
        ("devserver serve --lissten unix:x", "did you mean '--listen'?", "devserver serve"),
        ("devserver vm lst", "did you mean 'list'?", "devserver vm"),
        ("devserver vm --server x list", "it is an option of", "devserver vm"),
        ("devserver vm list --serber x", "did you mean '--server'?", "devserver vm list"),
        ("devserver vm show", "arguments are required: vm", "devserver vm show"),
        ("devserver vm list one", "unrecognized arguments: one", "devserver vm list"),
        ("devserver registry upgade", "did you mean 'upgrade'?", "devserver registry"),
    ],
)
def test_a_wrong_word_has_the_right_one_and_the_right_help(
    words: str, hint: str, help_of: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(capsys, words)
    assert line.startswith(f"{help_of}: ")
    assert hint in line
    assert line.endswith(f"see '{help_of} --help'")


@pytest.mark.parametrize("parser", ALL, ids=lambda parser: parser.prog)
def test_every_option_of_every_command_is_suggested(
    parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in [word for word in parser._option_string_actions if word.startswith("--")]:
        wrong = f"{option[:-1]}{option[-1]}x"
        line = complaint(capsys, f"{parser.prog} {wrong}")
        assert line.startswith(f"{parser.prog}: unrecognized arguments: {wrong}")
        assert re.search(r"did you mean '--|it is an option of", line), line


def test_a_value_that_begins_with_a_dash_is_no_misspelt_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "--append: expected one argument" in complaint(capsys, "kvmshim run hello --append -x")
    given = PROGRAMS["kvmshim"].parse_args(["lab", "--", "bash", "--norc"])
    assert given.command == ["bash", "--norc"]


def test_a_command_that_is_not_for_people_is_not_suggested(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "panel" not in complaint(capsys, "devserver pane").partition("(")[2]


# -- version ------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_programs_tell_their_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        PROGRAMS[program].parse_args(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{program} {kvmshim.__version__}\n"


def test_the_version_stands_in_one_place() -> None:
    assert devserver.__version__ == kvmshim.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", kvmshim.__version__)
    project = ROOT.joinpath("pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert 'path = "devserver/version.py"' in project


# -- streams ------------------------------------------------------------------------------------

#: Commands that print something, whatever there is around them.
PRINTING = [
    "kvmshim --help",
    "kvmshim --version",
    "kvmshim guests",
    "kvmshim guests --json",
    "kvmshim run --help",
    "kvmshim doctor",
    "devserver --help",
    "devserver models",
    "devserver models --json",
    "devserver models --markdown",
    "devserver vm --help",
]


#: A pipe that stays empty and open.
SILENT, _KEPT_OPEN = os.pipe()


def run(words: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command, with an input in which nothing comes."""
    program, *arguments = words.split()
    quoted = " ".join(command(*arguments, program=program))
    return subprocess.run(
        ["sh", "-c", f"exec {quoted} {redirection}"],
        stdin=SILENT,
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        env=environment(),
        cwd="/",
    )


@pytest.mark.process
@pytest.mark.parametrize("words", PRINTING)
@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
    ids=["closed", "full"],
)
def test_output_that_can_not_be_written_is_told(words: str, redirection: str, why: str) -> None:
    done = run(words, redirection)
    program = words.split()[0]
    assert done.stderr == f"{program}: can't write to standard output: {why}\n"
    assert done.returncode == {"kvmshim": 114, "devserver": 1}[program]


@pytest.mark.process
@pytest.mark.parametrize("words", PRINTING)
def test_output_that_nobody_reads_ends_a_command_quietly(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program, *arguments = words.split()
    process = start(command(*arguments, program=program), stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=AT_MOST_S)[1] == b""
    assert process.returncode == 141


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "can't read machine file"),
        (b"\xff", "is not UTF-8 text"),
        (b"[image", "is not valid TOML"),
        (b"", "names no image; add an [image] table with a path"),
        (b"[image]\nguest = 'hello'\n", "names no image"),
        (b"[image]\npath = 'helo'\n", "did you mean 'hello'?"),
        (b"[image]\npath = 'no/hello'\n", "'kvmshim guests --json' says where the bundled guests"),
        (b"[image]\npath = '/dev/zero'\n", "it is not a regular file"),
    ],
)
def test_a_machine_file_that_can_not_be_sent_is_told(
    text: bytes | None, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "machine.toml"
    if text is not None:
        path.write_bytes(text)
    with devserver_at(f"unix:{tmp_path}/server"):
        done = run(f"devserver vm launch {path} --server unix:{tmp_path}/server")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (113, "", 1)
    assert why in done.stderr
    assert str(path) in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("words", ["kvmshim guests", "devserver models"])
def test_a_command_needs_neither_input_nor_error_output(words: str) -> None:
    whole = run(words)
    bare = run(words, "<&- 2>&-")
    assert (bare.returncode, bare.stdout) == (0, whole.stdout)


@pytest.mark.kvm
@pytest.mark.process
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_a_guest_whose_output_can_not_be_written_is_ended(redirection: str) -> None:
    done = run("kvmshim run hello", redirection)
    assert done.returncode == 114
    assert done.stderr.startswith("kvmshim: can't write to standard output: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.kvm
@pytest.mark.process
def test_a_guest_can_run_with_all_other_streams_closed() -> None:
    assert run("kvmshim run hello", "<&- 2>&-").stdout.startswith("Hello")


@pytest.mark.process
@pytest.mark.parametrize(
    "words",
    [
        "kvmshim run",
        "kvmshim resume",
        "kvmshim run hello --model",
        "kvmshim run hello --server unix:/tmp/",
        "kvmshim bench --compare",
        "devserver serve --listen unix:/tmp/x --model",
        "devserver vm launch --server unix:/nowhere",
        "devserver vm list --server unix:/nowhere/",
        "devserver vm show --server unix:/nowhere",
        "devserver registry upgrade --registry sqlite:////nowhere/",
    ],
)
def test_a_name_that_is_not_utf_8_is_a_name(words: str) -> None:
    odd = b"\xff\xfe.toml" if "launch" in words or words == "kvmshim run" else b"\xff.py"
    program, *arguments = words.split()
    line = [part.encode() for part in command(*arguments, program=program)]
    line = [*line[:-1], line[-1] + odd] if words.endswith("/") else [*line, odd]
    done = subprocess.run(line, capture_output=True, timeout=AT_MOST_S, env=environment())
    assert done.returncode in (1, 113, 114, 115)
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


# -- signals ------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize("words", ["kvmshim guests", "devserver models", "devserver vm list"])
def test_ctrl_c_while_modules_are_imported_makes_no_traceback(words: str, tmp_path: Path) -> None:
    """The program is held where it imports its first module of the standard library."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    holding = (
        "import sys\n"
        "class Hold:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'argparse':\n"
        f"            open({str(gate)!r}, 'w').close()\n"
        "            while True: pass\n"
        "sys.meta_path.insert(0, Hold())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(holding)
    program, *arguments = words.split()
    env = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = start(command(*arguments, program=program), env=env)
    with contextlib.closing(open(gate)) as held:
        held.read()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=AT_MOST_S) == (b"", b"")
    assert process.returncode == -signal.SIGINT


# -- JSON ---------------------------------------------------------------------------------------


def documented(heading: str) -> set[str]:
    """The keys that docs/json.md lists under a heading."""
    page = ROOT.joinpath("docs", "json.md").read_text()
    rows = re.findall(
        r"^\| (.*?) \|", page.partition(f"## {heading}\n")[2].partition("\n## ")[0], re.M
    )
    return {key for row in rows[1:] for key in re.findall(r"`(\w+)`", row)}


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "heading"), [("kvmshim guests", "Guests"), ("devserver models", "Models")]
)
def test_a_list_has_what_the_manual_says(words: str, heading: str) -> None:
    rows = json.loads(run(f"{words} --json").stdout)
    assert len(rows) == len(run(words).stdout.splitlines())
    assert all(set(row) == documented(heading) for row in rows)


def test_every_command_that_lists_or_shows_has_json() -> None:
    page = ROOT.joinpath("docs", "json.md").read_text().partition("\n## ")[0]
    listed = {
        name
        for row in re.findall(r"^\| (`.*?) \|", page, re.M)
        for name in re.findall(r"`(.*?)`", row)
    }
    have = {parser.prog for parser in ALL if "--json" in parser._option_string_actions}
    assert have == listed
    for parser in ALL:
        if parser.prog.split()[-1] in ("list", "show", "models", "guests", "doctor"):
            assert parser.prog in have


@pytest.mark.kvm
@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "outcome", "exit_status", "said"),
    [
        ("hello", "exited", 0, ""),
        ("echo --timeout 0.2", "timed-out", 124, "did not end"),
        ("helo", None, 113, "did you mean 'hello'?"),
        ("hello --server unix:/nowhere", None, 115, "can't reach"),
    ],
)
def test_a_result_is_the_last_line_of_standard_error(
    words: str, outcome: str | None, exit_status: int, said: str
) -> None:
    done = run(f"kvmshim run {words} --json")
    result = json.loads(done.stderr.splitlines()[-1])
    assert set(result) == documented("Results")
    assert (result["outcome"], result["exit_status"]) == (outcome, exit_status)
    assert done.returncode == exit_status
    assert said in result["message"]
    assert (done.stdout.startswith("Hello")) == (words == "hello")
