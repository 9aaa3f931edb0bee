"""Attempts of several ledgers in one write to a server. No I/O: both stores send it and read its replies."""

from __future__ import annotations

__all__ = ["REJECTIONS", "SharedWrite", "may_still_run"]

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis.exceptions import AuthenticationError, BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from quota_engine.stores.call_end import CallEnd
from quota_engine.stores.redis.node_channel import WaitingAttempt
from quota_engine.stores.redis.request_packing import Requests, ScriptRequest, pack_requests
from quota_engine.stores.redis.retrying_calls import Attempt, ReplyLost

REJECTIONS: Final = (AuthenticationError, BusyLoadingError)
"""The server answered, and rejects the connection."""
_SCRIPT_CALLS: Final = ("EVAL", "EVALSHA", "FCALL")


def may_still_run(error: Exception, behind: Iterable[Sequence[str | int] | ScriptRequest]) -> bool:
    """Return True if a script may run although the server has rejected a request of the same write.

    Args:
        error: The rejection. A server that loads its data may finish before it reaches the next request.
        behind: The requests behind the rejected one.
    """
    return isinstance(error, BusyLoadingError) and any(request[0] in _SCRIPT_CALLS for request in behind)


class SharedWrite:
    """The attempts of one write. Each gets its replies or its error once."""

    __slots__ = ("_answered", "_complete", "_replies", "_requests", "_sent", "_unmade")

    def __init__(self, taken: Iterable[WaitingAttempt[Any]]) -> None:
        """Begin a write with these attempts."""
        self._unmade = deque(taken)
        self._sent: deque[tuple[WaitingAttempt[Any], int]] = deque()
        self._requests: list[Sequence[str | int] | ScriptRequest] = []
        self._replies: list[Any] = []
        self._complete: deque[tuple[WaitingAttempt[Any], list[Any]]] = deque()
        self._answered = 0

    def pack(self, make_requests: Callable[[Attempt, CallEnd | None], Requests]) -> bytes:
        """Make the requests of all attempts, and return their bytes. An attempt without time left gets its error."""
        unmade = self._unmade
        while unmade:
            one = unmade[0]
            if one.replies.done():  # its caller has given up
                unmade.popleft()
                continue
            try:
                made = make_requests(one.attempt, one.end)
            except Exception as error:
                unmade.popleft()
                _set_error(one, error)
                continue
            unmade.popleft()
            self._requests += made
            self._sent.append((one, len(made)))
        return pack_requests(self._requests)

    def replies_left(self) -> int:
        """Return the number of replies that have not been taken."""
        return len(self._requests) - self._answered if self._sent else 0

    def take_reply(self, reply: Any) -> None:
        """Take the next reply. After the last one of an attempt, :meth:`deliver` gives them to it.

        Raises:
            ConnectionError: The server rejects the connection with this reply.
        """
        if isinstance(reply, RedisConnectionError):  # the server is loading its data, or requires a password
            raise reply
        self._answered += 1
        replies = self._replies
        replies.append(reply)
        one, count = self._sent[0]
        if len(replies) == count:
            self._complete.append((one, replies))
            self._replies = []
            self._sent.popleft()

    def deliver(self) -> None:
        """Give each attempt its replies that has all of them."""
        complete = self._complete
        while complete:
            one, replies = complete.popleft()
            receiver = one.replies
            if not receiver.done():
                receiver.set_result(replies)

    def reject(self, error: Exception) -> None:
        """Give each attempt without replies its error after the server has rejected a request."""
        first = len(self._requests) - sum(count for _, count in self._sent)
        for one, count in self._take_unanswered():
            last = first + count
            may_run = may_still_run(error, self._requests[max(first, self._answered + 1) : last])
            _set_error(one, ReplyLost(str(error)) if may_run else error, error)
            first = last

    def lose(self, reason: str, cause: BaseException) -> None:
        """Give each attempt without replies the error that they are lost."""
        for one, _ in self._take_unanswered():
            _set_error(one, ReplyLost(reason), cause)

    def fail(self, error: Exception, cause: BaseException | None = None) -> None:
        """Give all attempts an error before anything was sent."""
        for one, _ in self._take_unanswered():
            _set_error(one, error, cause)

    def _take_unanswered(self) -> list[tuple[WaitingAttempt[Any], int]]:
        """Deliver the replies that have arrived, and return the other attempts."""
        self.deliver()
        unanswered = [*self._sent, *((one, 0) for one in self._unmade)]
        self._sent.clear()
        self._unmade.clear()
        return unanswered


def _set_error(waiting: WaitingAttempt[Any], error: Exception, cause: BaseException | None = None) -> None:
    """Give an attempt that has no replies an error. Each gets a copy, because callers extend a traceback."""
    if not waiting.replies.done():
        copy = type(error)(*error.args)
        copy.__cause__ = cause or error.__cause__
        waiting.replies.set_exception(copy)
