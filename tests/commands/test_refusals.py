"""What a user gets for a mistake: one line that says why, a status, and nothing left running."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commandline import command, devserver, environment, kvmshim, the_line

from devserver.protocol import codec
from devserver.protocol.connection import Connection, Role
from devserver.protocol.limits import PROTOCOL_VERSION
from devserver.protocol.messages import (
    Attach,
    Attached,
    AttachedDevice,
    AttachedRegion,
    Busy,
    Feedback,
    Hello,
    Request,
    Welcome,
)

pytestmark = pytest.mark.process

BAD_INPUT, UNREACHABLE, LOST = 113, 115, 116


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["helo"], "did you mean 'hello'"),
        (["/there/is/no.bin"], "no such file"),
        (["/"], "directory"),
        (["hello", "--memory", "12"], "between 1 MiB and 3 GiB"),
        (["hello", "--memory", "much"], "is not a size"),
        (["hello", "--timeout", "-1"], "seconds above 0"),
        (["hello", "--server", "ftp://x"], "neither tcp://HOST:PORT nor unix:PATH"),
        (["hello", "--device", "testdev,port"], "KEY=VALUE"),
        (["hello", "--device", "uart16450,port=0x500"], "did you mean 'uart16550'"),
        (["hello", "--device", "postcode,port=0x3f8,name=x"], "both claim port 0x3f8"),
        (["hello", "--device", "postcode,port=0x500,name=x,loud=1"], "no option 'loud'"),
        (["hello", "--model", "/there/is/no.py"], "No such file"),
        (["hello", "--append", "x"], "--append"),
        ([], "GUEST"),
    ],
)
def test_a_mistake_on_the_command_line(arguments: list[str], said: str) -> None:
    result = kvmshim("run", *arguments)
    assert (result.returncode, said in the_line(result)) == (BAD_INPUT, True), result.stderr


@pytest.mark.parametrize(("data", "said"), [(b"", "empty"), (bytes(17 << 20), "more memory")])
def test_an_image_that_can_not_be_booted(tmp_path: Path, data: bytes, said: str) -> None:
    image = tmp_path / "image.bin"
    image.write_bytes(data)
    result = kvmshim("run", image)
    assert (result.returncode, said in the_line(result)) == (BAD_INPUT, True)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[machine]\nmemroy = "1M"\n', 2, "did you mean 'memory'"),
        ("[machine]\nmemory = 5\n", 2, "memory"),
        ('[machine]\n\n[[device]]\nname = "com1"\nprot = 5\n', 5, "did you mean 'port'"),
        ("[machine\n", 1, "not valid TOML"),
    ],
)
def test_a_bad_machine_file_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(text)
    result = kvmshim("run", path)
    assert result.returncode == BAD_INPUT
    assert f"machine.toml:{line}:" in the_line(result)
    assert said in the_line(result)


# -- servers that are not what they should be ---------------------------------------------------


@contextmanager
def server_that(behaves: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server for one connection, which it treats as ``behaves`` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                behaves(sock)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(60)


def linger(sock: socket.socket) -> None:
    """Reads until the client goes."""
    while sock.recv(65536):
        pass


def says(data: bytes) -> Callable[[socket.socket], None]:
    def behave(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(data)
        linger(sock)

    return behave


def test_nobody_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    result = kvmshim("run", "hello", "--server", f"tcp://127.0.0.1:{port}")
    assert (result.returncode, "ECONNREFUSED" in the_line(result)) == (UNREACHABLE, True)


def test_there_is_no_such_socket(tmp_path: Path) -> None:
    result = kvmshim("run", "hello", "--server", f"unix:{tmp_path / 'none'}")
    assert (result.returncode, "ENOENT" in the_line(result)) == (UNREACHABLE, True)


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame of"),
        (b"\0\0\0\3\x92\x63\x80", "unknown message type"),
        (b"\0\0\0\4\xc1\xc1\xc1\xc1", "not msgpack"),
        (Connection(Role.SERVER).send(Busy("all places are taken")), "all places are taken"),
    ],
)
def test_something_else_than_a_device_server_answers(data: bytes, said: str) -> None:
    with server_that(says(data)) as address:
        result = kvmshim("run", "hello", "--server", address)
    assert (result.returncode, said in the_line(result)) == (UNREACHABLE, True), result.stderr


@pytest.mark.kvm
def test_the_server_speaks_another_version() -> None:
    def behave(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(codec.frame(codec.encode(Welcome(PROTOCOL_VERSION + 1, 1, 1, 1))))
        linger(sock)

    with server_that(behave) as address:
        result = kvmshim("run", "hello", "--server", address)
    assert (result.returncode, "version" in the_line(result)) == (UNREACHABLE, True)


def latch_server(answer: Callable[[Connection, Request], bytes]) -> Callable[[socket.socket], None]:
    """A server with one device, at F4h, that answers its first request as told."""

    def behave(sock: socket.socket) -> None:
        connection = Connection(Role.SERVER)
        while data := sock.recv(65536):
            for message in connection.receive(data):
                if isinstance(message, Hello):
                    sock.sendall(connection.send(Welcome(PROTOCOL_VERSION, 1, 1, 1)))
                elif isinstance(message, Attach):
                    region = AttachedRegion("io", 0, 0xF4, 4)
                    device = AttachedDevice(1, "exit", "debugexit", 1, [region])
                    sock.sendall(connection.send(Attached(1, devices=[device])))
                elif isinstance(message, Request):
                    sock.sendall(answer(connection, message))
                    return linger(sock)

    return behave


def wrong(**fields: int) -> Callable[[Connection, Request], bytes]:
    """An answer that differs from the right one in the given fields."""

    def answer(connection: Connection, request: Request) -> bytes:
        right = {"seq": 1, "applied": request.seq, "vm_id": 1, "hypervisor": 1, "client_id": 1}
        rest = {"request": request.seq, "status": 0}
        message = Feedback(**{**right, **rest, **fields, "data": b""})  # type: ignore[arg-type]
        return codec.frame(codec.encode(message))

    return answer


@pytest.mark.kvm
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda *_: b"\xff" * 64, "frame length"),
        (lambda *_: b"\0\0\0\2\x92\x63", "unknown type"),
        (lambda *_: b"\0\0\0\2\x99\x20", "cut short"),
        (wrong(vm_id=9), "VM identifier: got 9"),
        (wrong(client_id=9), "client identifier: got 9"),
        (wrong(hypervisor=9), "hypervisor identifier: got 9"),
        (wrong(seq=7), "sequence number: got 7"),
        (wrong(request=7), "not awaited"),
    ],
)
def test_a_server_that_breaks_the_protocol_ends_the_run(
    answer: Callable[[Connection, Request], bytes], said: str, tmp_path: Path
) -> None:
    (tmp_path / "reader.bin").write_bytes(bytes.fromhex("e4f4 f4"))  # in al, F4h; hlt
    machine = tmp_path / "machine.toml"
    machine.write_text(
        '[machine]\nboard = "none"\n[image]\npath = "reader.bin"\n'
        '[[device]]\nname = "exit"\nkind = "debugexit"\nport = 0xf4\n'
    )
    with server_that(latch_server(answer)) as address:
        result = kvmshim("run", machine, "--server", address)
    assert (result.returncode, said in the_line(result)) == (LOST, True), result.stderr


@pytest.mark.kvm
def test_two_machines_one_server_and_only_one_of_them_is_at_fault(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.py"
    faulty.write_text(
        "from devserver.models import Access, Device, Region, Register\n"
        "class Faulty(Device):\n"
        "    kind = 'faulty'\n"
        "    registers = (Register(offset=0, name='X', access=Access.RO),)\n"
        "    regions = (Region(name='io', size=1, registers=registers),)\n"
        "    def read_x(self, now_ns):\n"
        "        return 1 // 0\n"
    )
    image = tmp_path / "reader.bin"
    image.write_bytes(bytes.fromhex("ba0005 ec f4"))  # mov dx, 500h; in al, dx; hlt
    with devserver("tcp://127.0.0.1:0", arguments=("--model", faulty)) as server:
        bad = kvmshim("run", image, "--server", server.address, "--device", "faulty,port=0x500")
        good = kvmshim("run", "hello", "--server", server.address)
    first = bad.stderr.decode().splitlines()[0]
    assert (bad.returncode, good.returncode) == (119, 0)
    assert "device 'faulty' (faulty) failed: ZeroDivisionError" in first
    assert f"{faulty}:7" in first


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to take /dev/kvm away")
def test_there_is_no_kvm() -> None:
    bare = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"'
    hide = ["unshare", "--mount", "sh", "-c", bare, "sh"]
    result = subprocess.run(
        [*hide, *command("run", "hello")],
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert result.returncode == 114
    assert "can't open /dev/kvm" in the_line(result)
