"""A service in this process for a browser: it listens on a socket, and the test sets its clock."""

from __future__ import annotations

__all__ = ["BrowserService", "browser_service", "wait_list_catalog"]

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


class BrowserService:
    """The service, with access for a test that runs in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Client, port: int) -> None:
        self.client = client
        self.url = f"http://127.0.0.1:{port}"
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the service's event loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def advance_ms(self, duration_ms: int) -> None:
        """Advance the service's clock."""
        self.client.clock.advance_ms(duration_ms)


@contextlib.contextmanager
def browser_service(**changes: Any) -> Iterator[BrowserService]:
    """Run a service. ``changes`` are those of :func:`tests.support.in_process_service.running`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    stack = contextlib.AsyncExitStack()

    async def start() -> BrowserService:
        client = await stack.enter_async_context(running(**changes))
        return BrowserService(loop, client, await stack.enter_async_context(listening(client.app)))

    async def end() -> None:
        await stack.aclose()
        # The feed of a stream ends up to a second after its last reader. A task that outlives its loop is reported in
        # the log of any later test.
        others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield run(start())
    finally:
        try:
            run(end())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def wait_list_catalog(capacity: int = 100, **rules: int) -> Catalog:
    """Return Surabaya's catalog with a wait list.

    Args:
        capacity: Capacity of the allotment ``online``.
        **rules: Rules of the office to change.
    """
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
