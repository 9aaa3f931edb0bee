"""Clients have the engine's methods and return the engine's answers, over any transport."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import httpx
import pytest

from quota_engine import AsyncDraw, AsyncQuotaEngine, AsyncWaitingRoom, Draw, QuotaEngine, WaitingRoom
from quota_engine.client import (
    AsyncServiceClient,
    AsyncServiceDraw,
    AsyncServiceWaitingRoom,
    ServiceClient,
    ServiceDraw,
    ServiceWaitingRoom,
)
from quota_engine.client import transport as transport_module
from tests.support.client_parity import Log, Recorder, a_client, a_service, an_engine, in_process, story

CLASSES: Final = {
    "": (AsyncQuotaEngine, QuotaEngine, AsyncServiceClient, ServiceClient),
    "room.": (AsyncWaitingRoom, WaitingRoom, AsyncServiceWaitingRoom, ServiceWaitingRoom),
    "draw.": (AsyncDraw, Draw, AsyncServiceDraw, ServiceDraw),
}
"""The async and sync class of the engine, and those of the clients, by prefix."""

NOT_OVER_HTTP: Final = {
    ("publish", "catalog"): "the catalog is the service's own",
    ("reconcile", "events"): "events that a service gave have no applicants in them: nothing can be restored from them",
    ("room.view", "max_age_ms"): "whoever watches through the service has its streams, or is answered as everybody is",
    ("room.status", "identity"): "an identity is in no address; room.enter() looks whose ticket it is",
}
"""Arguments that a client cannot have, with the reason."""

ONLY_OVER_HTTP: Final = {
    "earliest_available_day": "the service works it out for its pages",
    "describe_offices": "an engine's caller has the catalog itself",
}

ONLY_IN_PROCESS: Final = {"with_timeout": "a client has time-outs of its own, and the service passes them on"}

OTHER_ANSWERS: Final = {
    "room.view": ("RoomBody", "a room's secrets stay with the service"),
    "room.open": ("RoomChanged", "as for room.view"),
    "room.set_pace": ("RoomChanged", "as for room.view"),
    "room.close": ("RoomChanged", "as for room.view"),
    "room.status": ("ServiceTicketStatus", "a Standing that says when to ask again"),
}

WITHOUT_ADDRESS: Final = {
    "open": "it opens a connection",
    "close": "it closes one",
    "room": "nothing is asked before a method is called",
    "draw": "nothing is asked before a method is called",
    "draw.commitment": "whoever has the seed works it out",
}


def methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isroutine) if not name.startswith("_")}


@pytest.mark.parametrize("prefix", CLASSES)
def test_clients_have_the_engines_signatures(prefix: str) -> None:
    """Names, arguments, kinds, defaults and results are the same, except for the listed differences."""
    engine, _, client, sync_client = CLASSES[prefix]
    extra = {name for name in methods(client) if prefix + name in ONLY_OVER_HTTP}
    assert methods(client) - extra == methods(engine) - set(ONLY_IN_PROCESS) == methods(sync_client) - extra
    for name in methods(client):
        mine, sync = (inspect.signature(getattr(kind, name)) for kind in (client, sync_client))
        assert mine.parameters == sync.parameters, name
        if name in extra or prefix + name == "open":
            continue
        theirs = inspect.signature(getattr(engine, name))
        wanted = [
            (one.name, one.kind, one.default)
            for one in theirs.parameters.values()
            if (prefix + name, one.name) not in NOT_OVER_HTTP
        ]
        assert [(one.name, one.kind, one.default) for one in mine.parameters.values()] == wanted, name
        if prefix + name not in {"room", "draw"}:
            assert mine.return_annotation == sync.return_annotation, name
            answer = OTHER_ANSWERS.get(prefix + name, (_short(theirs.return_annotation),))[0]
            assert _short(mine.return_annotation) == answer, name


def _short(annotation: object) -> str:
    """A type without the module that it is written with."""
    return re.sub(r"\w+\.(?=\w)", "", str(annotation))


def test_every_listed_difference_exists() -> None:
    """A superfluous entry would hide a later difference."""
    for name, argument in NOT_OVER_HTTP:
        prefix = name[: name.find(".") + 1]
        engine, _, client, _ = CLASSES[prefix]
        plain = name.removeprefix(prefix)
        assert argument in inspect.signature(getattr(engine, plain)).parameters
        assert argument not in inspect.signature(getattr(client, plain)).parameters
    assert not any(hasattr(AsyncQuotaEngine, name) for name in ONLY_OVER_HTTP)


@pytest.fixture
async def engine_log() -> Log:
    log: Log = []
    async with an_engine(log) as (recorder, clock):
        await story(recorder, clock)
    return log


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["in process", "async", "sync"])
async def test_a_client_returns_the_engines_answers(kind: str, engine_log: Log) -> None:
    """The whole story, call by call: outcomes, records, counters, events, errors."""
    log: Log = []
    async with a_client(kind, log) as (recorder, clock):
        await story(recorder, clock)
    for number, (mine, theirs) in enumerate(zip(log, engine_log, strict=True)):
        assert mine == theirs, (number, mine, theirs)
    said = {name for name, _ in log}
    for prefix, classes in CLASSES.items():
        missing = (
            {prefix + name for name in methods(classes[2])} - said - WITHOUT_ADDRESS.keys() - ONLY_OVER_HTTP.keys()
        )
        assert not missing


REPORT_CHANGES: Final = {
    "acknowledge", "create_consumer_group", "delete_consumer_group", "expire", "recover_moves", "publish",
    "reallocate_unused", "reconcile",
    "release_parked",
}  # fmt: skip
"""Calls that say how much was new to them: the second time nothing is, and an epoch has passed."""


class LosingTransport(httpx.AsyncBaseTransport):
    """Everything that may change something is done, and its first answer is lost."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._lost: bytes | None = None
        self.count = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = request.method.encode() + request.url.raw_path + await request.aread()
        response = await self._inner.handle_async_request(request)
        if request.method == "GET" or content == self._lost:
            self._lost = None
            return response
        await response.aread()
        self._lost, self.count = content, self.count + 1
        raise httpx.ReadError("lost", request=request)


