"""Every malformed part of every request is a problem that changes and reveals nothing."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import httpx
import msgspec
import pytest
from jsonschema_rs import Draft202012Validator

from quota_engine.ports import Describe
from quota_engine.service.api import ENDPOINTS
from quota_engine.service.http.auth import Grant, Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.http.problems import PROBLEM_TYPES, TYPE_PREFIX
from tests.support.effort import PROFILE
from tests.support.in_process_service import DAY, NIK, OTHER, TOKENS, Client, grants, listening, running
from tests.support.malformed_requests import DOCUMENT, NAMED, attacks, good

HOUR_MS = 3_600_000
PROBLEM = Draft202012Validator(
    {
        **DOCUMENT["components"]["schemas"]["ProblemBody"],
        "components": DOCUMENT["components"],
        "additionalProperties": False,
    }
)


async def state(client: Client) -> bytes:
    """Return everything in the store."""
    backend: Any = client.service.engine._store
    places = sorted(backend._memory._ledgers)
    return msgspec.json.encode([await backend.execute(Describe(place)) for place in places])


def events(client: Client) -> int:
    """Return a count of ledgers and events, which is faster than :func:`state`."""
    books = client.service.engine._store._memory._ledgers.values()  # type: ignore[attr-defined]
    return sum(1 + len(getattr(book.ledger, "events", ())) for book in books)


async def furnish(client: Client) -> dict[str, str]:
    """Create a hold, a room with a ticket, a draw and a consumer group; return their names."""
    held = (await client.reserve(NIK)).json()["reservation"]["reference"]
    await client.reserve(OTHER)
    now_ms = client.clock.now_ms()
    room = {"office": "surabaya", "first_day": str(DAY), "opens_at_ms": now_ms + HOUR_MS}
    assert (await client.operate("PUT", "/v1/rooms/there", room)).status_code == 201
    joined = await client.call("POST", "/v1/rooms/there/tickets", {"identity": NIK}, Role.SERVICE)
    draw = {
        "opens_at_ms": now_ms, "closes_at_ms": now_ms + HOUR_MS, "forget_at_ms": now_ms + 9 * HOUR_MS,
        "first_day": str(DAY), "last_day": str(DAY), "commitment": "0" * 64,
    }  # fmt: skip
    assert (await client.operate("PUT", "/v1/draws/there", draw)).status_code == 201
    assert (await client.operate("POST", "/v1/offices/surabaya/consumer-groups/there", {})).status_code == 201
    return {
        "office": "surabaya", "day": str(DAY), "quota": "online", "reference": held, "room": "there",
        "ticket": joined.json()["ticket"], "draw": "there", "file": "applications.jsonl", "number": "1",
        "consumer_group": "there", "address": "surabaya",
    }  # fmt: skip


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """Return the problem document of a response, after validating it."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    found: dict[str, Any] = response.json()
    PROBLEM.validate(found)
    kind = PROBLEM_TYPES[found["type"].removeprefix(TYPE_PREFIX)]
    assert (found["status"], found["title"]) == (response.status_code, kind.title)
    assert kind.status == response.status_code
    return found


def assert_log_is_clean(caplog: pytest.LogCaptureFixture, *more: str) -> None:
    """Check that the log has neither a traceback nor an identity."""
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]
    for secret in (NIK, OTHER, NAMED, *more, *TOKENS.values()):
        assert secret not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.name)
