"""A service in this process, on a socket for a browser, with a clock that the test sets: no page is waited for."""

from __future__ import annotations

__all__ = ["Stage", "staged", "wait_list_catalog"]

import asyncio
import contextlib
import threading
import tomllib
from collections.abc import Coroutine, Iterator
from importlib import resources
from typing import Any, TypeVar

from quota_engine.catalog import Catalog, catalog_from
from tests.support.in_process_service import Client, listening, running

T = TypeVar("T")


class Stage:
    """The service, and what a test does behind the browser's back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, port: int) -> None:
        self.client = client
        self.url = f"http://127.0.0.1:{port}"
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In the service's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def advance_ms(self, duration_ms: int) -> None:
        """Let time pass, and see that waiting rooms see it."""
        self.client.clock.advance_ms(duration_ms)


@contextlib.contextmanager
def staged(**changes: Any) -> Iterator[Stage]:
    """See :func:`tests.support.in_process_service.running` for the changes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    stack = contextlib.AsyncExitStack()

    async def begin() -> Stage:
        client = await stack.enter_async_context(running(**changes))
        return Stage(loop, client, await stack.enter_async_context(listening(client.app)))

    try:
        yield run(begin())
    finally:
        try:
            run(stack.aclose())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def wait_list_catalog(capacity: int = 100, **rules: int) -> Catalog:
    """Surabaya's, with a wait list for what comes back, and so many places online."""
    raw: dict[str, Any] = tomllib.loads(
        (resources.files("quota_engine.catalog.data") / "surabaya.toml").read_text(encoding="utf-8")
    )
    plan = raw["plans"][0]
    plan["re_release"] = {"rule": "wait_list"}
    for allotment in plan["allotments"]:
        if allotment["id"] == "online":
            allotment["capacity"] = capacity
    raw["rules"].update(rules)
    return catalog_from(raw)
