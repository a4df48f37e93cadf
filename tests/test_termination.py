"""What signals have done, whatever the main thread is at."""

from __future__ import annotations

import os
import select
import signal

from commandline import AT_MOST_S

from kvmshim import termination


def test_a_signal_calls_though_the_main_thread_is_in_a_system_call_that_it_does_not_cut_short() -> (
    None
):
    reader, writer = os.pipe()
    with termination.calling(signal.SIGUSR1, lambda: os.close(writer)):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            os.kill(os.getpid(), signal.SIGUSR1)  # another thread's affair now
            assert select.select([reader], [], [], AT_MOST_S)[0]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    os.close(reader)


def test_afterwards_the_signal_has_its_former_handler() -> None:
    def handler(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with termination.calling(signal.SIGUSR1, lambda: None):
            assert signal.getsignal(signal.SIGUSR1) is not handler
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)
