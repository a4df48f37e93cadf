"""``kvmshim run`` as a user meets it in scripts: images, pipes, signals, exit statuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import tinyguest
from commandline import (
    AT_MOST_S,
    children_of,
    command,
    devserver,
    environment,
    kvmshim,
    left_running,
    read_until,
    start,
    wait_until_gone,
)
from ownmodels import ROLLS, dice, loaded_dice, resetter

from kvmshim.bundled import find_guest

pytestmark = pytest.mark.kvm

GREETING = b"a guest of my own\r\n"
#: Prints, and ends with a status that no error of the command has.
CODE = tinyguest.say(GREETING) + tinyguest.leave(42) + tinyguest.HALT


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A flat image that greets and ends with status 42."""
    path = tmp_path / "guest.bin"
    path.write_bytes(CODE)
    return path


# -- images -------------------------------------------------------------------------------------


def boot_sector() -> bytes:
    return CODE.ljust(510, b"\0") + b"\x55\xaa"


def rom() -> bytes:
    """The last 4 KiB below 1 MiB: the reset vector jumps to their beginning."""
    reset_vector = b"\xea" + struct.pack("<HH", 0xF000, 0xF000)  # jmp f000:f000
    return CODE.ljust(4096 - 16, b"\0") + reset_vector.ljust(16, b"\0")


def elf() -> bytes:
    """An ELF32 executable for i386 with one segment at 1 MiB (ELF specification, book I)."""
    code = bytes([0xB0, 42, 0xE6, tinyguest.EXIT_PORT]) + tinyguest.HALT  # mov al, 42; out f4h, al
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    at, entry = 52 + 32, 1 << 20
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, at, entry, entry, len(code), len(code), 5, 1)
    return ident + header + segment + code


