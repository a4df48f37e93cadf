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


def test_what_is_sent_to_a_forked_child_ends_the_child_and_nobody_is_called_for_it() -> None:
    reader, writer = os.pipe()
    with termination.calling(signal.SIGUSR1, lambda: os.write(writer, b"called")):
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        os.kill(pid, signal.SIGUSR1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGUSR1
        os.kill(os.getpid(), signal.SIGUSR1)  # heard after what the child might have caused
        assert os.read(reader, 100) == b"called"
    os.close(reader)
    os.close(writer)


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
