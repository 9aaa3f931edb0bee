"""Every documented status of every endpoint occurs, and no other.

One test drives all endpoints and records the statuses. It first provokes the shared problems, generated from the
endpoint table, and then the problems that need a certain state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from quota_engine.admission import Limit, LimitKey, TokenBucketPolicy
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.draws.lottery import commitment_of
from quota_engine.service.api import ENDPOINTS
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.problems import TYPE_PREFIX
from quota_engine.stores.memory import MemoryStore
from tests.service.api.test_malformed_requests import HOUR_MS, furnish
from tests.support.draw_runs import CLOSES_AT_MS, ENTROPY, MONDAY, OPENS_AT_MS, SEED, catalog
from tests.support.identities import nik
from tests.support.in_process_service import DAY, NIK, OTHER, TOKENS, Client, overloaded, running
from tests.support.malformed_requests import DOCUMENT, Good, good

BY_NAME = {one.name: one for one in ENDPOINTS}
HEADERS = {name.lower() for name in DOCUMENT["components"]["headers"]}
Seen = set[tuple[str, int]]
NOBODYS = {
    "office": "nix", "day": str(DAY), "quota": "nix", "reference": "surabaya~nobody", "room": "nowhere", "ticket": "x",
    "draw": "nix", "file": "proof.json", "number": "7", "consumer_group": "nix", "address": "nix",
}  # fmt: skip
SHORT = RequestLimits(stream_lifetime_ms=1, body_timeout_ms=50)


class Watch:
    """Records the statuses of each endpoint, and checks that they are documented."""

    def __init__(self) -> None:
        self.seen: Seen = set()
        self.headers: set[str] = set()

    @contextlib.asynccontextmanager
    async def over(self, **changes: Any) -> AsyncIterator[Client]:
        """Yield a client whose responses are recorded."""
        async with running(limits=SHORT, **changes) as client:
            client.http.event_hooks["response"].append(self._note(client))
            yield client

    def _note(self, client: Client) -> Callable[[httpx.Response], Any]:
        async def note(response: httpx.Response) -> None:
            found = client.app.routes.find(response.request.url.path)
            exchange: Any = found and found[0].get(response.request.method)
            if not hasattr(exchange, "_endpoint"):
                return
            endpoint: Endpoint = exchange._endpoint
            self.seen.add((endpoint.name, response.status_code))
            operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
            documented = operation["responses"].get(str(response.status_code))
            await response.aread()
            assert documented is not None, (endpoint.name, response.status_code, response.text)
            for name in response.headers.keys() & HEADERS:
                assert name.title() in {one.title() for one in documented["headers"]}, (endpoint.name, name)
                self.headers.add(name)
            if response.headers.get("content-type") == "application/problem+json":
                kind = response.json()["type"].removeprefix(TYPE_PREFIX)
                assert kind in documented["x-types"], (endpoint.name, kind)

        return note


async def send(client: Client, request: Good, **headers: str) -> httpx.Response:
    """Send a valid request, with other headers if given."""
    sent = {**dict(request.headers), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await client.http.request(request.endpoint.method, request.url, content=request.content, headers=sent)


# --- What any call may meet ----------------------------------------------------------------------------------------


async def stall() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def anywhere(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provoke the problems that every endpoint shares: tokens, bodies, headers, store failures and bugs."""
    names = await furnish(client)
    slow = []
    for endpoint in ENDPOINTS:
        request = good(endpoint, names, ticket=names["ticket"])
        method, headers = endpoint.method, dict(request.headers)
        await client.http.request(method, request.url, headers=[*headers.items(), ("if-none-match", "x")] * 2)
        await client.http.request(method, f"{request.path()}?nix=1", headers=headers)
        await send(client, request, x_long="x" * 20_000)
        if method != "GET":
            await send(client, request, x_quota_engine_valid_until_ms="1")
        if endpoint.roles is not None:
            await client.http.request(method, request.url)
            for role in set(Role) - endpoint.roles - {Role.OPERATOR}:
                await send(client, request, authorization=f"Bearer {TOKENS[role]}")
        if endpoint.body_type is not None:
            await client.http.request(method, request.url, headers=headers, content=b"x" * 70_000)
            await client.http.request(method, request.url, headers={**headers, "content-type": "x"}, content=b"{}")
            slow.append(client.http.request(method, request.url, headers=headers, content=stall()))
    await asyncio.gather(*slow)
    for error in (BackendUnavailable("away"), OutcomeUnknown("lost"), ZeroDivisionError()):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(MemoryStore, "apply", fail)
            patch.setattr(MemoryStore, "execute", fail)
            for endpoint in ENDPOINTS:
                changes = endpoint.is_write or (endpoint.is_write is None and endpoint.method != "GET")
                if endpoint.uses_store and (changes or not isinstance(error, OutcomeUnknown)):
                    client.clock.advance_ms(500)
                    await send(client, good(endpoint, names, ticket=names["ticket"]))
    for endpoint in ENDPOINTS:
        if not endpoint.uses_store:
            found = client.app.routes.find(endpoint.path.format(**names))
            assert found is not None
            exchange: Any = found[0][endpoint.method]
            with monkeypatch.context() as patch:
                patch.setattr(exchange, "_handler", None)
                await send(client, good(endpoint, names))
    async with overloaded(client, monkeypatch) as shedding:
        for endpoint in ENDPOINTS:
            if endpoint.is_sheddable:
                await send(shedding, good(endpoint, names, ticket=names["ticket"]))


