"""Guests that are paused again and again, and what they must end with all the same."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from random import Random

from commandline import AT_MOST_S
from library import Terminal

from kvmshim.vmm.machine import Machine
from kvmshim.vmm.outcome import Outcome, RunResult

_MASK = 0xFFFF_FFFF
_DOTS = b"." * 32


def _rotated(value: int) -> int:
    return (value << 1 | value >> 31) & _MASK


def tally(rounds: int = 2048) -> bytes:
    """What the guest ``tally`` prints, computed as it does (guests/tally.asm)."""
    seed, total, table = 1, 0, [0] * 0x4000
    for _ in range(rounds):
        seed = (seed * 1664525 + 1013904223) & _MASK
        total = _rotated((total + seed) & _MASK) ^ ~seed & 0xFFFF
        total = (total + (seed >> 24) * 0x01010101) & _MASK
        table[seed >> 18] = (table[seed >> 18] + total) & _MASK
    memory = 0
    for value in table:
        memory = _rotated((memory + value) & _MASK)
    return _DOTS + b"\r\nports %08X memory %08X\r\n" % (total, memory)


def run_until(made: Machine, terminal: Terminal, after_s: float) -> RunResult:
    """Runs a machine, pausing it so long after its start."""
    with ThreadPoolExecutor(1) as pool:
        guest = pool.submit(made.run, timeout_s=AT_MOST_S, output=terminal)
        wait([guest], after_s)
        made.pause()
        return guest.result()


def run_in_pieces(
    made: Machine,
    terminal: Terminal,
    seed: int,
    between: Callable[[], object] = lambda: None,
    longest_s: float = 0.02,
) -> tuple[RunResult, int]:
    """Runs a machine to its end, paused at random moments; the result, and the number of pauses.

    ``between`` is called during each pause.
    """
    moments = Random(seed)
    pauses = 0
    while True:
        result = run_until(made, terminal, moments.uniform(0, longest_s))
        if result.outcome is not Outcome.PAUSED:
            return result, pauses
        pauses += 1
        between()
