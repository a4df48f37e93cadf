"""Machine files: what they mean, and what each mistake in one is answered with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devserver.machine.board import PC_BOARD, DeviceWiring
from kvmshim.errors import InputError
from kvmshim.loader import ImageKind
from kvmshim.machinefile import (
    DeviceSpec,
    ImageSpec,
    MachineSpec,
    default_machine,
    load_machine,
    parse_machine,
)

PATH = Path("vm/machine.toml")

COMPLETE = """\
[machine]
memory = "64M"
board = "none"
irqchip = "kernel"
placement = "lab"

[image]
path = "boot.bin"
kind = "flat"
load-address = 0x8000
entry = 0x8010
append = ""
bios = false

[servers]
lab = "tcp://192.0.2.1:7000"
here = "unix:/run/devices"

[[device]]
name = "com1"
kind = "uart16550"
port = 0x3f8
irq = 4
placement = "local"
[device.options]
paced = true

[[device]]
name = "dice"
kind = "dice"
ports = { io = 0x300, bank = 0x310 }
irqs = { rolled = 5 }
"""


def parse(text: str) -> MachineSpec:
    return parse_machine(text, PATH)


def device(text: str, name: str = "com1") -> DeviceSpec:
    return next(spec for spec in parse(text).devices if spec.wiring.name == name)


def wiring(text: str, name: str = "com1") -> DeviceWiring:
    return device(f"[[device]]\nname = '{name}'\n{text}", name).wiring


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- what a file means ------------------------------------------------------------------------


def test_the_default_machine_is_a_pc_with_every_device_on_the_server() -> None:
    machine = default_machine()
    assert [spec.wiring for spec in machine.devices] == list(PC_BOARD)
    assert {spec.placement for spec in machine.devices} == {"server"}
    assert (machine.memory_bytes, machine.image) == (16 << 20, None)


def test_an_empty_file_is_the_default_machine() -> None:
    assert parse("") == MachineSpec(devices=default_machine().devices, path=PATH)


def test_a_complete_file_sets_everything() -> None:
    machine = parse(COMPLETE)
    assert machine.memory_bytes == 64 << 20
    assert machine.irqchip == "kernel"
    assert machine.servers == {"lab": "tcp://192.0.2.1:7000", "here": "unix:/run/devices"}
    assert [spec.wiring.name for spec in machine.devices] == ["com1", "dice"]
    assert [spec.placement for spec in machine.devices] == ["local", "lab"]


def test_an_image_s_keys_are_the_loader_s_arguments() -> None:
    assert parse(COMPLETE).image == ImageSpec(
        path=Path("vm/boot.bin"),
        kind=ImageKind.FLAT,
        load_address=0x8000,
        entry=0x8010,
        append="",
        bios=False,
    )


def test_an_image_with_nothing_but_a_path_is_left_to_the_loader() -> None:
    assert parse("[image]\npath = '/a/b'\nkind = 'auto'").image == ImageSpec(path=Path("/a/b"))


def test_a_single_port_and_interrupt_need_no_names() -> None:
    assert device(COMPLETE).wiring == DeviceWiring(
        name="com1",
        kind="uart16550",
        bases={"": 0x3F8},
        lines={"": 4},
        options={"paced": True},
    )


def test_several_ports_and_interrupts_go_by_name() -> None:
    assert device(COMPLETE, "dice").wiring == DeviceWiring(
        name="dice", kind="dice", bases={"io": 0x300, "bank": 0x310}, lines={"rolled": 5}
    )


@pytest.mark.parametrize("memory", ["1048576", "0x100000", "'1M'", "'1024 KiB'", "'0x100000'"])
def test_memory_is_given_as_a_size(memory: str) -> None:
    assert parse(f"[machine]\nmemory = {memory}").memory_bytes == 1 << 20


def test_the_machine_s_placement_is_every_device_s_default() -> None:
    text = "[machine]\nplacement = 'local'\n[[device]]\nname = 'com1'\nplacement = 'server'"
    placed = {spec.wiring.name: spec.placement for spec in parse(text).devices}
    assert placed.pop("com1") == "server"
    assert set(placed.values()) == {"local"}


# -- changing the board -----------------------------------------------------------------------


def test_a_board_device_keeps_what_the_file_does_not_mention() -> None:
    assert wiring("irq = 3") == DeviceWiring(
        name="com1", kind="uart16550", bases={"io": 0x3F8}, lines={"irq": 3}
    )


def test_a_port_moves_a_board_device_s_first_region() -> None:
    assert wiring("port = 0x50", "pit").bases == {"counters": 0x50, "portb": 0x61}


def test_named_ports_interrupts_and_options_replace_one_by_one() -> None:
    changed = wiring(
        "ports = { lines = 0x3000 }\nirqs = { irq3 = 7 }\noptions = { a = 1 }", "testdev"
    )
    assert changed.bases == {"latch": 0xE0, "lines": 0x3000}
    assert (changed.lines["irq3"], changed.lines["irq4"]) == (7, 4)
    assert changed.options == {"a": 1}


def test_a_device_of_another_kind_keeps_its_place_but_no_names() -> None:
    assert wiring("kind = 'uart8250'") == DeviceWiring(
        name="com1", kind="uart8250", bases={"": 0x3F8}, lines={"": 4}
    )


def test_a_device_of_another_kind_with_named_wires_keeps_none() -> None:
    changed = wiring("kind = 'quad'\nports = { a = 1 }\nirqs = { x = 2 }")
    assert (changed.bases, changed.lines) == ({"a": 1}, {"x": 2})


def test_a_device_is_taken_off_the_board() -> None:
    names = [spec.wiring.name for spec in parse("[[device]]\nname='pit'\nremove=true").devices]
    assert names == [device.name for device in PC_BOARD if device.name != "pit"]


def test_new_devices_follow_the_board_s() -> None:
    names = [spec.wiring.name for spec in parse("[[device]]\nname='x'\nkind='dice'").devices]
    assert names == [*(device.name for device in PC_BOARD), "x"]


# -- policies ---------------------------------------------------------------------------------


def test_a_register_s_policies_are_given_by_its_name() -> None:
    given = "policies = { THR = 'posted', LSR = 'asked', SCR = ['leased', 'finish'] }"
    assert wiring(given).policies == {"THR": "posted", "LSR": "asked", "SCR": "finish+leased"}


def test_a_strict_device_posts_and_leases_nothing() -> None:
    assert wiring("policy = 'strict'").policies == {"*": "finish+asked"}


def test_the_model_s_policies_stay_unless_they_are_replaced() -> None:
    assert wiring("policy = 'declared'").policies == wiring("irq = 3").policies == {}


# -- mistakes ---------------------------------------------------------------------------------


def test_an_unknown_key_is_answered_with_file_line_and_the_nearest_known_one() -> None:
    text = "[machine]\n\n[[device]]\n# a comment\nname = 'com1'\n\nprot = 0x3f8"
    assert refusal(text) == (
        "vm/machine.toml:7: unknown key 'prot' in [[device]] 'com1'; did you mean 'port'?"
    )


DEVICE = "[[device]]\nname = 'x'\nkind = 'dice'\n"

MISTAKES = [
    ("[machne]", "1: unknown table 'machne'; did you mean 'machine'?"),
    (
        "\nmemory = 1",
        "2: unknown table 'memory'; known are: machine, image, module, registers, ",
    ),
    ('"a\\nb" = 1', "1: unknown table 'a\\nb'; known are: machine"),
    ("machine = 3", "1: 'machine' is a table; write it as [machine]"),
    ("[machine]\ncpus = 2", "2: unknown key 'cpus' in [machine]; known are: memory, board,"),
    ("[machine]\nmemory = '16X'", "2: 'memory' in [machine]: '16X' is not a size"),
    ("[machine]\nmemory = true", "2: 'memory' in [machine]: True is not a size"),
    ("[machine]\nmemory = -5", "2: 'memory' in [machine]: size -5 is negative"),
    ("[machine]\nmemory = '512K'", "between 1 MiB and 3 GiB, not 512 KiB"),
    ("[machine]\nmemory = '4G'", "between 1 MiB and 3 GiB, not 4 GiB"),
    ("[machine]\nmemory = 1048577", "multiple of 4 KiB, not 1048577 bytes"),
    ("[machine]\nboard = 'pcc'", "'pcc' is not supported; did you mean 'pc'?"),
    ("[machine]\nboard = 1", "2: 'board' in [machine]: expected text in quotes, got 1"),
    ("[machine]\nirqchip = 'user'", "2: 'irqchip' in [machine]: 'user' is not supported"),
    ("[machine]\nplacement = 'la'\n[servers]\nlab = 'unix:/x'", "2: placement 'la' is no server"),
    ("\n[image]\nkind = 'rom'", "2: [image] has no 'path'"),
    ("[image]\npath = ''", "2: 'path' in [image]: the path is empty"),
    ('[image]\npath = "a\\u0000"', "2: 'path' in [image]: the text contains a zero byte"),
    ("[image]\npath = 'a'\nkind = 'elf'", "3: 'kind' in [image]: 'elf' is not supported"),
    ("[image]\npath = 'a'\nload_address = 1", "did you mean 'load-address'?"),
    ("[image]\npath = 'a'\nentry = 0x100000000", "3: 'entry' in [image]: address 0x100000000"),
    ("[image]\npath = 'a'\nbios = 'no'", "3: 'bios' in [image]: expected true or false"),
    ("[servers]\nlab = 'http://x'", "2: 'lab' in [servers]: address 'http://x' is neither"),
    ("[servers]\nlocal = 'unix:/x'", "2: a server can't be named 'local'"),
    ("[device]\nname = 'x'", "1: devices are written as tables under [[device]]"),
    ("device = [1]", "1: devices are written as tables under [[device]]"),
    ("\n[[device]]\nkind = 'dice'", "2: [[device]] has no 'name'"),
    ("[[device]]\nname = ''", "2: 'name' in [[device]] '': expected a printable name"),
    ("[[device]]\nname = 'x'", "1: [[device]] 'x': it is not on the board and has no 'kind'"),
    (DEVICE + DEVICE, "5: device 'x' is already on line 2"),
    (DEVICE + "policy = 'strikt'", "4: 'policy' in [[device]] 'x': 'strikt' is not supported; did"),
    (DEVICE + "policies = 'posted'", "4: 'policies' in [[device]] 'x': expected a table such as"),
    (DEVICE + "policies.THR = 'post'", "'policies.THR' in [[device]] 'x': 'post' is not supported"),
    (DEVICE + "[device.policies]\n\nA = ['posted', 'x']", "6: 'policies.A.1' in [[device]] 'x':"),
    (DEVICE + "policies.A = []", "give one of finish, posted, coalesced for writes, one of asked"),
    (DEVICE + "policies.A = ['posted', 'finish']", "or one of each in a list"),
    (DEVICE + "policies = { '' = 'asked' }", "4: 'policies.' in [[device]] 'x': expected a print"),
    (DEVICE + "policy = 'strict'\npolicies = {}", "5: [[device]] 'x': give either 'policy' or"),
    (DEVICE + "port = '0x3f8'", "4: 'port' in [[device]] 'x': expected a number"),
    (DEVICE + "port = true", "4: 'port' in [[device]] 'x': expected a number"),
    (DEVICE + "port = 0x10000", "port 0x10000 is not between 0 and 0xffff"),
    (DEVICE + "port = -1", "port -0x1 is not between"),
    (DEVICE + "ports = 5", "4: 'ports' in [[device]] 'x': expected a table such as"),
    (DEVICE + "[device.ports]\na = 1\nb = -1", "6: 'ports.b' in [[device]] 'x': port -0x1"),
    (DEVICE + "ports = { '' = 1 }", "4: 'ports.' in [[device]] 'x': expected a printable name"),
    (DEVICE + "port = 1\nports = { a = 1 }", "5: [[device]] 'x': give either 'port' or 'ports'"),
    (DEVICE + "irq = 24", "4: 'irq' in [[device]] 'x': interrupt line 24 is not between 0 and 23"),
    (DEVICE + "irq = 1\nirqs = { a = 1 }", "5: [[device]] 'x': give either 'irq' or 'irqs'"),
    (DEVICE + "placement = 'severs'", "4: placement 'severs' is no server; did you mean 'server'?"),
    (DEVICE + "options = 1", "4: 'options' in [[device]] 'x': expected a table of options"),
    (DEVICE + "[device.options]\n\nd = 1979-05-27", "6: 'options.d' in [[device]] 'x': dates"),
    (DEVICE + f"options = {{ n = {1 << 64} }}", "does not fit 64 bits"),
    (DEVICE + "options.a = [\n1,\n[2, 07:32:00]]", "6: 'options.a.1.1' in [[device]] 'x': dates"),
    (DEVICE + "remove = true", "3: [[device]] 'x': a device that is removed takes no 'kind'"),
    ("[[device]]\nname='pti'\nremove=true", "1: device 'pti' is not on board 'pc'; did you mean"),
    (
        "[machine]\nboard='none'\n[[device]]\nname='pit'\nremove=true",
        "3: device 'pit' is not on board 'none', which is empty",
    ),
    (
        "[[device]]\nname = 'testdev'\nirq = 3",
        "3: [[device]] 'testdev': this device has 24 interrupt outputs; say which, as in irqs = {",
    ),
]


@pytest.mark.parametrize(("text", "complaint"), MISTAKES, ids=[why for _, why in MISTAKES])
def test_a_mistake_is_named_with_its_line_and_key(text: str, complaint: str) -> None:
    line = refusal(text)
    assert line.startswith("vm/machine.toml:")
    assert complaint in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[machine]\nmemory = ", 2),
        ("[machine]\nmemory = 1\nmemory = 2", 3),
        ("[machine\n", 1),
        ("[machine]\n\nboard = 'pc\n", 3),
        ("[machine]\nboard = '''pc\n\n", 3),
        ("\na = " + "1" * 5000, 2),
        ("a = " + "[" * 50000, 1),
    ],
)
def test_what_is_not_toml_is_answered_with_its_line(text: str, line: int) -> None:
    assert refusal(text).startswith(f"vm/machine.toml:{line}: ")


# -- files ------------------------------------------------------------------------------------


def test_a_file_is_read_and_places_its_image_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("[image]\npath = 'sub/boot.bin'")
    machine = load_machine(tmp_path / "m.toml")
    assert machine.image == ImageSpec(path=tmp_path / "sub" / "boot.bin")
    assert machine.path == tmp_path / "m.toml"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the machine file .*no such file"):
        load_machine(tmp_path / "absent.toml")


def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"[machine]\n# gr\xfcn\n")
    with pytest.raises(InputError, match=r"m\.toml:2: not text in UTF-8"):
        load_machine(tmp_path / "m.toml")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(InputError, match="is it the right file"):
        load_machine(tmp_path / "m.toml")


# -- whatever is in it ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(COMPLETE.splitlines()) | st.text(max_size=12), max_size=12))
def test_any_text_is_a_machine_or_an_input_error(lines: list[str]) -> None:
    with suppress(InputError):
        assert isinstance(parse("\n".join(lines)), MachineSpec)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(COMPLETE.split()), st.text(max_size=6))
def test_a_complete_file_with_one_word_changed_is_a_machine_or_an_input_error(
    word: str, other: str
) -> None:
    with suppress(InputError):
        assert isinstance(parse(COMPLETE.replace(word, other, 1)), MachineSpec)
