"""A store of your own: a journal in one file, which several processes of a machine share.

Each process keeps the ledgers in memory. For each call it locks the file, repeats what other processes have appended
since its last call, and appends its own call before it makes it. A killed process leaves at most a torn entry at the
end, which the next call cuts off. It needs ``fcntl``, so Linux or macOS. docs/recipes.md names its entry point.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import pickle
import threading
from typing import Any, NamedTuple

from quota_engine import BackendUnavailable, InvalidRequest, ManualClock, SystemClock
from quota_engine.clocks import monotonic_ms
from quota_engine.ports import Clock, StoreRequest
from quota_engine.stores.memory import MemoryStore


class JournalStore:
    """Keeps all ledgers in memory, and every call in a file that all processes repeat in the same order."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._clock, self._time = clock, ManualClock(0)
        self._memory = MemoryStore(self._time)
        self._file = open(path, "a+b", buffering=0)  # keep it private: pickle runs what it reads
        self._end, self._lock = 0, threading.Lock()

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        return self._call("apply", (address, command), ends_at_ms)

    def execute(self, request: StoreRequest[Any], *, ends_at_ms: float | None = None) -> Any:
        return self._call("execute", (request,), ends_at_ms)

    def close(self) -> None:
        self._file.close()

    def _call(self, method: str, arguments: tuple[Any, ...], ends_at_ms: float | None) -> Any:
        with self._lock:  # between threads; the lock of the file is between processes
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._catch_up()
                if ends_at_ms is not None and monotonic_ms() >= ends_at_ms:
                    raise BackendUnavailable("the call's time is over; nothing was done")
                now_ms = self._clock.now_ms()
                self._append(pickle.dumps((now_ms, method, arguments)))
                return self._run(now_ms, method, arguments)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, content: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._file.write(content) == len(content):
                self._end += len(content)
                return
        self._file.truncate(self._end)
        raise BackendUnavailable("the journal cannot be written; nothing was done")

    def _catch_up(self) -> None:
        start = self._file.seek(self._end)
        content = io.BytesIO(self._file.readall())
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            while True:
                call = pickle.load(content)
                self._end = start + content.tell()
                with contextlib.suppress(InvalidRequest):  # it was refused then, too
                    self._run(*call)
        self._file.truncate(self._end)

    def _run(self, now_ms: int, method: str, arguments: tuple[Any, ...]) -> Any:
        self._time.set_ms(now_ms)
        return getattr(self._memory, method)(*arguments)


class AsyncJournalStore(NamedTuple):
    """The same store for asyncio. Each call waits in a thread, because the lock of the file blocks."""

    store: JournalStore

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        return await asyncio.to_thread(self.store.apply, address, command, ends_at_ms=ends_at_ms)

    async def execute(self, request: StoreRequest[Any], *, ends_at_ms: float | None = None) -> Any:
        return await asyncio.to_thread(self.store.execute, request, ends_at_ms=ends_at_ms)

    async def close(self) -> None:
        self.store.close()


def open_store(url: str, clock: Clock | None) -> JournalStore:
    return JournalStore(url.removeprefix("journal://"), clock or SystemClock())


async def open_async_store(url: str, clock: Clock | None) -> AsyncJournalStore:
    return AsyncJournalStore(open_store(url, clock))
