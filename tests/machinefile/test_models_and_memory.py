"""Models that a machine file names, and devices that lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from devserver.machine.board import IN_MEMORY, DeviceWiring
from devserver.machine.bus import BoardError, Bus
from devserver.models import Access, Device, Region, Register, Space, catalog
from kvmshim.errors import InputError
from kvmshim.machinefile import load_machine
from kvmshim.vmm.assemble import parse_device


class Both(Device):
    """A region in memory, then one of ports, then another in memory."""

    kind = "in-both-spaces"
    regions = tuple(
        Region(
            name=name,
            size=1,
            space=space,
            registers=(Register(offset=0, name=f"ID_{name}", access=Access.RO),),
        )
        for name, space in (("regs", Space.MEMORY), ("io", Space.PORT), ("fifo", Space.MEMORY))
    )

    def read_id_regs(self, now_ns: int) -> int:
        return 1

    def read_id_io(self, now_ns: int) -> int:
        return 2

    def read_id_fifo(self, now_ns: int) -> int:
        return 3


class Deaf:
    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_registered", {**catalog._registered, Both.kind: Both})


def board(wiring: DeviceWiring) -> Bus:
    return Bus([wiring], Deaf())  # type: ignore[arg-type]


def test_a_device_is_placed_in_memory_from_the_command_line() -> None:
    text = f"{Both.kind},mem=0xfed00000,port=0x500,mem.fifo=0xfed01000,irq.x=3,speed=4"
    wiring = parse_device(text).wiring
    assert wiring.bases == {IN_MEMORY: 0xFED00000, "": 0x500, "fifo": 0xFED01000}
    assert (wiring.lines, wiring.options) == ({"x": 3}, {"speed": 4})


def test_the_first_region_of_its_space_is_the_one_that_is_meant() -> None:
    bases = {IN_MEMORY: 0xFED00000, "": 0x500, "fifo": 0xFED01000}
    ports = board(DeviceWiring(name="b", kind=Both.kind, bases=bases))
    assert ports.read(Space.MEMORY, 0xFED00000, 1, 0) == 1
    assert ports.read(Space.PORT, 0x500, 1, 0) == 2
    assert ports.read(Space.MEMORY, 0xFED01000, 1, 0) == 3


def test_a_model_without_memory_says_so() -> None:
    wiring = DeviceWiring(name="p", kind="postcode", bases={IN_MEMORY: 0xFED00000})
    with pytest.raises(BoardError, match=r"'postcode': region in memory wired, but .* has none"):
        board(wiring)


def test_a_machine_file_names_models_beside_it_and_places_devices_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        '[machine]\nmodels = ["thermo.py"]\n'
        '[[device]]\nname = "b"\nkind = "in-both-spaces"\nmem = 0xfed00000\nport = 0x500\n'
    )
    spec = load_machine(file)
    assert spec.models == (str(tmp_path / "thermo.py"),)
    assert spec.devices[-1].wiring.bases == {IN_MEMORY: 0xFED00000, "": 0x500}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('models = "thermo.py"', r"2: 'models' in \[machine\]: expected a list such as"),
        ('models = ["a.py", ""]', r"2: 'models.1' in \[machine\]: the path is empty"),
    ],
)
def test_a_bad_list_of_models_is_refused(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(f"[machine]\n{line}\n")
    with pytest.raises(InputError, match=said):
        load_machine(file)