@pytest.mark.parametrize(
    ("name", "content", "output"),
    [
        ("flat", CODE, GREETING),
        ("boot-sector", boot_sector(), GREETING),
        ("rom", rom(), GREETING),
        ("elf", elf(), b""),
    ],
)
def test_an_image_of_the_users_own_boots_by_itself(
    name: str, content: bytes, output: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"my.{name}"
    path.write_bytes(content)
    result = kvmshim("run", path, "--timeout", "20")
    assert (result.returncode, result.stdout, result.stderr) == (42, output, b"")


def test_a_boot_sector_needs_no_bios(tmp_path: Path) -> None:
    path = tmp_path / "sector"
    path.write_bytes(boot_sector())
    result = kvmshim("run", path, "--no-bios", "--timeout", "20")
    assert (result.returncode, result.stdout) == (42, GREETING)


def test_a_multiboot_kernel_gets_its_command_line_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    shutil.copy(find_guest("elf32").path, path)
    result = kvmshim("run", path, "--append", "quiet  x=1", "--memory", "8M", "--timeout", "20")
    assert result.stdout.splitlines() == [
        b"command line: kernel quiet  x=1",
        b"memory above 1 MiB: 7168 KiB",
    ]


def test_a_flat_image_goes_where_it_is_told_to(image: Path) -> None:
    where = ("--kind", "flat", "--load-address", "0x20000", "--entry", "0x20000")
    result = kvmshim("run", image, *where, "--timeout", "20")
    assert (result.returncode, result.stdout) == (42, GREETING)


def test_a_machine_file_says_all_of_it(image: Path, tmp_path: Path) -> None:
    machine = tmp_path / "machine.toml"
    machine.write_text(
        '[machine]\nmemory = "2M"\nboard = "none"\n'
        '[image]\npath = "guest.bin"\n'
        '[[device]]\nname = "serial"\nkind = "uart16550"\nport = 0x3f8\nirq = 4\n'
        '[[device]]\nname = "out"\nkind = "debugexit"\nport = 0xf4\nplacement = "local"\n'
    )
    result = kvmshim("run", machine, "--timeout", "20")
    assert (result.returncode, result.stdout, result.stderr) == (42, GREETING, b"")


def test_a_device_of_the_users_own_takes_two_options(tmp_path: Path) -> None:
    guest = tmp_path / "guest.bin"
    guest.write_bytes(tinyguest.read(tinyguest.OWN_PORT) * 2 + tinyguest.leave_with_al())
    given = ("--model", dice(tmp_path), "--device", f"dice,port={tinyguest.OWN_PORT:#x}")
    assert kvmshim("run", guest, *given, "--timeout", "20").returncode == ROLLS[1]


def no_ipv6() -> bool:
    """Whether this host lacks even the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return True
    return False


needs_ipv6 = pytest.mark.skipif(no_ipv6(), reason="this host has no IPv6")


@pytest.mark.parametrize(
    "address",
    [
        "unix:{}/socket",
        "tcp://127.0.0.1:0",
        pytest.param("tcp://[::1]:0", marks=needs_ipv6),
    ],
)
def test_a_server_that_runs_already_serves(address: str, image: Path, tmp_path: Path) -> None:
    with devserver(address.format(tmp_path)) as server:
        for _ in range(2):
            result = kvmshim("run", image, "--server", server.address, "--timeout", "20")
            assert (result.returncode, result.stdout) == (42, GREETING)


# -- pipes --------------------------------------------------------------------------------------


def test_piped_input_reaches_the_guest_and_its_end_hangs_up() -> None:
    result = kvmshim("run", "echo", "--timeout", "30", given=b"abc\n")
    assert (result.returncode, result.stdout) == (0, b"ready\r\nabc\n")


def test_piped_input_is_any_bytes_the_escape_key_too() -> None:
    every = bytes(sorted({*range(256)} - {4}))
    result = kvmshim("run", "echo", "--timeout", "30", given=every)
    assert (result.returncode, result.stdout) == (0, b"ready\r\n" + every)


def test_a_shells_pipeline_works_and_the_report_stays_out_of_it(tmp_path: Path) -> None:
    line = (
        f'"{sys.executable}" -m kvmshim run triple_fault </dev/null 2>{tmp_path}/report'
        " | tr a-z A-Z"
    )
    result = subprocess.run(
        line, shell=True, capture_output=True, timeout=AT_MOST_S, env=environment()
    )
    assert result.stdout == b"ABOUT TO FAULT THREE TIMES OVER\r\n"
    assert (tmp_path / "report").read_text().startswith("kvmshim: the guest crashed")


def test_a_run_ends_quietly_when_nobody_reads_its_output() -> None:
    env = environment()
    with start(command("run", "echo", "--timeout", "30"), env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout, b"ready")
        process.stdout.close()
        process.stdin.write(b"anything")
        process.stdin.flush()
        assert process.wait(AT_MOST_S) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""
    assert left_running(env) == []


@pytest.mark.parametrize("what", [("run", "hello"), ("guests",), ("doctor",)])
def test_output_that_can_not_be_written_is_told_in_one_line(what: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        process = start(command(*what), stdin=subprocess.DEVNULL, stdout=full)
        _, said = process.communicate(timeout=AT_MOST_S)
    assert process.returncode == 114
    assert said.decode().splitlines()[0].startswith("kvmshim: ")
    assert said.count(b"\n") == 1
    assert b"No space left on device" in said


def test_a_run_without_any_standard_input_works() -> None:
    line = f'"{sys.executable}" -m kvmshim run hello <&-'
    result = subprocess.run(
        line, shell=True, capture_output=True, timeout=AT_MOST_S, env=environment()
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"Hello")


def test_the_counters_are_one_json_object_on_standard_error() -> None:
    result = kvmshim("run", "hello", "--stats")
    stats = json.loads(result.stderr)
    assert set(stats) == {"vcpu", "link (embedded)"}
    assert stats["link (embedded)"]["posted"] >= len(result.stdout)
    assert stats["vcpu"]["exits"] >= stats["vcpu"]["port_exits"]


# -- exit statuses ------------------------------------------------------------------------------


def test_the_guests_status_is_the_commands_up_to_111(image: Path) -> None:
    image.write_bytes(tinyguest.leave(111))
    assert kvmshim("run", image).returncode == 111


def test_a_larger_status_of_the_guest_is_112_and_told(image: Path) -> None:
    image.write_bytes(tinyguest.leave(200))
    result = kvmshim("run", image)
    assert result.returncode == 112
    assert result.stderr == b"kvmshim: the guest's exit status was 200\n"


def test_a_crash_is_117_and_halting_for_good_118() -> None:
    assert kvmshim("run", "triple_fault").returncode == 117
    assert kvmshim("run", "halt").returncode == 118


@pytest.mark.parametrize("place", ["server", "local"])
def test_a_model_that_raises_is_119_with_its_name_and_line(
    place: str, image: Path, tmp_path: Path
) -> None:
    model, line = loaded_dice(tmp_path)
    image.write_bytes(tinyguest.read(tinyguest.OWN_PORT) + tinyguest.leave(0))
    device = f"loaded,port={tinyguest.OWN_PORT:#x},placement={place}"
    result = kvmshim("run", image, "--model", model, "--device", device)
    first = result.stderr.decode().splitlines()[0]
    assert result.returncode == 119
    assert "device 'loaded' (loaded) failed: ValueError: it rolled off the table" in first
    assert first.endswith(f"{model}:{line}")


def test_a_guest_that_resets_its_machine_is_120(image: Path, tmp_path: Path) -> None:
    image.write_bytes(tinyguest.write(tinyguest.OWN_PORT, 1) + tinyguest.SPIN)
    device = f"resetter,port={tinyguest.OWN_PORT:#x}"
    result = kvmshim("run", image, "--model", resetter(tmp_path), "--device", device)
    assert result.returncode == 120
    assert result.stderr == b"kvmshim: the guest reset the machine\n"


def test_a_guest_whose_time_is_over_is_124_with_its_registers(image: Path) -> None:
    image.write_bytes(tinyguest.SPIN)
    result = kvmshim("run", image, "--timeout", "0.2")
    assert result.returncode == 124
    assert b"did not end within 0.2 s" in result.stderr
    assert b"cs:ip = 0000:00007c00" in result.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_signal_ends_the_run_and_its_server(number: signal.Signals, status: int) -> None:
    env = environment()
    with start(command("run", "echo"), env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout, b"ready")
        process.send_signal(number)
        assert process.wait(AT_MOST_S) == status
        assert process.stderr.read() == b""
    assert left_running(env) == []


def test_ctrl_c_before_the_command_is_loaded_is_as_quiet(tmp_path: Path) -> None:
    """A module that the command imports early is replaced by one that presses Ctrl-C."""
    (tmp_path / "argparse.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    with start(command("run", "echo"), env=env) as process:
        _, said = process.communicate(timeout=AT_MOST_S)
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def test_a_server_of_a_runs_own_does_not_outlive_a_killed_run() -> None:
    with start(command("run", "echo")) as process:
        assert process.stdout is not None
        read_until(process.stdout, b"ready")
        servers = children_of(process.pid)
        assert len(servers) == 1
        process.kill()
    wait_until_gone(servers)


def test_a_killed_server_of_a_runs_own_is_116() -> None:
    with start(command("run", "echo")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout, b"ready")
        (server,) = children_of(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(AT_MOST_S) == 116
        assert process.stderr.read().startswith(b"kvmshim: lost the device server at (embedded)")


# -- over a socket, really ----------------------------------------------------------------------


def traced_calls(arguments: list[str], log: Path) -> int:
    """How often the command's processes call send and recv, as strace sees it."""
    strace = ["strace", "-f", "-qq", "-e", "trace=sendto,recvfrom", "-o", str(log), *arguments]
    result = subprocess.run(
        strace,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=AT_MOST_S,
        env=environment(),
    )
    if b"ptrace" in result.stderr or b"Operation not permitted" in result.stderr:
        pytest.skip(f"strace may not trace here: {result.stderr.decode().strip()}")
    assert result.returncode == 0
    return sum("EAGAIN" not in line for line in log.read_text().splitlines())


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_every_poll_crosses_a_socket_unless_the_register_is_leased_or_local(
    tmp_path: Path,
) -> None:
    run = command("run", "polled", "--wait", "block", "--no-shared-memory")
    polls = len(find_guest("polled").manifest["expect"])
    # Each is sent and received at either end.
    strict = traced_calls([*run, "--policy", "strict"], tmp_path / "strict")
    assert strict >= 4 * polls
    assert traced_calls(run, tmp_path / "leased") < strict
    assert traced_calls([*run, "--placement", "local"], tmp_path / "local") == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_poll_of_a_server_on_this_machine_needs_no_socket(tmp_path: Path) -> None:
    run = command("run", "polled", "--wait", "block", "--policy", "strict")
    polls = len(find_guest("polled").manifest["expect"])
    without = traced_calls([*run, "--no-shared-memory"], tmp_path / "without")
    assert traced_calls(run, tmp_path / "with") + 2 * polls < without
