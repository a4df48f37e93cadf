"""Help, completion and progress, which both programs have alike."""

from __future__ import annotations

import io
import subprocess
import threading

import pytest
from commandline import AT_MOST_S, ROOT, command, environment

from devserver.commandline.manual import topics
from devserver.commandline.progress import Progress


def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words, program=program),
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        env=environment(),
        cwd="/",
    )


@pytest.mark.process
@pytest.mark.parametrize("program", ["kvmshim", "devserver"])
def test_help_lists_and_shows_every_manual(program: str) -> None:
    listed = run(program, "help").stdout
    assert set(topics()) == {page.stem for page in ROOT.joinpath("docs").glob("*.md")}
    assert all(f"  {topic}" in listed for topic in topics())
    assert run(program, "help", "json").stdout == ROOT.joinpath("docs/json.md").read_text()


@pytest.mark.process
def test_help_of_a_command_is_its_own_help() -> None:
    words = ("vm", "list")
    assert run("devserver", "help", *words).stdout == run("devserver", *words, "--help").stdout
    wrong = run("kvmshim", "help", "machinefile")
    assert (wrong.returncode, wrong.stdout) == (113, "")
    assert "did you mean 'machine-file'?" in wrong.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "words", "wanted"),
    [
        ("kvmshim", "kvmshim res", "resume"),
        ("kvmshim", "kvmshim run --time", "--timeout"),
        ("devserver", "devserver vm lis", "list"),
        ("devserver", "devserver serve --engine nat", "native"),
    ],
)
def test_bash_completes_a_word(program: str, words: str, wanted: str) -> None:
    script = run(program, "completion", "bash").stdout
    asked = f"""
        COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="{words}"
        COMP_POINT=${{#COMP_LINE}}
        complete_with=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $complete_with {program} "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script + asked], capture_output=True, text=True)
    assert wanted in done.stdout.split(), done.stderr


class Screen(io.StringIO):
    """A terminal that can be waited for."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._tty = tty
        self.drawn = threading.Event()

    def isatty(self) -> bool:
        return self._tty

    def write(self, text: str) -> int:
        written = super().write(text)
        self.drawn.set()
        return written


def test_what_takes_long_is_shown_on_a_terminal() -> None:
    screen = Screen(tty=True)
    with Progress("measuring", stream=screen, quiet_s=0.0):
        assert screen.drawn.wait(AT_MOST_S)
    assert screen.getvalue().startswith("\r\033[Kmeasuring")
    assert screen.getvalue().endswith("\r\033[K")


def test_what_is_quick_says_nothing() -> None:
    screen = Screen(tty=True)
    with Progress("measuring", stream=screen):
        pass
    assert screen.getvalue() == ""


def test_only_notes_go_to_a_file() -> None:
    screen = Screen(tty=False)
    with Progress("measuring", stream=screen) as shown:
        shown.show("more")
        shown.note("left out")
    assert screen.getvalue() == "left out\n"