async def nowhere(client: Client) -> None:
    """Request objects that do not exist."""
    for endpoint in ENDPOINTS:
        if endpoint.name != "create-draw":
            await send(client, good(endpoint, NOBODYS, ticket="x", office="nix"))
    await send(client, good(BY_NAME["audit"], NOBODYS))
    await client.operate("GET", "/v1/audit?office=nix")
    days = {"first_day": str(DAY), "last_day": str(DAY)}
    await client.operate("POST", "/v1/publish", {"offices": ["nix"], **days})


# --- Problems that need a state ------------------------------------------------------------------------------------


async def steps(client: Client) -> None:
    """Take each step of a reservation: in time, too early, too late, in another state, and with an old version."""
    start_ms = client.clock.now_ms()
    tuesday, wednesday = "2026-12-08", "2026-12-09"
    path = {day: f"/v1/offices/surabaya/days/{day}" for day in (tuesday, wednesday)}
    move: dict[str, Any] = {"day": wednesday, "service": "new", "session": "morning"}

    async def held(name: str, day: str = tuesday) -> str:
        answer = await client.reserve(name, path=path[day])
        return str(answer.json()["reservation"]["reference"])

    expired, released, confirmed, moved = [await held(nik(one)) for one in range(4)]
    for extension in (1, 1, 3):
        await client.step(confirmed, "extend", extension=extension)
    for reference in (confirmed, moved):
        await client.step(reference, "confirm")
    for step in ("confirm", "release", "decline", "cancel", "check-in", "no-show", "undo-attendance"):
        await client.step(released if step == "confirm" else confirmed, step, expected_version=7)
    await client.step(confirmed, "reschedule", expected_version=7, **move)
    await client.step(confirmed, "release")
    await client.step(confirmed, "extend", extension=1)
    await party_changes(client, await held(nik(20)))
    for step in ("decline", "cancel", "check-in", "no-show", "undo-attendance"):
        await client.step(released, step)
    await client.step(released, "release")
    await client.step(released, "confirm")
    await client.step(released, "reschedule", **move)
    await client.step(moved, "reschedule", **move)
    client.clock.set_ms(start_ms + 900_000)
    for step in ("confirm", "release", "decline", "cancel", "check-in", "no-show", "undo-attendance"):
        await client.step(expired, step)
    await client.step(expired, "extend", extension=1)
    await client.step(expired, "remove-applicant", applicant=nik(0))
    await client.step(expired, "replace-applicant", Role.OPERATOR, applicant=nik(0), replacement=nik(30))
    await client.step(expired, "reschedule", **move)
    await client.step(moved, "cancel")
    range_ = f"first_day={tuesday}&last_day={wednesday}"
    days = (await client.call("GET", f"/v1/offices/surabaya/availability?{range_}")).json()["days"]
    client.clock.set_ms(days[0]["starts_at_ms"])
    gone = await held(nik(5))
    await client.step(gone, "confirm")
    await client.step(confirmed, "check-in")
    await client.step(gone, "no-show")
    await client.step(gone, "undo-attendance", expected_version=7)
    client.clock.advance_ms(600_000)
    await client.step(gone, "undo-attendance")
    await client.operate("POST", f"{path[tuesday]}/close")
    await client.step(gone, "no-show")
    await client.operate("POST", f"{path[tuesday]}/open")
    # A repeated key, a sold-out quota, a reallocation, and a past day.
    await client.reserve(nik(6), key="again", path=path[wednesday])
    await client.reserve(nik(6), key="again", path=path[wednesday])
    await client.operate("PUT", f"{path[wednesday]}/quotas/online/capacity", {"capacity": 0})
    await client.reserve(nik(7), path=path[wednesday])
    for answer in ("/v1/offices", "/v1/offices/surabaya", f"/v1/offices/surabaya/availability?{range_}"):
        await tagged(client, answer)
    for call in ("reallocate-unused", "release-parked"):
        for quota in ("kiosk", "online"):
            await client.operate("POST", f"{path[wednesday]}/quotas/{quota}/{call}")
    for call, revision in (("close", 0), ("open", 99), ("open", 0), ("quotas/online/release-parked", 99)):
        await client.operate("POST", f"{path[wednesday]}/{call}", {"expected_revision": revision})
    client.clock.set_ms(days[1]["starts_at_ms"] + 3 * HOUR_MS)
    await client.operate("PUT", f"{path[wednesday]}/quotas/kiosk/capacity", {"capacity": 1})
    await client.reserve(nik(8), path=path[tuesday])


