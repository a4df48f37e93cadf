"""What local devices say while nobody takes it: it is bounded, and nothing of it is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kvmshim.vmm.local_outbox import HIGH_BYTES, Outbox

PIECE = (0, 0, bytes(HIGH_BYTES // 4))


class Talker:
    """Emits in a thread of its own as a local device does, with room only."""

    def __init__(self, outbox: Outbox, pieces: int) -> None:
        self.said = 0
        self._outbox, self._pieces = outbox, pieces
        self.full = threading.Event()
        self.thread = threading.Thread(target=self._talk, daemon=True)
        self.thread.start()

    def _talk(self) -> None:
        for _ in range(self._pieces):
            if self.said == 4:
                self.full.set()
            self._outbox.wait_for_room()
            self._outbox.put(PIECE)
            self.said += 1


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    made = Outbox()
    yield made
    made.let_all_in(True)
    made.close()


def test_who_finds_no_room_waits_until_it_is_taken(outbox: Outbox) -> None:
    talker = Talker(outbox, pieces=6)
    assert talker.full.wait(30)
    assert talker.said == 4
    assert len(outbox.take()) == 4
    talker.thread.join(30)
    assert talker.said == 6
    assert len(outbox.take()) == 2


def test_what_small_pieces_take_beside_their_bytes_counts(outbox: Outbox) -> None:
    for _ in range(HIGH_BYTES // 64):
        outbox.put((0, 0, b"x"))
    waiting = threading.Thread(target=outbox.wait_for_room, daemon=True)
    waiting.start()
    assert waiting.is_alive()
    assert len(outbox.take()) == HIGH_BYTES // 64
    waiting.join(30)
    assert not waiting.is_alive()


def test_at_the_end_of_a_run_nobody_waits_for_room(outbox: Outbox) -> None:
    talker = Talker(outbox, pieces=9)
    assert talker.full.wait(30)
    outbox.let_all_in(True)
    talker.thread.join(30)
    assert talker.said == 9
    assert len(outbox.take()) == 9
