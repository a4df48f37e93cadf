"""QEMU's firmware configuration interface, as a guest reads it."""

from __future__ import annotations

import struct

import pytest
from qemu_beside_ours import Ours
from qemu_pc import In, Out, Step, run

from devserver.models import Context
from devserver.models.context import OptionError
from devserver.models.fw_cfg import MAX_FILES, MAX_FILES_BYTES, FwCfg, Key
from devserver.models.registers import Policy

MIB = 1 << 20


def fw_cfg(**options: object) -> FwCfg:
    return FwCfg(Context(options=options))


def item(device: FwCfg, key: int, length: int) -> bytes:
    """Selects an item and reads it as a guest's ``rep insb`` does."""
    device.write("io", 0, 2, key, 0)
    return bytes(device.read_elements("io", 1, 1, length, 0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (Key.SIGNATURE, b"QEMU"),
        (Key.ID, b"\x01\0\0\0"),
        (Key.UUID, bytes(16)),
        (Key.RAM_SIZE, struct.pack("<Q", 64 * MIB)),
        (Key.NB_CPUS, b"\x03\0"),
        (Key.MAX_CPUS, b"\x03\0"),
    ],
)
def test_each_item_has_its_value_and_zeros_behind_it(key: Key, value: bytes) -> None:
    device = fw_cfg(cpus=3, memory_bytes=64 * MIB)
    assert item(device, key, len(value) + 4) == value + bytes(4)


def test_a_fresh_device_has_its_signature_selected() -> None:
    assert bytes(fw_cfg().read_elements("io", 1, 1, 4, 0)) == b"QEMU"


def test_selecting_again_starts_the_item_anew() -> None:
    device = fw_cfg()
    assert item(device, Key.SIGNATURE, 2) == item(device, Key.SIGNATURE, 2) == b"QE"


def test_the_write_channels_bit_selects_the_same_item() -> None:
    assert item(fw_cfg(), Key.SIGNATURE | 1 << 14, 4) == b"QEMU"


@pytest.mark.parametrize("key", [0x06, 0x3FFF, 0x8000, 0xFFFF])
def test_what_is_not_there_reads_as_zeros(key: int) -> None:
    assert item(fw_cfg(), key, 8) == bytes(8)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, 1), (0, 4), (1, 2), (0, 8)])
def test_only_a_word_in_the_selector_selects(offset: int, size: int) -> None:
    device = fw_cfg()
    assert item(device, Key.SIGNATURE, 1) == b"Q"
    device.write("io", offset, size, 0x0505, 0)
    assert device.read("io", 1, 1, 0) == ord("E")


def entries(device: FwCfg) -> dict[str, tuple[int, int]]:
    """The directory: sizes and keys by name."""
    (count,) = struct.unpack(">I", item(device, Key.FILE_DIR, 4))
    table = item(device, Key.FILE_DIR, 4 + 64 * count)[4:]
    rows = struct.iter_unpack(">IHH56s", table)
    return {name.rstrip(b"\0").decode(): (size, key) for size, key, _, name in rows}


def test_the_directory_leads_to_every_file_in_the_order_of_names() -> None:
    files = {"opt/b": b"later", "opt/a": bytes(range(256)), "etc/x": b""}
    device = fw_cfg(files=files)
    found = entries(device)
    assert list(found) == sorted(files)
    assert [key for _, key in found.values()] == [0x20, 0x21, 0x22]
    assert {name: item(device, key, size) for name, (size, key) in found.items()} == files


def test_a_machines_memory_is_in_a_map_that_can_be_replaced() -> None:
    device = fw_cfg(memory_bytes=16 * MIB)
    size, key = entries(device)["etc/e820"]
    assert struct.unpack("<QQI", item(device, key, size)) == (0, 16 * MIB, 1)
    own = fw_cfg(memory_bytes=16 * MIB, files={"etc/e820": b"own"})
    assert entries(own) == {"etc/e820": (3, 0x20)}


def test_a_reader_goes_on_in_the_middle_of_an_item_after_a_snapshot() -> None:
    device, twin = fw_cfg(cpus=2), fw_cfg(cpus=2)
    assert item(device, Key.SIGNATURE, 2) == b"QE"
    twin.load(device.save())
    assert bytes(twin.read_elements("io", 1, 1, 2, 0)) == b"MU"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"cpus": 0}, "cpus is 0; give 1 to 255"),
        ({"memory_bytes": -1}, "memory_bytes is -1"),
        ({"files": {"": b""}}, "1 to 55 printable"),
        ({"files": {"x" * 56: b""}}, "1 to 55 printable"),
        ({"files": {"ä": b""}}, "not ASCII"),
        ({"files": {"a\n": b""}}, "printable"),
        ({"files": {"a": "text"}}, "expected bytes"),
        ({"files": {"a": bytes(MAX_FILES_BYTES + 1)}}, "256 KiB"),
        ({"files": {"a": bytes(MAX_FILES_BYTES), "b": b"x"}}, "256 KiB in all"),
        ({"files": {str(n): b"" for n in range(MAX_FILES + 1)}}, "257 files"),
    ],
)
def test_options_that_can_not_be_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        fw_cfg(**options)


def test_a_guest_does_not_wait_for_a_selection_but_for_each_byte() -> None:
    (region,) = FwCfg.regions
    assert region.write_policy(0) is Policy.POSTED
    assert not region.may_be_leased(1)


@pytest.mark.qemu
def test_a_guest_sees_what_it_sees_on_qemu() -> None:
    """The items whose values do not hang on the machine, and accesses of the wrong width."""
    steps: list[Step] = [In(0x511)]
    for key in (0x00, 0x05, 0x0F, 0x4000, 0x3FFF):
        steps += [Out(0x510, key, 2), *[In(0x511)] * 6]
    steps += [Out(0x510, 0, 2), In(0x511), Out(0x511, 5), Out(0x510, 5), In(0x511)]
    outcome = run(steps, 6)
    ours = Ours()
    times = [(seen.at_ns, seen.until_ns) for seen in outcome.seen]
    mine = [ours.take(step, *at) for step, at in zip(steps, times, strict=True)]
    assert [seen.value for seen in mine] == [seen.value for seen in outcome.seen]
