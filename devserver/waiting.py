"""How a loop of the server waits for what comes next."""

from __future__ import annotations

#: Adaptive: spin while that pays, else sleep; spin: never sleep; block: sleep at once.
WAITS = ("adaptive", "spin", "block")
#: For how long to spin before sleeping, unless it is for ever.
SPIN_NS = 100_000
#: How long a call of a model may take, unless it is said otherwise.
MODEL_TIMEOUT_S = 5.0
