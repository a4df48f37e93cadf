"""One direction of a long line: a stream of bytes that arrives later, in order, bounded.

No I/O and no clock in here: whoever uses it says what time it is.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

#: What a line holds at most. A sender waits beyond that, as at the end of a TCP window.
CAPACITY_BYTES = 4 << 20
#: Charged for each piece beside its bytes, so that small pieces are bounded as well.
PIECE_OVERHEAD_BYTES = 64

#: What TCP puts into a segment on Ethernet with time stamps: 1500 less IP, TCP and 12 of options.
SEGMENT_BYTES = 1448
#: TCP_RTO_MIN, the least that Linux waits beyond the round trip before it sends again.
RETRANSMISSION_NS = 200_000_000


class DelayLine:
    """A line of ``delay_ns``. ``penalty_ns`` says how much longer a piece of that length takes."""

    def __init__(
        self,
        delay_ns: int,
        capacity_bytes: int = CAPACITY_BYTES,
        penalty_ns: Callable[[int], int] = lambda length: 0,
    ) -> None:
        self._delay_ns = delay_ns
        self._capacity_bytes = capacity_bytes
        self._penalty_ns = penalty_ns
        self._pieces: deque[tuple[int, memoryview]] = deque()
        self._charged_bytes = 0
        self._last_due_ns = 0
        self._end_due_ns: int | None = None

    @property
    def room(self) -> int:
        """The bytes that :meth:`put` takes now; 0 after the end."""
        if self._end_due_ns is not None:
            return 0
        return max(0, self._capacity_bytes - self._charged_bytes - PIECE_OVERHEAD_BYTES)

    @property
    def due_ns(self) -> int | None:
        """When the next bytes, or else the end, arrive; None while nothing is under way."""
        return self._pieces[0][0] if self._pieces else self._end_due_ns

    def put(self, data: bytes, now_ns: int) -> None:
        """Sends bytes, at most :attr:`room` of them, on their way."""
        assert 0 < len(data) <= self.room
        self._pieces.append((self._arrival(now_ns, len(data)), memoryview(data)))
        self._charged_bytes += len(data) + PIECE_OVERHEAD_BYTES

    def end(self, now_ns: int) -> None:
        """Sends the stream's end after what was put before."""
        self._end_due_ns = self._arrival(now_ns, 0)

    def ready(self, now_ns: int) -> memoryview | None:
        """The next bytes that have arrived, not all of them perhaps; None if there are none."""
        if not self._pieces or self._pieces[0][0] > now_ns:
            return None
        return self._pieces[0][1]

    def take(self, count: int) -> None:
        """Removes the first ``count`` bytes of what :meth:`ready` has given."""
        due_ns, piece = self._pieces.popleft()
        self._charged_bytes -= count
        if count < len(piece):
            self._pieces.appendleft((due_ns, piece[count:]))
        else:
            self._charged_bytes -= PIECE_OVERHEAD_BYTES

    def has_ended(self, now_ns: int) -> bool:
        """Whether the end has arrived."""
        return not self._pieces and self._end_due_ns is not None and self._end_due_ns <= now_ns

    def _arrival(self, now_ns: int, length: int) -> int:
        """When what is sent now arrives: never before what was sent earlier."""
        due_ns = now_ns + self._delay_ns + self._penalty_ns(length)
        self._last_due_ns = max(self._last_due_ns, due_ns)
        return self._last_due_ns


class Loss:
    """Loss of segments, modelled as the time that TCP takes to notice and to send again.

    That is Linux's retransmission timeout (RFC 6298): the round trip and 200 ms, doubled with each
    further loss. Fast retransmissions are not modelled.
    """

    def __init__(self, share: float, rtt_ns: int, source: random.Random) -> None:
        """``share`` of all segments are lost, as ``source`` has it."""
        self._share = share
        self._timeout_ns = rtt_ns + RETRANSMISSION_NS
        self._source = source

    def penalty_ns(self, length: int) -> int:
        """How much later ``length`` bytes arrive because of what was lost of them."""
        segments = -(-length // SEGMENT_BYTES)
        return max((self._of_one_segment() for _ in range(segments)), default=0)

    def _of_one_segment(self) -> int:
        delay_ns, timeout_ns = 0, self._timeout_ns
        while self._source.random() < self._share:
            delay_ns += timeout_ns
            timeout_ns *= 2
        return delay_ns
