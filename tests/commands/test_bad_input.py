"""What a user can do wrong: one line that says so, a status that is not 0, nothing left running."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import tinyguest
from commandline import (
    AT_MOST_S,
    Result,
    command,
    environment,
    kvmshim,
    left_running,
    the_line,
)
from ownmodels import dice

from kvmshim.abi import Capability
from kvmshim.errors import HostError
from kvmshim.hypervisor.kvm.system import System

pytestmark = pytest.mark.process

BAD_INPUT, HOST = 113, 114
OWN = f"port={tinyguest.OWN_PORT:#x}"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image that would end with status 0."""
    path = tmp_path / "guest.bin"
    path.write_bytes(tinyguest.leave(0))
    return path


def refused(result: Result, why: str, status: int = BAD_INPUT) -> None:
    """The command ended with this status and one line with ``why`` in it, and printed nothing."""
    line = the_line(result)
    assert why in line
    assert line.startswith("kvmshim")
    assert (result.returncode, result.stdout) == (status, b"")


# -- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", "COMMAND"),
        ("fly", "invalid choice: 'fly'"),
        ("run", "GUEST"),
        ("run hello twice", "unrecognized arguments: twice"),
        ("run hello --colour", "unrecognized arguments: --colour"),
        ("run hello --wait never", "invalid choice: 'never'"),
        ("run hello --kind disk", "invalid choice: 'disk'"),
        ("run hello --timeout 0", "'0' is not a number of seconds above 0"),
        ("run hello --timeout soon", "'soon' is not a number of seconds above 0"),
        ("run hello --timeout nan", "'nan' is not a number of seconds above 0"),
        ("run hello --memory much", "--memory: 'much' is not a size"),
        ("run hello --memory 4K", "--memory 4K: give between 1 MiB and 3 GiB"),
        ("run hello --memory 5000000", "in multiples of 4 KiB"),
        ("run hello --load-address -1", "--load-address"),
        ("run hello --load-address here", "--load-address: 'here' is not a size"),
        ("run hello --entry here", "--entry: 'here' is not a size"),
        ("run hello --append x", "command line"),
        ("run hello --server nowhere", "neither tcp://HOST:PORT nor unix:PATH"),
        ("run hello --server tcp://host", "not of the form tcp://HOST:PORT"),
        ("run hello --server tcp://host:70000", "port 70000 is above 65535"),
        ("run hello --server unix:", "has no path"),
        ("run hello --server unix:/x --model y.py", "'devserver serve --model'"),
        ("run helo", "did you mean 'hello'?"),
        ("run zzzzz", "there are: hello, echo,"),
        ("bench --count 1", "'1' is not between 10 and 1000000"),
        ("bench --count many", "'many' is not between 10 and 1000000"),
        ("doctor --loud", "unrecognized arguments: --loud"),
        ("guests all", "unrecognized arguments: all"),
    ],
)
def test_wrong_arguments_are_told(arguments: str, why: str) -> None:
    refused(kvmshim(*shlex.split(arguments)), why)


