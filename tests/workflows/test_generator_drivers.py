"""Both drivers run the same workflow in the same way."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import pytest

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.ports import ListOffices, StoreRequest
from quota_engine.workflows.generator_drivers import Apply, Compute, Workflow, run, run_async

T = TypeVar("T")


class FlakyStore:
    """A store that is unavailable for the first ``failures`` calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        return address, command

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("away")
        answer: T = cast("T", ["here"])
        return answer

    def close(self) -> None:
        """Nothing to do."""


class AsyncFlakyStore:
    """The same store for asyncio."""

    def __init__(self, failures: int) -> None:
        self.store = FlakyStore(failures)

    async def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        return self.store.apply(address, command)

    async def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        return self.store.execute(request)

    async def close(self) -> None:
        """Nothing to do."""


def list_offices_with_retries() -> Workflow[list[str]]:
    """Ask up to three times."""
    for _ in range(3):
        try:
            offices: list[str] = yield ListOffices()
        except BackendUnavailable:
            continue
        return offices
    raise OutcomeUnknown("three times")


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_a_workflow_catches_an_error_of_the_store_and_goes_on(failures: int) -> None:
    assert run(list_offices_with_retries(), FlakyStore(failures)) == ["here"]
    assert await run_async(list_offices_with_retries(), AsyncFlakyStore(failures)) == ["here"]


async def test_an_error_of_a_workflow_reaches_the_caller() -> None:
    with pytest.raises(OutcomeUnknown):
        run(list_offices_with_retries(), FlakyStore(3))
    with pytest.raises(OutcomeUnknown):
        await run_async(list_offices_with_retries(), AsyncFlakyStore(3))


async def test_a_single_request_needs_no_generator() -> None:
    """The drivers also answer one request: a command, a computation or a request of the store."""
    store, async_store = FlakyStore(0), AsyncFlakyStore(0)
    requests: list[Any] = [Apply("office", "command"), Compute(lambda: 7), ListOffices()]
    expected: list[Any] = [("office", "command"), 7, ["here"]]
    assert [run(request, store) for request in requests] == expected
    assert [await run_async(request, async_store) for request in requests] == expected
