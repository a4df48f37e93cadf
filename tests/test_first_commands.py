"""The two commands of the README, run by the script of CI, with stand-ins for what they call."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
#: What the script itself needs of a machine.
BASICS = ("awk", "bash", "dirname", "env", "sh")
#: A program that writes down how it was called, and does what comes after its name if it is sudo.
STAND_IN = """\
#!/bin/sh
name=${0##*/}
if [ "$name" = sudo ]; then export AS=root; exec "$@"; fi
echo "${AS:-self}: $name $*" >> "$LOG"
[ "$name $*" = "$FAILING" ] && exit "$STATUS"
exit 0
"""


class Newcomer:
    """A machine with a clone of the project, on which nothing is real but the shell."""

    def __init__(self, folder: Path, *, sudo: bool) -> None:
        self.clone = folder / "clone"
        self.log = folder / "log"
        self.path = folder / "bin"
        self.path.mkdir()
        for name in BASICS:
            self.path.joinpath(name).symlink_to(str(shutil.which(name)))
        for name in ("apt-get", "python3", *(["sudo"] if sudo else [])):
            self._stand_in(self.path / name)
        for name in (".venv/bin/pip", ".venv/bin/kvmshim", "tests/run"):
            self._stand_in(self.clone / name)
        for name in ("README.md", ".ci/run"):
            self.clone.joinpath(name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, self.clone / name)

    @staticmethod
    def _stand_in(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)

    def run_ci(self, failing: str = "nothing", status: int = 0, **environment: str) -> int:
        """The exit status of .ci/run; ``failing`` is a call that ends with ``status``."""
        env = {"PATH": str(self.path), "LOG": str(self.log), **environment}
        env |= {"FAILING": failing, "STATUS": str(status)}
        return subprocess.run(["bash", ".ci/run"], cwd=self.clone, env=env, timeout=60).returncode

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.mark.parametrize("sudo", [True, False], ids=["user-with-sudo", "root-without-sudo"])
def test_both_commands_run_word_for_word(sudo: bool, tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path, sudo=sudo)
    assert newcomer.run_ci() == 0
    who = "root" if sudo else "self"
    packages = r"-y( [a-z0-9-]+)+"
    for call, wanted in zip(
        newcomer.calls(),
        [
            f"{who}: apt-get update -q",
            f"{who}: apt-get install {packages}",
            r"self: python3 -m venv \.venv",
            r"self: pip install -q \.",
            "self: kvmshim run hello",
            f"{who}: apt-get update -q",
            f"{who}: apt-get install {packages}",
            r"self: python3 -m venv \.venv",
            r"self: pip install -q -e \.\[test\]",
            r"self: run ",
        ],
        strict=True,
    ):
        assert re.fullmatch(wanted, call), call


@pytest.mark.parametrize("failing", ["apt-get update -q", "pip install -q .", "kvmshim run hello"])
def test_a_command_that_fails_is_the_end(failing: str, tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path, sudo=False)
    assert newcomer.run_ci(failing, 7) == 7
    assert newcomer.calls()[-1] == f"self: {failing}"


def test_a_host_that_can_not_run_guests_runs_the_other_tests(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path, sudo=False)
    assert newcomer.run_ci("kvmshim run hello", 114) == 0
    assert newcomer.calls()[-1] == "self: run "


def test_a_host_that_must_run_guests_is_held_to_it(tmp_path: Path) -> None:
    newcomer = Newcomer(tmp_path, sudo=False)
    assert newcomer.run_ci("kvmshim run hello", 114, KVMSHIM_REQUIRE_KVM="1") == 114


def test_ci_puts_nothing_in_place() -> None:
    """All that a machine gets comes from the README's commands."""
    words = shlex.split(ROOT.joinpath(".ci/run").read_text(), comments=True)
    assert not {"sudo", "apt-get", "pip", "install"} & set(words)