COMMANDS = [
    *(("kvmshim", name) for name in ("", "run", "doctor", "bench", "lab", "guests")),
    *(("devserver", name) for name in ("", "serve", "models")),
]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_command_explains_itself(program: str, name: str) -> None:
    arguments = command(*([name] if name else []), "--help", program=program)
    result = subprocess.run(
        arguments, capture_output=True, text=True, timeout=AT_MOST_S, env=environment()
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: {program} {name}".rstrip())


# -- images -------------------------------------------------------------------------------------


def test_an_image_that_is_not_there_is_told(tmp_path: Path) -> None:
    refused(kvmshim("run", tmp_path / "none.bin"), "there is no such file")


def test_an_empty_image_is_told(image: Path) -> None:
    image.write_bytes(b"")
    refused(kvmshim("run", image), "empty")


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    refused(kvmshim("run", tmp_path), "it is a directory")


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(kvmshim("run", tmp_path / "pipe"), "it is not a regular file")


def test_an_image_larger_than_memory_is_told(image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(3 << 20)
    refused(kvmshim("run", image, "--kind", "flat", "--memory", "2M"), str(image))


def test_an_image_that_is_not_of_the_named_kind_is_told(image: Path) -> None:
    refused(kvmshim("run", image, "--kind", "elf32"), str(image))


# -- machine files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[machine]\nmemory = 5\n", 2, "'memory' in [machine]"),
        ("[machine]\nmemmory = 5\n", 2, "unknown key 'memmory' in [machine]; did you mean"),
        ("\n[machin]\n", 2, "did you mean 'machine'?"),
        ("[machine]\nboard = pc\n", 2, "not valid TOML"),
        ('[[device]]\nname = "com1"\nport = 70000\n', 3, "'port' in [[device]] 'com1'"),
        ('[[device]]\nname = "com1"\nplacement = "lab"\n', 3, "placement 'lab' is no server"),
        ('[[device]]\nname = "own"\n', 1, "it is not on the board and has no 'kind'"),
        ('[servers]\nlab = "lab:7000"\n', 2, "neither tcp://HOST:PORT nor unix:PATH"),
    ],
)
def test_a_mistake_in_a_machine_file_has_its_line_and_key(
    text: str, line: int, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    result = kvmshim("run", path)
    refused(result, why)
    assert the_line(result).startswith(f"kvmshim: {path}:{line}: ")


def test_a_machine_file_without_an_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text("")
    refused(kvmshim("run", path), "names no image; add an [image] table")


def test_a_machine_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    refused(kvmshim("run", tmp_path / "none.toml"), "there is no such file")


# -- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "why"),
    [
        ("", "the device's kind comes first"),
        (f",{OWN}", "the device's kind comes first"),
        ("debugcon,0x500", "'0x500' is not of the form KEY=VALUE"),
        ("debugcon,port=", "port: '' is not a size"),
        ("debugcon,port=0x10000", "port 0x10000 is above 65535"),
        (f"uart16550,{OWN},irq=24", "irq 24 is above 23"),
        (f"debugcon,{OWN},{OWN}", "'port' is given twice"),
    ],
)
def test_a_device_that_is_written_wrongly_is_told(device: str, why: str) -> None:
    refused(kvmshim("run", "hello", "--device", device), f"--device {device}: {why}")


@pytest.mark.kvm
@pytest.mark.parametrize("place", ["server", "local"])
@pytest.mark.parametrize(
    ("device", "why"),
    [
        (f"postcod,{OWN}", "did you mean 'postcode'?"),
        ("debugcon,name=mine,port=0x3f8", "both claim port 0x3f8"),
        ("debugcon,port=0x50,name=7", "a device can't be named '7': it is a number"),
        (f"debugcon,port=0x50,name={'a' * 65}", "a name has at most 64"),
        (f"debugcon,{OWN}", "two devices are named 'debugcon'"),
        (f"uart16550,{OWN},speed=9600", "has no option 'speed' (it has: paced)"),
        (f"uart16550,{OWN},paced=perhaps", "paced"),
        (f"postcode,name=mine,{OWN},irq=3", "interrupt output"),
    ],
)
def test_a_device_that_can_not_be_had_is_told(device: str, why: str, place: str) -> None:
    refused(kvmshim("run", "hello", "--device", f"{device},placement={place}"), why)


@pytest.mark.kvm
def test_two_devices_on_one_port_are_told_wherever_they_are() -> None:
    device = "debugcon,name=mine,port=0x3f8,placement=local"
    refused(
        kvmshim("run", "hello", "--device", device),
        "devices 'com1' and 'mine' both claim port 0x3f8; move one of them",
    )


