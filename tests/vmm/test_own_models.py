"""Device models of one's own, used through the library, and what is said where one is missing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import tinyguest
from live import Server
from ownmodels import ROLLS, dice

from devserver.commandline.errors import InputError as NotSent
from devserver.commands.images import brought
from devserver.machine.callers import ModelOutput, hosting
from devserver.models import catalog
from devserver.rpc import Peer
from kvmshim.errors import InputError
from kvmshim.vmm.assemble import machine_for, machine_of

pytestmark = pytest.mark.kvm

PORT = 0x500


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_registered", dict(catalog._registered))


def machine_file(folder: Path, placement: str, *, kind: str = "dice", models: str = "") -> str:
    """A machine whose guest ends with what it reads from its one device."""
    guest = tinyguest.read(PORT) + tinyguest.leave_with_al()
    (folder / "guest.bin").write_bytes(guest)
    file = folder / "machine.toml"
    file.write_text(
        f'[machine]\n{models}\n[image]\npath = "guest.bin"\n'
        f'[[device]]\nname = "d"\nkind = "{kind}"\nport = {PORT}\nplacement = "{placement}"\n'
    )
    return str(file)


@pytest.mark.parametrize("placement", ["server", "local"])
def test_the_library_loads_the_models_that_a_machine_file_names(
    tmp_path: Path, placement: str
) -> None:
    dice(tmp_path)
    what = machine_file(tmp_path, placement, models='models = ["dice.py"]')
    with machine_for(machine_of(what)) as machine:
        assert machine.run(timeout_s=60).exit_status == ROLLS[0]


def test_what_a_local_model_prints_goes_to_standard_error_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = dice(tmp_path)
    said = file.read_text().replace("        return", "        print('rolling')\n        return")
    file.write_text(said)
    what = machine_file(tmp_path, "local", models='models = ["dice.py"]')
    before = sys.stdout
    with machine_for(machine_of(what)) as machine:
        print("mine")
        machine.run(timeout_s=60)
    assert sys.stdout is before
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("mine\n", "device 'd' (dice): rolling\n")


def test_hosts_of_models_may_overlap_and_whoever_else_takes_the_output_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout
    hosting.begin()
    hosting.begin()
    hosting.end()
    assert isinstance(sys.stdout, ModelOutput)
    hosting.end()
    assert sys.stdout is before
    hosting.begin()
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    hosting.end()
    assert sys.stdout is sys.stderr


def test_a_missing_model_of_a_local_device_is_missing_in_the_client(tmp_path: Path) -> None:
    what = machine_file(tmp_path, "local", kind="dicee")
    with (
        pytest.raises(InputError, match=r"no device model .*; it is placed here, in the client$"),
        machine_for(machine_of(what)),
    ):
        pass


def test_a_server_that_lacks_a_model_is_named(tmp_path: Path) -> None:
    what = machine_file(tmp_path, "server", kind="dicee")
    address = f"unix:{tmp_path}/s"
    with (
        Server(listen=address),
        pytest.raises(InputError, match=f"^the device server at {address}: device 'd': no device"),
        machine_for(machine_of(what), server=address),
    ):
        pass


def test_a_machine_with_models_of_its_own_is_not_sent_to_a_client(tmp_path: Path) -> None:
    what = machine_file(tmp_path, "local", models='models = ["dice.py"]')
    nobody = Peer.__new__(Peer)  # nothing is sent
    with pytest.raises(NotSent, match=r"machine\.toml names models, .* 'devserver serve --model'"):
        asyncio.run(brought(nobody, what, None))
