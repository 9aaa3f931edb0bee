"""Signals by which the threads of a store wake each other.

A thread that wakes another one by a lock holds the interpreter's lock (GIL). The other one runs at once, finds the GIL
taken, and sleeps again, so each wake-up takes two switches of a thread. A write to an eventfd releases the GIL first.
"""

from __future__ import annotations

__all__ = ["EventfdSignal", "LockSignal", "ThreadSignal", "signal_of_this_thread"]

import abc
import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from quota_engine.forks import call_in_child

_POLL_MS_MAX: Final = 2**31 - 1


class ThreadSignal(abc.ABC):
    """Wakes one thread, which uses it again and again.

    A late :meth:`set` may end a later :meth:`wait`. So look for the reason to sleep before each :meth:`wait`, and again
    after it.
    """

    @abc.abstractmethod
    def set(self) -> None:
        """Wake the thread, or let it not sleep the next time."""

    @abc.abstractmethod
    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until the signal is set; return False if that takes longer than this time in seconds."""


class LockSignal(ThreadSignal):
    """A signal of a lock. It takes a fifth of the processor time of an event, which any number of threads may await."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout_s: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))


class EventfdSignal(ThreadSignal):
    """A signal of an eventfd, which only Linux has. It closes with the last reference, so no late ``set`` misses it."""

    _fd = -1

    def __init__(self) -> None:
        """Open the eventfd.

        Raises:
            OSError: The process has as many open files as it may have.
        """
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # a module may be gone at the exit
        if self._fd >= 0:
            close(self._fd)

    def set(self) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, timeout_s: float | None) -> bool:
        if not self._poll.poll(None if timeout_s is None else min(timeout_s * 1000, _POLL_MS_MAX)):
            return False
        os.eventfd_read(self._fd)  # only this thread reads it, so it does not block
        return True


def _new_signal() -> ThreadSignal:
    if hasattr(os, "eventfd") and hasattr(select, "poll"):  # eventlet takes poll away
        with contextlib.suppress(OSError):
            return EventfdSignal()
    return LockSignal()


class _OwnSignal(threading.local):
    """The signal of each thread."""

    signal: ThreadSignal

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Replace the signal. In a forked child, the only thread shares its eventfd with a thread of the parent."""
        self.signal = _new_signal()


_own = _OwnSignal()
call_in_child(_own.renew)


def signal_of_this_thread() -> ThreadSignal:
    """Return the signal that wakes this thread."""
    return _own.signal
