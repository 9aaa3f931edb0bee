"""A check that an event loop serves other calls while a long one is computed."""

from __future__ import annotations

__all__ = ["answers_during"]

import asyncio
from types import ModuleType
from typing import Any

import pytest

from quota_engine.ports import AsyncStore, StoreRequest

_TIMEOUT_S = 20


async def answers_during(
    store: AsyncStore, long: StoreRequest[Any], computed_in: tuple[ModuleType, str], question: StoreRequest[Any]
) -> list[Any]:
    """Carry out a long request, and return the answers to a question in the middle of its computation.

    Args:
        store: The store.
        long: The long request.
        computed_in: The module and the name of a function that the request calls while it computes.
        question: The question. In the thread of the event loop, it would get no answer, and a timeout would end it.
    """
    loop, (module, name) = asyncio.get_running_loop(), computed_in
    compute, answers = getattr(module, name), []

    def ask_and_compute(*arguments: Any, **named: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(store.execute(question), loop)
        answers.append(future.result(_TIMEOUT_S))
        return compute(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, ask_and_compute)
        await store.execute(long)
    return answers
