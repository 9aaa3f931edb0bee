"""The clients have the engine's methods, and are told what the engine tells, however they reach the service."""

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
from tests.support.client_parity import Log, Told, a_client, a_service, an_engine, in_process, story

FACES: Final = {
    "": (AsyncQuotaEngine, QuotaEngine, AsyncServiceClient, ServiceClient),
    "room.": (AsyncWaitingRoom, WaitingRoom, AsyncServiceWaitingRoom, ServiceWaitingRoom),
    "draw.": (AsyncDraw, Draw, AsyncServiceDraw, ServiceDraw),
}
"""What an engine has, what it gives, and what the clients have for it."""

NOT_OVER_HTTP: Final = {
    ("publish", "catalog"): "the catalog is the service's own",
    ("reconcile", "events"): "events that a service gave have no applicants in them: nothing can be restored from them",
    ("room.view", "max_age_ms"): "whoever watches through the service has its streams, or is answered as everybody is",
    ("room.status", "identity"): "an identity is in no address; room.enter() looks whose ticket it is",
}
"""Arguments that a client can not have."""

ONLY_OVER_HTTP: Final = {
    "earliest_available_day": "the service works it out for its pages",
    "describe_offices": "an engine's caller has the catalog itself",
}

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


@pytest.mark.parametrize("prefix", FACES)
def test_the_clients_have_the_engines_methods(prefix: str) -> None:
    """The same names, arguments, kinds and defaults, and the same answers; what differs has a reason."""
    engine, _, client, sync_client = FACES[prefix]
    extra = {name for name in methods(client) if prefix + name in ONLY_OVER_HTTP}
    assert methods(client) - extra == methods(engine) == methods(sync_client) - extra
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


def test_every_reason_is_needed() -> None:
    """A table that names what is not so would hide what comes to be so."""
    for name, argument in NOT_OVER_HTTP:
        prefix = name[: name.find(".") + 1]
        engine, _, client, _ = FACES[prefix]
        plain = name.removeprefix(prefix)
        assert argument in inspect.signature(getattr(engine, plain)).parameters
        assert argument not in inspect.signature(getattr(client, plain)).parameters
    assert not any(hasattr(AsyncQuotaEngine, name) for name in ONLY_OVER_HTTP)


@pytest.fixture
async def told_by_an_engine() -> Log:
    log: Log = []
    async with an_engine(log) as (told, clock):
        await story(told, clock)
    return log


@pytest.mark.parametrize("kind", ["in process", "async", "sync"])
async def test_a_client_is_told_what_an_engine_tells(kind: str, told_by_an_engine: Log) -> None:
    """The whole story, call by call: outcomes, records, counters, events, errors."""
    log: Log = []
    async with a_client(kind, log) as (told, clock):
        await story(told, clock)
    for number, (mine, theirs) in enumerate(zip(log, told_by_an_engine, strict=True)):
        assert mine == theirs, (number, mine, theirs)
    said = {name for name, _ in log}
    for prefix, faces in FACES.items():
        missing = {prefix + name for name in methods(faces[2])} - said - WITHOUT_ADDRESS.keys() - ONLY_OVER_HTTP.keys()
        assert not missing


TELL_WHAT_THEY_CHANGED: Final = {
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


def _once(told: object) -> object:
    """What was said, without the words for "again"."""
    if isinstance(told, dict):
        return {name: _once(one) for name, one in told.items() if name not in {"replayed", "resumed"}}
    return [_once(one) for one in told] if isinstance(told, list) else told


async def test_every_answer_is_lost_once(told_by_an_engine: Log) -> None:
    """Each command is sent a second time, and nothing happens twice: the same outcomes, counters and events."""
    log: Log = []
    async with a_service() as service:
        transport = LosingTransport(service.http._transport)
        await story(Told(in_process(service, transport=transport), log), service.clock)
    assert transport.count > 100
    for number, (mine, theirs) in enumerate(zip(log, told_by_an_engine, strict=True)):
        if mine[0] not in TELL_WHAT_THEY_CHANGED:
            assert _once(mine[1]) == _once(theirs[1]), (number, mine, theirs)


class Spied:
    """An engine, a room or a draw whose calls are noted."""

    def __init__(self, face: Any, seen: list[str], prefix: str = "") -> None:
        self._face = face
        self._seen = seen
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._face, name)
        if name in {"room", "draw"}:
            return lambda which: Spied(found(which), self._seen, f"{name}.")
        if not name.startswith("_"):
            self._seen.append(self._prefix + name)
        return found


async def test_every_method_of_the_engine_has_an_address() -> None:
    """Each call of a client comes to the engine's method of the same name, and to every one of them."""
    seen: list[str] = []

    class Noted(Told):
        def __getattr__(self, name: str) -> Any:
            call = super().__getattr__(name)

            async def noted(*args: Any, **kwargs: Any) -> Any:
                before = len(seen)
                found = await call(*args, **kwargs)
                reached.setdefault(self._kind + name, set()).update(seen[before:])
                return found

            return noted

        def room(self, room: str) -> Told:
            return Noted(self._face.room(room), self._log, "room.")

        def draw(self, draw: str) -> Told:
            return Noted(self._face.draw(draw), self._log, "draw.")

    reached: dict[str, set[str]] = {}
    async with a_service() as service:
        service.service._engine = Spied(service.service.engine, seen)  # type: ignore[assignment]
        await story(Noted(in_process(service), []), service.clock)
    for prefix, faces in FACES.items():
        for name in methods(faces[0]):
            if prefix + name not in WITHOUT_ADDRESS:
                assert prefix + name in reached[prefix + name], prefix + name