async def test_malformed_requests_are_problems(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of malformed requests of each endpoint get the right status and change nothing.

    In the gate, every third kind of them, and other kinds at the next endpoint.
    """
    step = 3 if PROFILE == "gate" else 1
    caplog.set_level(logging.DEBUG, "quota_engine")
    async with running(limits=RequestLimits(stream_lifetime_ms=1)) as client:
        names = await furnish(client)
        request = good(endpoint, names, ticket=names["ticket"])
        before, seen = await state(client), events(client)
        wrong: list[tuple[object, ...]] = []
        for number, attack in enumerate(attacks(request)):
            if (number - ENDPOINTS.index(endpoint)) % step:
                continue
            response = await client.http.request(
                attack.method or endpoint.method, attack.path, content=attack.content, headers=attack.headers
            )
            if response.status_code not in attack.statuses:
                wrong.append(
                    (attack.what, attack.path[-60:], attack.content[:80], response.status_code, response.text[-300:])
                )
                continue
            if (attack.method or endpoint.method) != "HEAD":
                found = problem_of(response)
                if attack.method:
                    assert endpoint.method in response.headers["allow"]
                assert "Traceback" not in response.text
                for secret in (NIK, OTHER, NAMED, *TOKENS.values()):
                    assert secret not in response.text, (attack.what, found)
            if (now := events(client)) != seen:
                wrong.append((attack.what, attack.path, attack.content[:80], "it has changed something"))
                seen = now
        assert not wrong
        assert await state(client) == before
        response = await client.http.request(
            endpoint.method, request.url, content=request.content, headers=request.headers
        )
        # The request itself is valid: only the current state may refuse it.
        assert response.status_code in (200, 201, 304, 409, 410, 412) or "outcome" in response.json(), response.text
    assert_log_is_clean(caplog, names["ticket"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reserve", "ticket"])
async def test_malformed_requests_on_a_socket_are_problems(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The connection checks headers and body before the endpoint does."""
    caplog.set_level(logging.DEBUG, "quota_engine")
    endpoint = next(one for one in ENDPOINTS if one.name == name)
    async with running(limits=RequestLimits(stream_lifetime_ms=1)) as client, listening(client.app) as port:
        names = await furnish(client)
        before = await state(client)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            for attack in attacks(good(endpoint, names, ticket=names["ticket"])):
                response = await http.request(
                    attack.method or endpoint.method, attack.path, content=attack.content, headers=attack.headers
                )
                # The parser rejects an unknown method before there is a request.
                expected = frozenset({400}) if attack.method == "BREW" else attack.statuses
                assert response.status_code in expected, (attack.what, response.text)
                problem_of(response)
                for secret in (NIK, OTHER, NAMED, *TOKENS.values()):
                    assert secret not in response.text, attack.what
        assert await state(client) == before
    assert_log_is_clean(caplog, names["ticket"])


async def test_objects_of_other_offices_and_applicants_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Tokens, references, tickets, draws and consumer groups of others."""
    elsewhere = tuple(
        Grant(f"elsewhere-{role}", role, hashlib.sha256(f"elsewhere {role}".encode()).hexdigest(), ("malang",))
        for role in Role
    )
    async with running(grants=(*grants(), *elsewhere), limits=RequestLimits(stream_lifetime_ms=1)) as client:
        names = await furnish(client)
        now_ms = client.clock.now_ms()
        other = {"office": "surabaya", "first_day": str(DAY), "opens_at_ms": now_ms + 2 * HOUR_MS}
        assert (await client.operate("PUT", "/v1/rooms/other", other)).status_code == 201
        joined = await client.call("POST", "/v1/rooms/other/tickets", {"identity": NIK}, Role.SERVICE)
        ticket = joined.json()["ticket"]
        before = await state(client)
        for endpoint in ENDPOINTS:
            request = good(endpoint, names, ticket=names["ticket"])
            for role in (endpoint.roles or set()) | ({Role.OPERATOR} if endpoint.roles else set()):
                headers = {**dict(request.headers), "authorization": f"Bearer elsewhere {role}"}
                response = await client.http.request(
                    endpoint.method, request.url, content=request.content, headers=headers
                )
                assert problem_of(response)["status"] == 403, endpoint.name
        hold = names["reference"].partition("~")[2]
        table: list[tuple[str, str, dict[str, Any] | None, set[int]]] = [
            ("GET", f"/v1/reservations/malang~{hold}", None, {404}),
            *[
                ("POST", f"/v1/reservations/{office}~{hold}/{step}", {**more, **body}, {status})
                for office, more, status in (("malang", {}, 404), ("surabaya", {"owner": OTHER}, 403))
                for step, body in (
                    *((step, {}) for step in ("confirm", "release", "decline", "cancel")),
                    *((step, {}) for step in ("check-in", "no-show", "undo-attendance")),
                    ("reschedule", {"day": "2026-12-08", "service": "new", "session": "morning"}),
                )
            ],
            ("GET", f"/v1/rooms/there/tickets/{ticket}", None, {422}),
            ("GET", f"/v1/rooms/other/tickets/{names['ticket']}", None, {422}),
            ("POST", "/v1/rooms/there/enter", {"ticket": ticket, "identity": NIK}, {422}),
            ("POST", "/v1/rooms/there/enter", {"ticket": names["ticket"], "identity": OTHER}, {422}),
            ("POST", "/v1/rooms/there/tickets", {"identity": OTHER, "replaces_ticket": names["ticket"]}, {422}),
            ("POST", "/v1/draws/there/applications/find", {"applicant": OTHER}, {404}),
            ("POST", "/v1/draws/there/applications/withdraw", {"applicant": OTHER, "expected_version": 1}, {404}),
            ("POST", "/v1/offices/malang/consumer-groups/there/acknowledge", {"numbers": [1]}, {404}),
        ]  # fmt: skip
        for method, path, body, statuses in table:
            response = await client.operate(method, path, body)
            assert response.status_code in statuses, (path, response.text)
            problem_of(response)
            for secret in (NIK, OTHER, ticket, names["ticket"]):
                assert secret not in response.text, path
        assert await state(client) == before
    assert_log_is_clean(caplog, names["ticket"], ticket)
