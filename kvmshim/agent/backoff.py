"""The pauses between tries to reach a server: they grow, and no two clients keep the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

FIRST_S = 0.25
LONGEST_S = 15.0


def pauses(chance: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before each next try; ``chance`` gives numbers from 0 to 1.

    Each is between half and all of a span that doubles up to :data:`LONGEST_S`. Hundreds of agents
    whose server is started again do not come all at once.
    """
    span_s = FIRST_S
    while True:
        yield span_s * (0.5 + 0.5 * chance())
        span_s = min(span_s * 2, LONGEST_S)
