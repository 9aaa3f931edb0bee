"""The signals by which threads wake each other: one of an eventfd where there is one, and one of a lock."""

from __future__ import annotations

import errno
import os
import select
import threading

import pytest

from quota_engine.stores import thread_signal as module
from quota_engine.stores.thread_signal import EventfdSignal, LockSignal, ThreadSignal, signal_of_this_thread

WAIT_S = 30.0
KINDS = [LockSignal] + [EventfdSignal] * hasattr(os, "eventfd")

needs_eventfd = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="the system has no eventfd")


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_wakes_its_thread_once(kind: type[ThreadSignal]) -> None:
    signal = kind()
    assert not signal.wait(0)
    waker = threading.Thread(target=signal.set)
    waker.start()
    assert signal.wait(WAIT_S)
    waker.join()
    assert not signal.wait(0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_that_is_set_twice_ends_one_wait(kind: type[ThreadSignal]) -> None:
    signal = kind()
    signal.set()
    signal.set()
    assert signal.wait(1e12), "longer than the system can wait"
    assert not signal.wait(0)
    signal.set()
    assert signal.wait(None)


def test_a_thread_has_one_signal_of_its_own() -> None:
    others: list[ThreadSignal] = []
    other = threading.Thread(target=lambda: others.append(signal_of_this_thread()))
    other.start()
    other.join(WAIT_S)
    assert signal_of_this_thread() is signal_of_this_thread()
    assert others[0] is not signal_of_this_thread()


@needs_eventfd
def test_a_thread_has_an_eventfd_unless_it_cannot_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(module._new_signal(), EventfdSignal)
    with monkeypatch.context() as patch:
        patch.delattr(select, "poll")  # as eventlet does
        assert isinstance(module._new_signal(), LockSignal)

    def refuse(*_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    assert isinstance(module._new_signal(), LockSignal)
    monkeypatch.delattr(os, "eventfd")
    assert isinstance(module._new_signal(), LockSignal)


@needs_eventfd
def test_the_last_reference_closes_the_eventfd() -> None:
    """A late waker has a reference, so it never writes to another file of the same number."""
    signal = EventfdSignal()
    number = signal._fd
    waker = signal
    del signal
    waker.set()
    del waker
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@needs_eventfd
def test_a_forked_child_has_another_signal() -> None:
    """Else its thread could take the wake-ups of the parent's."""
    own = signal_of_this_thread()
    child = os.fork()
    if not child:
        os._exit(0 if signal_of_this_thread() is not own else 1)
    assert os.waitpid(child, 0)[1] == 0
