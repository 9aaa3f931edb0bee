"""Answers to callers without a token: made once for all, with an ETag, and right again as soon as they change."""

from __future__ import annotations

import datetime
import sys
from collections.abc import AsyncIterator

import pytest

from quota_engine.catalog import Catalog, load_catalog
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service import context as service_context
from quota_engine.service.api import offices as office_endpoints
from quota_engine.service.http.auth import Role
from quota_engine.service.pages.rendering import PageRenderer
from tests.support.in_process_service import DAY, DAY_PATH, Client, running

AVAILABILITY = f"/v1/offices/surabaya/availability?first_day={DAY}"
PATHS = ("/v1/offices", "/v1/offices/surabaya", AVAILABILITY, "/openapi.json")


class Calls:
    """Counts the calls of a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.count = 0
        original = getattr(owner, name)

        def counted(*args: object, **named: object) -> object:
            self.count += 1
            return original(*args, **named)

        monkeypatch.setattr(owner, name, counted)


@pytest.fixture(scope="module")
def indonesia() -> Catalog:
    return load_catalog("indonesia")


@pytest.fixture
async def country(indonesia: Catalog) -> AsyncIterator[Client]:
    async with running(catalog=indonesia) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_unchanged_answer_is_304_without_a_body(client: Client, path: str) -> None:
    first = await client.call("GET", path)
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    second = await client.call("GET", path, if_none_match=etag)
    assert (second.status_code, second.content, second.headers["etag"]) == (304, b"", etag)
    third = await client.call("GET", path, if_none_match='"other"')
    assert (third.status_code, third.content) == (200, first.content)
    head = await client.call("HEAD", path)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)


async def test_second_request_makes_nothing(country: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures count one call for each of the 125 offices, and none afterwards."""
    bodies = Calls(monkeypatch, office_endpoints, "office_body")
    releases = Calls(monkeypatch, office_endpoints, "next_release")
    for _ in range(3):
        assert len((await country.call("GET", "/v1/offices")).json()["offices"]) == 125
        assert bodies.count == 125
        assert releases.count < 10, "offices with the same schedule share the search for their next opening"
    for _ in range(3):
        await country.call("GET", "/v1/offices/surabaya")
        assert bodies.count == 126


async def test_change_of_the_catalog_is_seen_at_once(country: Client, indonesia: Catalog) -> None:
    before = await country.call("GET", "/v1/offices")
    country.service.catalog = load_catalog("surabaya")
    after = await country.call("GET", "/v1/offices", if_none_match=before.headers["etag"])
    assert after.status_code == 200
    assert [office["id"] for office in after.json()["offices"]] == ["surabaya"]
    assert after.headers["etag"] != before.headers["etag"]
    country.service.catalog = indonesia
    assert (await country.call("GET", "/v1/offices")).content == before.content


async def test_offices_are_right_at_the_millisecond_of_an_opening(client: Client) -> None:
    opens_at_ms = (await client.call("GET", "/v1/offices/surabaya")).json()["next_opening_at_ms"]
    for path in ("/v1/offices", "/v1/offices/surabaya"):
        client.clock.set_ms(opens_at_ms - 1)
        assert f'"next_opening_at_ms":{opens_at_ms}' in (await client.call("GET", path)).text
        client.clock.set_ms(opens_at_ms)
        assert f'"next_opening_at_ms":{opens_at_ms}' not in (await client.call("GET", path)).text


