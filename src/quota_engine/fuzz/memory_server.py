"""The memory store behind a network that loses, delays and repeats: as a remote store would be."""

from __future__ import annotations

__all__ = ["MemoryServerStore"]

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.fuzz.faults import FaultSource, late_delay_ms, usual_delay_ms
from quota_engine.fuzz.network import Client
from quota_engine.fuzz.virtual_loop import VirtualLoop
from quota_engine.ports import ApplyMany, StoreRequest
from quota_engine.stores.memory import MemoryStore

T = TypeVar("T")

_LOST = "the reply was lost: the same key finds the outcome"


class MemoryServerStore:
    """A client of a memory store. It sends each request at most once, and a call is final."""

    def __init__(
        self,
        loop: VirtualLoop,
        memory: MemoryStore,
        faults: FaultSource,
        client: Client,
        is_down: Callable[[], bool],
        on_apply: Callable[[str, Any, Any], None],
    ) -> None:
        """
        Args:
            loop: runs the simulation.
            memory: the server's store.
            faults: decides about faults.
            client: the process.
            is_down: returns True while the server cannot be reached.
            on_apply: called with address, command and outcome of each command that was applied.
        """
        self._loop = loop
        self._memory = memory
        self._faults = faults
        self._client = client
        self._is_down = is_down
        self._on_apply = on_apply

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Awaitable[Any]:
        """See :meth:`quota_engine.ports.AsyncStore.apply`."""

        def run() -> Any:
            outcome = self._memory.apply(address, command)
            self._on_apply(address, command, outcome)
            return outcome

        return self._exchange(run) if ends_at_ms is None else self._call(run, ends_at_ms)

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> Awaitable[T]:
        """See :meth:`quota_engine.ports.AsyncStore.execute`."""

        def run() -> Any:
            answer: Any = self._memory.execute(request)
            if isinstance(request, ApplyMany):
                for command, outcome in zip(request.commands, answer, strict=True):
                    self._on_apply(request.office, command, outcome)
            return answer

        return self._exchange(run) if ends_at_ms is None else self._call(run, ends_at_ms)

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    async def _call(self, run: Callable[[], Any], ends_at_ms: float) -> Any:
        try:
            async with asyncio.timeout((ends_at_ms - monotonic_ms()) / 1000):
                return await self._exchange(run)
        except TimeoutError:
            raise OutcomeUnknown("the call's time is over: the same key finds the outcome") from None

    def _exchange(self, run: Callable[[], Any]) -> asyncio.Future[Any]:
        """Send a request; returns its answer. A request whose caller has given up meanwhile is not carried out."""
        faults, loop = self._faults, self._loop
        random = faults.random
        delay_ms = late_delay_ms(random) if faults.happens("request_late") else usual_delay_ms(random)
        answer: asyncio.Future[Any] = loop.create_future()
        loop.call_later(delay_ms / 1000, self._arrive, run, answer)
        return answer

    def _arrive(self, run: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        """Let the server answer a request, and send the answer."""
        faults = self._faults
        if self._client.is_dead or answer.done():
            return
        if self._is_down() or faults.happens("refused") or faults.happens("request_lost"):
            answer.set_exception(BackendUnavailable("the server cannot be reached, and nothing was done"))
            return
        try:
            result = run()
            if faults.happens("doubled"):
                copied = run()
                result = copied if isinstance(result, list) else result  # see VirtualNetwork
        except Exception as error:
            answer.set_exception(error)
            return
        if faults.happens("reply_lost"):
            answer.set_exception(OutcomeUnknown(_LOST))
            return
        random = faults.random
        delay_ms = late_delay_ms(random) if faults.happens("reply_late") else usual_delay_ms(random)
        self._loop.call_later(delay_ms / 1000, self._settle, answer, result)

    def _settle(self, answer: asyncio.Future[Any], result: Any) -> None:
        if not self._client.is_dead and not answer.done():
            answer.set_result(result)