@pytest.mark.kvm
def test_a_placement_that_is_no_server_is_told() -> None:
    refused(kvmshim("run", "hello", "--placement", "lab"), "no server is named 'lab'")


@pytest.mark.kvm
@pytest.mark.parametrize("place", ["server", "local"])
@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("none.py", None, "can't be read"),
        ("model.txt", "", "its name must end in .py"),
        ("empty.py", "", "defines no Device with a kind"),
        ("syntax.py", "\nclass Dice(\n", "syntax.py:2: SyntaxError"),
        ("raises.py", "\n\nraise KeyError('x')\n", "raises.py:3: KeyError"),
        ("imports.py", "import nothing_like_it\n", "imports.py:1: ModuleNotFoundError"),
    ],
)
def test_a_model_file_that_is_of_no_use_is_told(
    name: str, text: str | None, why: str, place: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    refused(kvmshim("run", "hello", "--model", path, "--placement", place), why)


@pytest.mark.kvm
def test_a_model_that_is_known_to_the_run_only_is_not_to_its_servers(tmp_path: Path) -> None:
    """The file goes to the run's own server; another one must have been given it itself."""
    given = ("--model", dice(tmp_path), "--device", f"dice,{OWN},placement=lab")
    refused(kvmshim("run", "hello", *given), "no server is named 'lab'")


# -- the host -----------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None,
    reason="needs root, unshare and setpriv to make a host without KVM",
)


def on_another_host(set_up: Sequence[str], *arguments: str, before: Sequence[str] = ()) -> Result:
    """Runs ``kvmshim run hello`` where /dev has nothing but null, urandom and what is set up."""
    run = shlex.join([*before, *command("run", "hello", *arguments)])
    steps = [
        "mount -t tmpfs none /dev",
        "mknod -m 666 /dev/null c 1 3",
        "mknod -m 666 /dev/urandom c 1 9",
        *set_up,
        f"exec {run}",
    ]
    env = environment()
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", " && ".join(steps)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=AT_MOST_S,
        env=env,
    )
    if result.stderr.startswith((b"mount: ", b"unshare: ", b"mknod: ")):
        pytest.skip(f"no mount namespace can be had: {result.stderr.decode().strip()}")
    assert left_running(env) == []
    return result


@needs_root
@pytest.mark.parametrize("place", ["server", "local"])
def test_a_host_without_kvm_is_told_what_to_do(place: str) -> None:
    result = on_another_host([], "--placement", place)
    refused(result, "can't open /dev/kvm: No such file or directory (ENOENT); the kvm", HOST)
    assert b"Without KVM, '--hypervisor unicorn' emulates the processor" in result.stderr


@needs_root
def test_a_user_without_permission_is_told_what_to_do() -> None:
    # Root without this capability is held to a file's mode like anybody else.
    common = ["setpriv", "--bounding-set", "-dac_override"]
    result = on_another_host(["mknod -m 000 /dev/kvm c 10 232"], before=common)
    refused(result, "can't open /dev/kvm: Permission denied (EACCES); add yourself", HOST)


@needs_root
def test_something_else_in_the_place_of_kvm_is_told() -> None:
    result = on_another_host(["mknod -m 666 /dev/kvm c 1 3"])
    refused(result, "KVM_GET_API_VERSION on /dev/kvm failed", HOST)


# -- the host, from a program -------------------------------------------------------------------


def test_a_program_is_told_that_there_is_no_kvm() -> None:
    with pytest.raises(HostError, match=r"can't open /nonexistent: .*ENOENT"):
        System("/nonexistent")


@pytest.mark.kvm
def test_a_program_is_told_which_capability_is_missing() -> None:
    class Old(System):
        def check(self, capability: Capability) -> int:
            return 0 if capability.name == "KVM_CAP_IRQCHIP" else super().check(capability)

    with Old() as system, pytest.raises(HostError, match=r"lacks KVM_CAP_IRQCHIP \(the in-kernel"):
        system.require()