async def party_changes(client: Client, reference: str) -> None:
    """Remove and replace an applicant: a known, an unknown and the last one, with an old version, by another owner."""
    for applicant, more in (
        (nik(21), {}),
        (nik(20), {"owner": NIK}),
        (nik(20), {"expected_version": 7}),
        (nik(20), {}),
    ):
        await client.step(reference, "remove-applicant", applicant=applicant, **more)
    for applicant, newcomer, version in ((nik(22), nik(21), 0), (nik(20), nik(21), 7), (nik(20), nik(21), 0)):
        body = {"applicant": applicant, "replacement": newcomer, "expected_version": version}
        await client.step(reference, "replace-applicant", Role.OPERATOR, **body)
    party = {"applicants": [nik(23), nik(24)], "service": "new", "session": "morning"}
    path = "/v1/offices/surabaya/days/2026-12-08/reservations"
    pair = await client.call("POST", path, party, Role.SERVICE, idempotency_key="a-pair")
    await client.step(pair.json()["reservation"]["reference"], "remove-applicant", applicant=nik(24))


async def tagged(client: Client, path: str) -> None:
    """Request twice, the second time with the ETag."""
    tag = (await client.http.get(path)).headers["etag"]
    assert (await client.http.get(path, headers={"if-none-match": tag})).status_code == 304


