"""The fast way to serve one busy client: C receives and sends, Python only runs the models.

It does what :meth:`devserver.session.Session.receive` does, for requests of one element, and hands
everything else back. Counters live in the connection; they are lent to the C code for the length
of a call of :meth:`HotLoop.run`.
"""

from __future__ import annotations

import struct

from devserver._native import ffi, lib
from devserver.protocol.errors import RemoteProtocolError
from devserver.session import Session

_NEVER_NS = 1 << 62
#: ``struct serve_request``: seq, sent, address, value, time_ns, device_id, direction, space, size.
_REQUEST = struct.Struct("=QQQQQIBBB")

_BEFORE_BYTES = 4096

CLOSED: int = lib.SERVE_CLOSED
FAILED: int = lib.SERVE_FAILED
IDLE: int = lib.SERVE_IDLE


class HotLoop:
    """Serves one client at a time, for as long as it keeps asking."""

    def __init__(self, epoll_fd: int, spin_ns: int) -> None:
        """``spin_ns``: for how long to look for the next request; below 0, for ever."""
        self._stream = lib.serve_new()
        if self._stream == ffi.NULL:
            raise MemoryError("no memory for the data loop")
        self._stream.epoll_fd = epoll_fd
        self._stream.spin_ns = spin_ns
        self._request = ffi.buffer(ffi.addressof(self._stream, "request"))

    def close(self) -> None:
        """Frees the C side."""
        lib.serve_free(self._stream)
        self._stream = ffi.NULL

    def run(self, fd: int, session: Session, due_ns: int | None) -> tuple[int, bytes, bytes]:
        """Serves ``session`` on socket ``fd`` until something else is to be done, or ``due_ns``.

        Returns why it ended (one of this module's constants or another number), bytes to send, and
        bytes that were received and that the session is to :meth:`~Session.receive`.
        """
        stream, serve_next = self._stream, lib.serve_next
        request, unpack = self._request, _REQUEST.unpack_from
        access, found_request = session.access, lib.SERVE_REQUEST
        connection = session.connection
        timer_ns = _NEVER_NS if due_ns is None else due_ns
        outgoing, backplane = session.outgoing, session.backplane
        own_due = backplane.next_ns
        limit_ns = min(timer_ns, session.next_deadline_ns() or _NEVER_NS)
        self._lend(fd, session)
        answer = status = value = 0
        to_send = received = b""
        try:
            while True:
                found = serve_next(stream, answer, status, value, limit_ns)
                if found != found_request:
                    break
                (seq, sent, address, data, time_ns, device_id, direction, space, size) = unpack(
                    request
                )
                connection.received, connection.sent = seq, sent
                status, value = access(device_id, direction, space, address, size, data, time_ns)
                answer = direction + 1
                if outgoing and not self._put_before(session):
                    session.answer(direction, status, value, size)
                    return found, session.take_output(), b""
                if backplane.next_ns != own_due:
                    own_due = backplane.next_ns
                    limit_ns = min(timer_ns, session.next_deadline_ns() or _NEVER_NS)
        except RemoteProtocolError as error:
            return found, session.end(error.code, str(error)), b""
        self._give_back(session)
        if found == lib.SERVE_BYTES:
            received = bytes(ffi.buffer(stream.received_bytes, stream.in_used))
        elif found == lib.SERVE_BLOCKED:
            to_send = bytes(ffi.buffer(stream.out, stream.out_used))
        return int(found), to_send, received

    def _put_before(self, session: Session) -> bool:
        """Puts what a request caused before its answer; False if there is no room for so much."""
        caused = b"".join(session.outgoing)
        if len(caused) > _BEFORE_BYTES:
            return False
        session.outgoing.clear()
        ffi.memmove(self._stream.before, caused, len(caused))
        self._stream.before_used = len(caused)
        self._stream.sent = session.connection.sent
        return True

    def _lend(self, fd: int, session: Session) -> None:
        stream, connection = self._stream, session.connection
        stream.fd = fd
        stream.server_id, stream.vm_id = connection.server_id, connection.vm_id
        stream.hypervisor, stream.client_id = connection.hypervisor, connection.client_id
        stream.sent, stream.received = connection.sent, connection.received
        stream.acknowledged = connection.acknowledged
        stream.clock_offset_ns = -_NEVER_NS
        stream.clock_highest_ns = session.highest_clock_offset_ns()
        stream.out_used = stream.before_used = 0

    def _give_back(self, session: Session) -> None:
        stream, connection = self._stream, session.connection
        connection.sent, connection.received = stream.sent, stream.received
        connection.acknowledged = stream.acknowledged
        if stream.clock_offset_ns != -_NEVER_NS:
            session.observe_clock(stream.clock_offset_ns)
