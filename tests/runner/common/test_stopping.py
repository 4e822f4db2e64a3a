"""SIGTERM and SIGHUP end the work as Ctrl-C does."""

import os
import signal

import pytest
from kandinsky_mindir.runner.common.stopping import HungUp, Terminated, stopped_by_signals


@pytest.mark.parametrize("number, kind, status", [(signal.SIGTERM, Terminated, 143), (signal.SIGHUP, HungUp, 129)])
def test_a_signal_is_raised_once(number, kind, status):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stopped, stopped_by_signals():
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("it went on")
        finally:
            os.kill(os.getpid(), number)  # while it tidies up
    assert type(stopped.value) is kind and kind.status == status
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_ends_as_by_default():
    with stopped_by_signals():
        pid = os.fork()
        if not pid:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
