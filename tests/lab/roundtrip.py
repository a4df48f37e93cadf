"""Run in a lab: how long a server's answer takes, in ns, for each of the lab's servers."""

import os
import socket
import time

from devserver.protocol.connection import Connection, Role
from devserver.protocol.messages import Hello, Welcome

AT_MOST_S = 20.0


def round_trip_ns(address: str) -> int:
    """From HELLO to WELCOME, on a connection that is there already."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), AT_MOST_S) as sock:
        connection = Connection(Role.CLIENT)
        before_ns = time.monotonic_ns()
        sock.sendall(connection.send(Hello()))
        heard = list(connection.receive(sock.recv(65536)))
        after_ns = time.monotonic_ns()
    assert isinstance(heard[0], Welcome)
    return after_ns - before_ns


if __name__ == "__main__":
    for name, value in sorted(os.environ.items()):
        if name.startswith("KVMSHIM_SERVER_"):
            print(round_trip_ns(value))