async def rooms(client: Client) -> None:
    """Take a room through its life, with requests that come too early, too late or twice."""
    now_ms = client.clock.now_ms()
    terms = {
        "office": "surabaya", "first_day": str(DAY), "opens_at_ms": now_ms + HOUR_MS,
        "join_opens_at_ms": now_ms + 1_000, "closes_at_ms": now_ms + 2 * HOUR_MS, "entropy_source": "the index",
    }  # fmt: skip
    room = "/v1/rooms/story"

    async def enter(ticket: str) -> None:
        await client.call("POST", f"{room}/enter", {"ticket": ticket, "identity": NIK}, Role.SERVICE)

    async def join(identity: str = NIK) -> httpx.Response:
        return await client.call("POST", f"{room}/tickets", {"identity": identity}, Role.SERVICE)

    for body in (terms, terms, {**terms, "opens_at_ms": now_ms + 2}):
        await client.operate("PUT", room, body)
    await client.operate("PUT", "/v1/rooms/late", {**terms, "opens_at_ms": now_ms - 1, "join_opens_at_ms": now_ms - 2})
    await join()
    client.clock.advance_ms(1_000)
    ticket = (await join()).json()["ticket"]
    await join()
    await enter(ticket)
    await client.operate("POST", f"{room}/open", {"entropy": "7"})
    client.clock.set_ms(now_ms + HOUR_MS)
    await client.operate("POST", f"{room}/open", {"entropy": "7"})
    client.clock.advance_ms(1_000)
    await enter(ticket)
    await client.operate("PUT", f"{room}/pace", {"per_minute_min": 1, "per_minute_max": 2})
    for path in (room, f"{room}/tickets/{ticket}"):
        await tagged(client, path)
        assert (await client.http.get(f"{path}/stream")).status_code == 200
    await client.http.get(f"{room}/transcript")
    await client.operate("POST", f"{room}/close")
    await join(OTHER)
    await enter(ticket)
    await client.operate("POST", f"{room}/open", {"entropy": "7"})
    await client.operate("PUT", f"{room}/pace", {"per_minute_min": 1, "per_minute_max": 3})
    mute = {**terms, "opens_at_ms": client.clock.now_ms() + 1, "closes_at_ms": client.clock.now_ms() + HOUR_MS}
    await client.operate("PUT", "/v1/rooms/mute", {**mute, "join_opens_at_ms": 0})
    client.clock.advance_ms(2 * HOUR_MS)
    await client.operate("POST", "/v1/rooms/mute/open", {"entropy": "7"})


async def park_units(client: Client) -> None:
    """Release a hold of a quota that parks its units, and ask for them with an old revision of the day."""
    path = f"/v1/offices/sby/days/{MONDAY}"
    body = {"applicants": [nik(9)], "session": "am", "channel": "draw"}
    held = await client.call("POST", f"{path}/reservations", body, Role.SERVICE, idempotency_key="parked")
    await client.step(held.json()["reservation"]["reference"], "release")
    await client.operate("POST", f"{path}/quotas/drawn/release-parked", {"expected_revision": 99})
    await client.operate("POST", f"{path}/quotas/drawn/release-parked", {})