def _once(recorder: object) -> object:
    """Return a result without its ``replayed`` and ``resumed``."""
    if isinstance(recorder, dict):
        return {name: _once(one) for name, one in recorder.items() if name not in {"replayed", "resumed"}}
    return [_once(one) for one in recorder] if isinstance(recorder, list) else recorder


@pytest.mark.slow
async def test_a_lost_response_changes_no_answer(engine_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command is sent twice and takes effect once: outcomes, counters and events stay the same.

    No copy is late here, so the client need not wait for its last moment.
    """
    monkeypatch.setattr(transport_module, "_delay_s", lambda _: 0)
    log: Log = []
    async with a_service() as service:
        transport = LosingTransport(service.http._transport)
        await story(Recorder(in_process(service, transport=transport), log), service.clock)
    assert transport.count > 100
    for number, (mine, theirs) in enumerate(zip(log, engine_log, strict=True)):
        if mine[0] not in REPORT_CHANGES:
            assert _once(mine[1]) == _once(theirs[1]), (number, mine, theirs)


class CallRecorder:
    """An engine, a room or a draw whose calls are noted."""

    def __init__(self, target: Any, seen: list[str], prefix: str = "") -> None:
        self._target = target
        self._seen = seen
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in {"room", "draw"}:
            return lambda which: CallRecorder(found(which), self._seen, f"{name}.")
        if name == "with_timeout":
            return lambda timeout_ms: CallRecorder(found(timeout_ms), self._seen, self._prefix)
        if not name.startswith("_"):
            self._seen.append(self._prefix + name)
        return found


async def test_every_method_of_the_engine_has_a_call() -> None:
    """A client's call reaches the engine's method of the same name."""
    seen: list[str] = []

    class TracingRecorder(Recorder):
        def __getattr__(self, name: str) -> Any:
            call = super().__getattr__(name)

            async def noted(*args: Any, **kwargs: Any) -> Any:
                before = len(seen)
                found = await call(*args, **kwargs)
                reached.setdefault(self._kind + name, set()).update(seen[before:])
                return found

            return noted

        def room(self, room: str) -> Recorder:
            return TracingRecorder(self._target.room(room), self._log, "room.")

        def draw(self, draw: str) -> Recorder:
            return TracingRecorder(self._target.draw(draw), self._log, "draw.")

    reached: dict[str, set[str]] = {}
    async with a_service() as service:
        service.service._engine = CallRecorder(service.service.engine, seen)  # type: ignore[assignment]
        await story(TracingRecorder(in_process(service), []), service.clock)
    for prefix, classes in CLASSES.items():
        for name in methods(classes[0]) - set(ONLY_IN_PROCESS):
            if prefix + name not in WITHOUT_ADDRESS:
                assert prefix + name in reached[prefix + name], prefix + name
