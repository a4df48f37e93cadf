"""Where an address came from that is none, and why a process ended."""

from __future__ import annotations

import signal

import pytest

from devserver.commandline.errors import InputError
from devserver.commandline.server import server_of
from kvmshim.bench.sweeps import why_ended


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMSHIM_SERVER", "unix:there")
    assert server_of("unix:here") == "unix:here"
    assert server_of(None) == "unix:there"
    monkeypatch.setenv("KVMSHIM_SERVER", "")
    assert server_of(None) is None


def test_who_gave_a_wrong_address_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVMSHIM_SERVER", "nonsense")
    with pytest.raises(InputError, match=r"^KVMSHIM_SERVER: address 'nonsense' is neither"):
        server_of(None)
    with pytest.raises(InputError, match=r"^--server: address 'nonsense' is neither"):
        server_of("nonsense")


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (1, "Traceback\nOSError: no more\n", "OSError: no more"),
        (3, "", "it ended with status 3 and no word"),
        (-signal.SIGKILL, "", "it was killed by SIGKILL; is there memory enough?"),
        (-signal.SIGSEGV, "", "it was killed by SIGSEGV"),
    ],
)
def test_a_process_that_failed_has_a_reason(status: int, said: str, why: str) -> None:
    assert why_ended(status, said) == why