async def draws(client: Client) -> None:
    """Take a draw through its life, with requests that come too early, too late or twice."""
    client.clock.set_ms(OPENS_AT_MS)
    draw = "/v1/draws/story"
    terms = {
        "opens_at_ms": OPENS_AT_MS, "closes_at_ms": CLOSES_AT_MS, "forget_at_ms": CLOSES_AT_MS + 99 * HOUR_MS,
        "first_day": str(MONDAY), "last_day": str(MONDAY), "commitment": commitment_of("story", SEED),
        "entropy_source": "the index",
    }  # fmt: skip
    for body in (terms, terms, {**terms, "party_max": 1}):
        await client.operate("PUT", draw, body)
    await client.operate("PUT", "/v1/draws/old", {**terms, "opens_at_ms": 1, "closes_at_ms": 2, "forget_at_ms": 3})
    choice = {"office": "sby", "day": str(MONDAY), "session": "am", "channel": "draw"}

    async def ask(what: str, **body: Any) -> None:
        await client.operate("POST", f"{draw}/{what}", body)

    await park_units(client)

    async def look() -> None:
        await client.http.get(f"{draw}/applications/1")
        await client.http.get(f"{draw}/files/result.jsonl")

    for version, session in ((0, "am"), (0, "am"), (7, "pm")):
        await ask("applications", applicants=[NIK], choices=[{**choice, "session": session}], expected_version=version)
    await ask("applications", applicants=[OTHER, NIK], choices=[choice])
    await ask("applications/find", applicant=NIK)
    for who, number, version, epoch in ((NIK, 1, 1, 1), (NIK, 1, 2, 2), (NIK, 1, 7, 1), (OTHER, 1, 1, 1)):
        await ask("applications/check", applicant=who, number=number, version=version, epoch=epoch)
    await ask("applications", applicants=[OTHER], choices=[choice])
    for version in (7, 1):
        await ask("applications/withdraw", applicant=OTHER, expected_version=version)
    await look()
    await ask("close")
    await ask("run", seed=SEED)
    await ask("award")
    client.clock.set_ms(CLOSES_AT_MS)
    await ask("close")
    await ask("applications/withdraw", applicant=NIK, expected_version=1)
    await ask("run", seed=SEED, entropy=ENTROPY)
    await ask("award")
    await client.http.get(draw)
    await look()
    await client.http.get(f"{draw}/applications/1?token={'0' * 32}")
    await tagged(client, f"{draw}/files/proof.json")


async def the_rest(client: Client) -> None:
    """Send a valid request to every endpoint, and drain."""
    names = await furnish(client)
    await client.operate("POST", "/v1/offices/surabaya/consumer-groups/new", {})
    for endpoint in ENDPOINTS:
        if endpoint.name not in ("delete-consumer-group", "cancel", "release", "close-day", "close-room", "close-draw"):
            await send(client, good(endpoint, names, ticket=names["ticket"]))
    for name in ("close-day", "open-day", "delete-consumer-group", "release"):
        await send(client, good(BY_NAME[name], names))
    client.service.draining = True
    await client.http.get("/health/ready")


async def too_many(client: Client) -> None:
    """Send more requests that take a place than the token bucket allows."""
    held = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.reserve(OTHER)
    await client.step(held, "reschedule", day="2026-12-08", service="new", session="morning")
    client.clock.advance_ms(HOUR_MS)
    await client.reserve(OTHER)
    await client.step(held, "confirm", reacquire=True)


async def waiting(client: Client) -> None:
    """Join the wait list of a sold-out day, and decline nothing, which is a replay."""
    client.clock.set_ms(OPENS_AT_MS)
    for person in (NIK, OTHER):
        body = {"applicants": [person], "session": "am", "channel": "draw", "join_wait_list": True}
        path = f"/v1/offices/sby/days/{MONDAY}/reservations"
        answer = await client.call("POST", path, body, Role.SERVICE, idempotency_key=f"key-{person}")
    await client.step(answer.json()["reservation"]["reference"], "decline")


@pytest.mark.slow
async def test_documented_statuses_are_the_observed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    async with watch.over() as client:
        await anywhere(client, monkeypatch)
        await nowhere(client)
    for story in (steps, rooms, the_rest):
        async with watch.over() as client:
            await story(client)
    async with watch.over(admission=(TokenBucketPolicy("all", LimitKey.ALL, Limit(1, 60_000, 1)),)) as client:
        await too_many(client)
    async with watch.over(catalog=catalog(), office="sby", day=MONDAY) as client:
        await draws(client)
    async with watch.over(catalog=catalog("wait_list", 1), office="sby", day=MONDAY) as client:
        await waiting(client)
    documented = {
        (operation["operationId"], int(http))
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for http in operation["responses"]
    }
    assert len(documented) > 500
    missing = sorted(documented - watch.seen)
    assert not missing, f"not seen: {missing}"
    assert watch.headers == HEADERS
