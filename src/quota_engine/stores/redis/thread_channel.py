"""A node channel of threads: one of the threads that wait sends the attempts of all of them.

A thread that finds the server idle sends its own attempt at once. Otherwise it sleeps until it has replies, until it is
the next sender, or until its end.
"""

from __future__ import annotations

__all__ = ["ThreadChannel", "ThreadReplies"]

import threading
from collections.abc import Callable
from typing import Any

from quota_engine.stores.redis.node_channel import NodeChannel, WaitingAttempt
from quota_engine.stores.thread_signal import ThreadSignal, signal_of_this_thread


class ThreadReplies:
    """The replies to a thread's attempt, or its error.

    Attributes:
        replies: The replies, once they are there.
        error: The error, if there is one.
    """

    __slots__ = ("_has_stopped", "_woken", "error", "replies")

    def __init__(self) -> None:
        self.replies: list[Any] | None = None
        self.error: BaseException | None = None
        self._has_stopped = False
        self._woken: ThreadSignal | None = None  # most threads need none

    def done(self) -> bool:
        """Return True if there are replies or an error, or if the thread waits no more."""
        return self._has_stopped or self.replies is not None or self.error is not None

    def set_result(self, replies: list[Any], /) -> None:
        """See :class:`~quota_engine.stores.redis.node_channel.Replies`."""
        self.replies = replies
        self.wake()

    def set_exception(self, error: BaseException, /) -> None:
        """See :class:`~quota_engine.stores.redis.node_channel.Replies`."""
        self.error = error
        self.wake()

    def stop_waiting(self) -> None:
        """Wait no more."""
        self._has_stopped = True

    def prepare_sleep(self) -> ThreadSignal:
        """Return the signal that wakes the thread. Look afterwards if there is a reason to sleep."""
        if self._woken is None:
            self._woken = signal_of_this_thread()
        return self._woken

    def wake(self) -> None:
        """Wake the thread if it sleeps."""
        if self._woken is not None:
            self._woken.set()


class ThreadChannel:
    """The writes of a process's threads to one server."""

    __slots__ = ("_channel", "lock")

    def __init__(self) -> None:
        self._channel: NodeChannel[ThreadReplies] = NodeChannel()
        self.lock = threading.Lock()
        """Held while attempts are taken and their requests are made, so that no thread gives up in the middle."""

    def try_begin(self) -> bool:
        """Begin a write of one attempt and return True, unless the server is busy; :meth:`end_write` ends it."""
        with self.lock:
            return self._channel.try_begin()

    def exchange(
        self,
        waiting: WaitingAttempt[ThreadReplies],
        send: Callable[[list[WaitingAttempt[ThreadReplies]]], None],
        left_s: Callable[[], float | None],
    ) -> bool:
        """Send an attempt, or wait until another thread has; return False if no time is left.

        Args:
            waiting: The attempt. Later, its replies or its error are there.
            send: Sends several attempts in one write, and gives each its replies or its error.
            left_s: Returns the seconds for which the thread may wait; ``None`` without a limit.
        """
        replies = waiting.replies
        with self.lock:
            self._channel.wait(waiting)
        try:
            while True:
                if taken := self._take():
                    try:
                        send(taken)
                    finally:
                        self.end_write()
                if replies.done():
                    return True
                if taken:
                    continue
                woken = replies.prepare_sleep()
                if not replies.done() and not self._may_take() and not woken.wait(left_s()):
                    with self.lock:
                        is_done = replies.done()
                        replies.stop_waiting()
                    self._wake_sender()
                    return is_done
        except BaseException:
            with self.lock:
                replies.stop_waiting()
            self._wake_sender()
            raise

    def _take(self) -> list[WaitingAttempt[ThreadReplies]]:
        """Return the attempts of the next write, and wake the sender of another one that may start."""
        with self.lock:
            taken = self._channel.take()
            first = self._channel.first() if taken else None
        if first is not None:
            first.replies.wake()
        return taken

    def end_write(self) -> None:
        """End a write, and wake the sender of the next one."""
        with self.lock:
            self._channel.end_write()
            first = self._channel.first()
        if first is not None:
            first.replies.wake()

    def _may_take(self) -> bool:
        with self.lock:
            return self._channel.first() is not None

    def _wake_sender(self) -> None:
        """Wake the first thread that waits, if a write may start: the one that was woken for it has gone."""
        with self.lock:
            first = self._channel.first()
        if first is not None:
            first.replies.wake()