async def test_availability_is_read_once_a_second_for_callers_without_a_token(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Calls(monkeypatch, AsyncQuotaEngine, "availability")
    before = await client.call("GET", AVAILABILITY)
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    client.clock.advance_ms(999)
    for authorization in ("", "Bearer unknown"):
        shared = await client.call("GET", AVAILABILITY, authorization=authorization)
        assert (shared.content, reads.count) == (before.content, 1)
    client.clock.advance_ms(1)
    after = await client.call("GET", AVAILABILITY, if_none_match=before.headers["etag"])
    assert (after.status_code, reads.count) == (200, 2)
    assert after.content != before.content


async def test_availability_with_a_token_is_read_from_the_store(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller sees its own changes."""
    await client.call("GET", AVAILABILITY)
    reads = Calls(monkeypatch, AsyncQuotaEngine, "availability")
    for number, role in enumerate(Role, 1):
        capacity = 50 + number
        await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": capacity})
        (day,) = (await client.call("GET", AVAILABILITY, role=role)).json()["days"]
        online = {quota["name"]: quota for quota in day["quotas"]}["online"]
        assert (online["capacity"], reads.count) == (capacity, number)


async def test_queries_of_availability_do_not_share_an_answer(client: Client) -> None:
    for query in ("", "&units=2", "&session=morning&service=new", f"&last_day={DAY + datetime.timedelta(days=1)}"):
        shared = await client.call("GET", AVAILABILITY + query)
        own = await client.operate("GET", AVAILABILITY + query)
        assert shared.content == own.content, query
    assert (await client.call("GET", AVAILABILITY.replace("surabaya", "nix"))).status_code == 404


@pytest.mark.slow
async def test_varied_queries_keep_a_bounded_number_of_answers(client: Client) -> None:
    for number in range(service_context.AVAILABILITY_RESPONSES_MAX + 50):
        await client.call("GET", f"{AVAILABILITY}&session=s{number}")
        await client.call("GET", f"{AVAILABILITY.replace(str(DAY), str(DAY + datetime.timedelta(days=number)))}")
    cache = client.service.availability_responses
    assert len(cache._entries) <= service_context.AVAILABILITY_RESPONSES_MAX
    assert len(cache._locks) <= service_context.AVAILABILITY_RESPONSES_MAX


async def test_metrics_of_the_store_are_rendered_once_for_each_collection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.http.get("/metrics")
    renders = Calls(monkeypatch, service_context, "render")
    for _ in range(3):
        text = (await client.http.get("/metrics")).text
    assert renders.count == 3, "the service's own metrics only"
    assert text.count("# TYPE quota_engine_store_up gauge") == 1
    assert 'quota_engine_overbooked_units{office="surabaya"}' in text


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch, PageRenderer, "render_text")


@pytest.mark.slow
async def test_new_visitors_share_the_text_of_a_page(country: Client, rendered: Calls) -> None:
    """Each gets a separate idempotency key."""
    for path in ("/", "/?office=surabaya", "/days?office=surabaya", "/?lang=en"):
        rendered.count = 0
        texts = {(await country.http.get(path)).text for _ in range(3)}
        assert rendered.count == 1, path
        assert len(texts) == (1 if "days" in path else 3), path
    country.clock.advance_ms(1_000)
    await country.http.get("/")
    assert rendered.count == 2


async def test_shared_page_has_the_choice_and_the_language_of_its_reader(country: Client) -> None:
    for path, office, language in (
        ("/?office=surabaya", "surabaya", "id"), ("/?office=malang", "malang", "id"),
        ("/?office=surabaya&lang=en", "surabaya", "en"), ("/?office=surabaya&nonsense=%22", "surabaya", "id"),
    ):  # fmt: skip
        page = (await country.http.get(path)).text
        assert page.count(" selected>") == 2, "office and service"
        assert f'<option value="{office}" selected>' in page
        assert f'<html lang="{language}">' in page
        assert "nonsense" not in page
        country.http.cookies.clear()


async def test_shared_page_is_made_again_from_new_figures(client: Client, rendered: Calls) -> None:
    """It is as old as the figures: at most a second."""
    await client.http.get("/")
    await client.operate("POST", f"{DAY_PATH}/close")
    assert "tutup" not in (await client.http.get("/")).text
    assert rendered.count == 1
    client.clock.advance_ms(1_000)
    assert "tutup" in (await client.http.get("/")).text


async def _calls_of(client: Client, path: str) -> int:
    """Return the number of functions that a second request of a path calls."""
    await client.http.get(path)
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        await client.http.get(path)
    finally:
        sys.setprofile(None)
    return calls


async def test_cost_of_a_shared_answer_does_not_grow_with_the_catalog(indonesia: Catalog) -> None:
    """One office and 125 offices. Calls of functions are counted, because their number is the same on every machine."""
    counts = []
    for catalog in (load_catalog("surabaya"), indonesia):
        async with running(catalog=catalog) as client:
            counts.append([await _calls_of(client, path) for path in (*PATHS, "/", "/days")])
    assert counts[0] == pytest.approx(counts[1], rel=0.1)
