"""A machine on its way in: neither side waits for the other for ever."""

from __future__ import annotations

from collections import deque
from itertools import repeat

import pytest
from sample_states import HEADER

from kvmshim.errors import InputError
from kvmshim.vmstate.migrate_in import MigrateIn

SHORT_S = 0.001


def test_a_source_that_brings_no_more_is_given_up() -> None:
    coming = MigrateIn(HEADER, SHORT_S)
    with pytest.raises(InputError, match=r"no more of its memory comes within 0\.001 s"):
        list(coming.memory)
    with pytest.raises(InputError, match="no more of its memory"):
        coming.bring([])


def test_a_target_that_takes_nothing_in_is_given_up() -> None:
    coming = MigrateIn(HEADER, SHORT_S)
    with pytest.raises(InputError, match="its memory is not taken in within"):
        deque(map(coming.bring, repeat([], 100)))


def test_a_target_that_never_begins_is_given_up() -> None:
    coming = MigrateIn(HEADER, SHORT_S)
    coming.await_wanted()
    with pytest.raises(InputError, match="nobody has begun to take its memory in"):
        list(coming.memory)
