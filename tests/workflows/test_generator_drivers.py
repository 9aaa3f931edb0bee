"""One flow, two drivers: what the sync one does, the async one does."""

from __future__ import annotations

from typing import TypeVar, cast

import pytest

from quota_engine.domain.commands import Command
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import Outcome
from quota_engine.ports import ListOffices, StoreRequest
from quota_engine.workflows.generator_drivers import Workflow, run, run_async

T = TypeVar("T")


class Unreliable:
    """A store that is away for the first ``failures`` requests."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def apply(self, office: str, command: Command) -> Outcome:
        raise AssertionError("flows ask through perform")

    def execute(self, request: StoreRequest[T]) -> T:
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("away")
        answer: T = cast("T", ["here"])
        return answer

    def close(self) -> None:
        """Nothing to do."""


class AsyncUnreliable:
    """The same for asyncio."""

    def __init__(self, failures: int) -> None:
        self.store = Unreliable(failures)

    async def apply(self, office: str, command: Command) -> Outcome:
        return self.store.apply(office, command)

    async def execute(self, request: StoreRequest[T]) -> T:
        return self.store.execute(request)

    async def close(self) -> None:
        """Nothing to do."""


def persistent() -> Workflow[list[str]]:
    """Asks again when the store is away, up to three times."""
    for _ in range(3):
        try:
            offices: list[str] = yield ListOffices()
        except BackendUnavailable:
            continue
        return offices
    raise OutcomeUnknown("three times")


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_errors_are_thrown_in_where_the_request_was_made(failures: int) -> None:
    """A flow can catch a store's error and go on, under both drivers."""
    assert run(persistent(), Unreliable(failures)) == ["here"]
    assert await run_async(persistent(), AsyncUnreliable(failures)) == ["here"]


async def test_what_a_flow_does_not_catch_comes_out() -> None:
    """An error that the flow raises, or lets pass, reaches the caller."""
    with pytest.raises(OutcomeUnknown):
        run(persistent(), Unreliable(3))
    with pytest.raises(OutcomeUnknown):
        await run_async(persistent(), AsyncUnreliable(3))
