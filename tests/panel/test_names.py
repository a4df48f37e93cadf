"""What may be a name, and that it is refused in one line wherever one is given."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from commandline import command, devserver, environment, kvmshim, start, the_line
from environment import GUESTS
from hypothesis import given
from hypothesis import strategies as st

from devserver.protocol.names import MAX_NAME, BadName, check_name, check_server_name

BAD = {
    "": "at least one character",
    "7": "it is a number",
    "٣": "it is a number",
    "a" * 300: "it has 300 characters",
    "two\nlines": "can't be shown",
    "\x1b[2J": "can't be shown",
    " padded": "space",
    "-x": "dash",
}


@pytest.mark.parametrize(("name", "why"), BAD.items())
def test_a_name_that_is_none_is_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(BadName, match=why) as refused:
        check_name("a VM", name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["auto", "local", "server"])
def test_a_server_has_no_name_that_is_a_place(name: str) -> None:
    assert check_name("a VM", name) == name
    with pytest.raises(BadName, match="place"):
        check_server_name(name)


@given(st.text(max_size=2 * MAX_NAME))
def test_a_name_is_one_line_that_no_number_and_no_option_is_taken_for(name: str) -> None:
    with suppress(BadName):
        check_name("a VM", name)
        assert name.isprintable()
        assert 0 < len(name) <= MAX_NAME
        assert name[0] != "-"
        assert not name.isdigit()


@pytest.mark.process
@pytest.mark.parametrize("name", ["7", "a" * 300, "two\nlines"])
def test_every_command_refuses_such_a_name(tmp_path: Path, name: str) -> None:
    own = f"unix:{tmp_path}/own"
    with devserver(f"unix:{tmp_path}/socket") as server:
        there = ("--server", server.address)
        image = GUESTS / "echo.bin"
        for arguments in (
            ("vm", "launch", image, "--name", name, *there),
            ("vm", "register", image, "--name", name, *there),
            ("client", "register", name, *there),
            ("serve", "--listen", own, "--name", name),
            ("host", "--listen", own, "--join", server.address, "--name", name),
        ):
            process = start(command(*arguments, program="devserver"), env=environment())
            said = process.communicate()[1].decode()
            assert "can't be" in said
            assert (arguments, process.returncode, said.count("\n")) == (arguments, 113, 1)
        refused = kvmshim("agent", *there, "--name", name)
        assert refused.returncode == 113
        assert "can't be named" in the_line(refused)
