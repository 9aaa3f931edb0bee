"""Invalid input gets a problem document and changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.ports import Describe
from quota_engine.service.http.auth import Role
from quota_engine.service.http.limits import RequestLimits
from quota_engine.stores.memory import MemoryStore
from tests.service.api.test_reservations import problem
from tests.support.in_process_service import DAY_PATH, NIK, TOKENS, Client, running

RESERVE = f"{DAY_PATH}/reservations"
HEADERS = {
    "authorization": f"Bearer {TOKENS[Role.SERVICE]}",
    "idempotency-key": "wish",
    "content-type": "application/json",
}
GOOD = {"applicants": [NIK], "service": "new", "session": "morning"}


def body(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


CASES: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"{", 400, "bad-request"),
    "not UTF-8": (b'{"applicants":["\xff"]}', 400, "bad-request"),
    "another shape": (b"[]", 422, "unprocessable"),
    "nothing at all": (b"", 422, "unprocessable"),
    "a field that is not known": (body(nik="1"), 422, "unprocessable"),
    "a number for a string": (body(applicants=[1]), 422, "unprocessable"),
    "a string for a boolean": (body(join_wait_list="yes"), 422, "unprocessable"),
    "nobody": (body(applicants=[]), 422, "unprocessable"),
    "a crowd": (body(applicants=["x"] * 101), 422, "unprocessable"),
    "one of the party twice": (body(applicants=[NIK, NIK]), 422, "unprocessable"),
    "an empty identity": (body(applicants=[""]), 422, "unprocessable"),
    "an id that is none": (body(service="a b"), 422, "unprocessable"),
    "a service that is unknown": (body(service="visa"), 404, "unknown-name"),
    "something missing": (body(service=""), 422, "unprocessable"),
    "a key twice": (b'{"applicants":["1"],"applicants":["2"],"service":"new"}', 400, "bad-request"),
    "a key twice, deep inside": (b'{"applicants":[{"a":1,"a":2}]}', 422, "unprocessable"),
    "nested deeply": (b'{"applicants":' + b"[" * 100_000, 413, "too-large"),
    "nested as deeply as fits": (b'{"applicants":' + b"[" * 60_000, 422, "unprocessable"),
    "huge": (body(service="x" * 70_000), 413, "too-large"),
}


@pytest.mark.parametrize("case", CASES)
async def test_invalid_bodies_are_problems(client: Client, case: str) -> None:
    """The response shows no identity, and the ledger does not change."""
    content, http, kind = CASES[case]
    before = await client.service.engine._store.execute(Describe("surabaya"))
    response = await client.http.post(RESERVE, content=content, headers=HEADERS)
    found = problem(response, http, kind)
    assert NIK not in response.text
    assert "Traceback" not in response.text
    assert found["detail"]
    assert await client.service.engine._store.execute(Describe("surabaya")) == before
    assert (await client.reserve()).status_code == 201


@pytest.mark.parametrize("number", [b"600000", b"600000.0", b"6e5", b"6.0e+5"])
async def test_every_spelling_of_an_integer_is_accepted(client: Client, number: bytes) -> None:
    """JSON Schema counts a number without a fraction as an integer, and some languages write all numbers so."""
    content = body(hold_ttl_ms=1).replace(b'"hold_ttl_ms": 1', b'"hold_ttl_ms": ' + number)
    response = await client.http.post(RESERVE, content=content, headers=HEADERS)
    assert response.status_code == 201, response.text
    assert response.json()["reservation"]["deadline_at_ms"] == client.clock.now_ms() + 600_000


@pytest.mark.parametrize("number", [b"1.5", b"-1.0", b"1e30", b"9007199254740994.0", b'"1.0"', b"1e999"])
async def test_other_numbers_are_no_integers(client: Client, number: bytes) -> None:
    content = body(hold_ttl_ms=1).replace(b'"hold_ttl_ms": 1', b'"hold_ttl_ms": ' + number)
    response = await client.http.post(RESERVE, content=content, headers=HEADERS)
    assert response.status_code in (400, 422), response.text


async def test_a_repeated_key_is_refused_beside_a_number_with_a_point(client: Client) -> None:
    content = b'{"hold_ttl_ms":600000.0,"applicants":["1"],"applicants":["2"],"service":"new","session":"morning"}'
    problem(await client.http.post(RESERVE, content=content, headers=HEADERS), 400, "bad-request")


async def test_invalid_headers_are_problems(client: Client) -> None:
    """A missing or malformed key, another media type, and headers that are too large."""
    bare = {name: value for name, value in HEADERS.items() if name != "idempotency-key"}
    problem(await client.http.post(RESERVE, content=body(), headers=bare), 400, "bad-request")
    for key in (b"a b", b"x" * 65, "naïve".encode(), b"a~b"):
        headers = [(name.encode(), value.encode()) for name, value in bare.items()] + [(b"idempotency-key", key)]
        problem(await client.http.post(RESERVE, content=body(), headers=headers), 422, "unprocessable")
    form = {**HEADERS, "content-type": "application/x-www-form-urlencoded"}
    problem(await client.http.post(RESERVE, content=body(), headers=form), 415, "unsupported-media-type")
    long = {**HEADERS, "x-much": "x" * 20_000}
    problem(await client.http.post(RESERVE, content=body(), headers=long), 431, "headers-too-large")


@pytest.mark.parametrize(
    ("path", "http", "kind"),
    [
        ("/v1/offices/surabaya/days/2026-13-01/reservations", 422, "unprocessable"),
        ("/v1/offices/surabaya/days/7/reservations", 422, "unprocessable"),
        ("/v1/offices/Surabaya/days/2026-12-07/reservations", 404, "unknown-name"),
        ("/v1/offices/3578012345678901/days/2026-12-07/reservations", 404, "unknown-name"),
        ("/v1/offices/surabaya/days/2026-12-07/reservations/", 404, "unknown-path"),
        ("/v1/reservations/nix/confirm", 422, "unprocessable"),
        ("/v1/reservations/a~b~c/confirm", 422, "unprocessable"),
    ],
)
async def test_invalid_paths_are_problems(client: Client, path: str, http: int, kind: str) -> None:
    """Days that do not exist, unknown offices, and malformed references."""
    response = await client.http.post(path, content=b"{}" if "confirm" in path else body(), headers=HEADERS)
    problem(response, http, kind)
    assert "3578012345678901" not in response.text


@pytest.mark.parametrize(
    ("query", "http"),
    [
        ("", 422),
        ("?first_day=2026-12-07&first_day=2026-12-08", 400),
        ("?first_day=2026-12-07&nix=1", 422),
        ("?first_day=2026-12-07&last_day=2026-12-01", 422),
        ("?first_day=2026-12-07&last_day=2029-12-01", 422),
        ("?first_day=heute", 422),
        ("?first_day=2026-12-07&units=0", 422),
        ("?" + "&".join(f"a{number}=1" for number in range(50)), 400),
        ("?first_day", 400),
        ("?first_day=2026-12-07&service=%FF", 404),
    ],
)
async def test_invalid_queries_are_problems(client: Client, query: str, http: int) -> None:
    """Missing, unknown, repeated, excessive and out-of-range parameters."""
    response = await client.http.get(f"/v1/offices/surabaya/availability{query}")
    assert response.status_code == http, response.text
    assert response.headers["content-type"] == "application/problem+json"


async def test_unknown_paths_and_methods_are_problems(client: Client) -> None:
    """The problem names the allowed methods."""
    problem(await client.call("GET", "/v2/offices"), 404, "unknown-path")
    wrong = await client.call("DELETE", "/v1/offices")
    problem(wrong, 405, "method-not-allowed")
    assert "GET" in wrong.headers["allow"]


async def test_slow_body_times_out() -> None:

    async def never() -> Any:
        yield b"{"
        await asyncio.Event().wait()

    async with running(limits=RequestLimits(body_timeout_ms=30)) as client:
        response = await client.http.post(RESERVE, content=never(), headers=HEADERS)
        problem(response, 408, "request-timeout")


async def test_chunked_body_is_limited(client: Client) -> None:

    async def endless() -> Any:
        for _ in range(100):
            yield b"x" * 1024

    response = await client.http.post(RESERVE, content=endless(), headers=HEADERS)
    problem(response, 413, "too-large")


@pytest.mark.parametrize(
    ("error", "http", "kind"),
    [
        (BackendUnavailable("redis://user:secret@host is away"), 503, "unavailable"),
        (OutcomeUnknown("redis://user:secret@host was cut off"), 504, "outcome-unknown"),
        (ZeroDivisionError(NIK), 500, "internal"),
    ],
)
async def test_store_failures_are_problems_without_details(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, http: int, kind: str
) -> None:
    """An unreachable store, an unknown outcome and a bug have different problem types."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(MemoryStore, "apply", fail)
    response = await client.reserve()
    problem(response, http, kind)
    assert "secret" not in response.text
    assert NIK not in response.text
    assert ("retry-after" in response.headers) is (http != 500)
    monkeypatch.undo()
    assert (await client.reserve()).status_code == 201


async def test_well_formed_request_ids_are_kept(client: Client) -> None:
    """A malformed one is replaced by a new id."""
    kept = await client.http.get("/health/live", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>"):
        made = await client.http.get("/health/live", headers={"x-request-id": bad})
        assert made.headers["x-request-id"] != bad
        assert len(made.headers["x-request-id"]) == 16
