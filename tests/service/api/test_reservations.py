"""Endpoints of reservations: their responses and statuses."""

from __future__ import annotations

import datetime

import pytest

from quota_engine.domain.outcomes import SUCCESSES, Outcome, Status
from quota_engine.service.http.auth import Role
from quota_engine.service.http.problems import PROBLEM_TYPES, STATUS_PROBLEMS, TYPE_PREFIX, Problem
from tests.support.browser_service import wait_list_catalog
from tests.support.daily_releases import DULL, catalog_of
from tests.support.identities import nik
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client, running

TUESDAY = DAY + datetime.timedelta(days=1)


def problem(response: object, http: int, kind: str) -> dict[str, object]:
    """Return the problem document, after checking its status and type."""
    assert response.status_code == http, response.text  # type: ignore[attr-defined]
    assert response.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    body: dict[str, object] = response.json()  # type: ignore[attr-defined]
    assert body["type"] == TYPE_PREFIX + kind
    assert body["status"] == http
    assert body["title"] == PROBLEM_TYPES[kind].title
    assert str(body["instance"]).startswith("urn:quota-engine:request:")
    return body


async def test_reserve_confirm_look_up_and_check_in(client: Client) -> None:
    held = await client.reserve()
    assert held.status_code == 201
    body = held.json()
    assert (body["status"], body["replayed"]) == ("HELD", False)
    record = body["reservation"]
    reference = record["reference"]
    assert held.headers["location"] == f"/v1/reservations/{reference}"
    assert record["day"] == str(DAY)
    assert record["deadline_at_ms"] == client.clock.now_ms() + 900_000

    confirmed = await client.step(reference, "confirm", owner=NIK, expected_version=1)
    assert confirmed.status_code == 200
    assert confirmed.json()["reservation"]["queue_numbers"] == [1]
    looked_up = await client.call("GET", f"/v1/reservations/{reference}", role=Role.OFFICE)
    assert looked_up.json() == confirmed.json()["reservation"]

    days = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"]
    client.clock.set_ms(days[0]["starts_at_ms"])
    attended = await client.step(reference, "check-in", Role.OFFICE)
    assert attended.json()["status"] == "ATTENDED"
    problem(await client.step(reference, "no-show", Role.OFFICE), 409, "wrong-state")


async def test_repeated_key_finds_the_reservation(client: Client) -> None:
    """The same key with another body is a conflict."""
    first = await client.reserve(key="wish-1")
    again = await client.reserve(key="wish-1")
    assert (again.status_code, again.json()["replayed"]) == (200, True)
    assert again.json()["reservation"] == first.json()["reservation"]
    problem(await client.reserve(OTHER, key="wish-1"), 422, "conflict")


async def test_each_office_has_its_own_keys() -> None:
    """A client that tries another office needs another key, as the document states."""
    async with running(catalog=catalog_of(), office="east", day=DULL, before_ms=-23 * 3_600_000) as client:
        paths = [f"/v1/offices/{office}/days/{DULL}" for office in ("east", "west")]
        replies = [(await client.reserve(key="wish-1", path=path)) for path in paths]
        assert [(reply.status_code, reply.json()["replayed"]) for reply in replies] == [(201, False)] * 2
        document = (await client.http.get("/openapi.json")).text
        assert "Each office has its own keys" in document


async def test_returning_applicant_gets_the_same_hold(client: Client) -> None:
    """Another key finds the hold with its remaining time."""
    first = (await client.reserve()).json()["reservation"]
    client.clock.advance_ms(60_000)
    again = await client.reserve()
    assert (again.status_code, again.json()["resumed"], again.json()["reservation"]) == (200, True, first)


async def test_sold_out_quota_without_a_wait_list(client: Client) -> None:
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 1})
    assert (await client.reserve()).status_code == 201
    body = problem(await client.reserve(OTHER), 409, "sold-out")
    assert body["outcome"] == "SOLD_OUT"
    problem(await client.reserve(OTHER, join_wait_list=True), 409, "sold-out")


async def test_not_open_has_a_retry_time(client: Client) -> None:
    """In the body and in ``Retry-After``."""
    client.clock.set_ms(client.clock.now_ms() - 90_500)
    # The ledger's clock never runs backwards, so the test uses a day without earlier commands.
    first_day = DAY + datetime.timedelta(days=7)
    await client.operate("POST", "/v1/publish", {"first_day": str(first_day), "last_day": str(first_day)})
    path = f"/v1/offices/surabaya/days/{first_day}"
    response = await client.reserve(path=path)
    body = problem(response, 409, "not-open")
    seconds = int(response.headers["retry-after"])
    opens_at_ms = int(str(body["retry_at_ms"]))
    assert 0 <= seconds * 1000 - (opens_at_ms - client.clock.now_ms()) < 1000


async def test_release_cancel_and_reschedule(client: Client) -> None:
    reference = (await client.reserve()).json()["reservation"]["reference"]
    assert (await client.step(reference, "release")).json()["status"] == "RELEASED"
    assert (await client.step(reference, "release")).json()["replayed"]
    problem(await client.step(reference, "cancel"), 409, "wrong-state")

    reference = (await client.reserve()).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    moved = await client.call(
        "POST",
        f"/v1/reservations/{reference}/reschedule",
        {"day": str(TUESDAY), "service": "new", "session": "afternoon", "owner": NIK},
        Role.SERVICE,
    )
    assert moved.status_code == 200, moved.text
    assert moved.json()["reservation"]["day"] == str(TUESDAY)
    assert moved.json()["reservation"]["session"] == "afternoon"
    body = {"day": str(DAY), "service": "new", "session": "morning"}
    again = await client.call("POST", f"/v1/reservations/{reference}/reschedule", body, Role.SERVICE)
    problem(again, 409, "moves-exceeded")
    assert (await client.step(reference, "cancel")).json()["status"] == "CANCELLED"


async def test_other_owner_or_version_is_refused(client: Client) -> None:
    reference = (await client.reserve()).json()["reservation"]["reference"]
    body = problem(await client.step(reference, "confirm", owner=OTHER), 403, "not-owner")
    assert "reservation" not in body
    problem(await client.step(reference, "confirm", expected_version=7), 412, "stale")
    client.clock.advance_ms(900_000)
    problem(await client.step(reference, "confirm"), 410, "hold-expired")
    late = await client.step(reference, "confirm", reacquire=True)
    assert late.json()["status"] == "CONFIRMED"


async def test_identity_limit_and_party_size(client: Client) -> None:
    await client.reserve()
    path = DAY_PATH.replace(str(DAY), str(TUESDAY))
    limited = problem(await client.reserve(path=path), 409, "identity-limit")
    assert limited["reservation"]["day"] == str(DAY)  # type: ignore[index]
    crowd = [nik(one) for one in range(6)]
    problem(await client.reserve(*crowd), 422, "party-too-large")


async def test_closed_unknown_and_past_days_are_refused(client: Client) -> None:
    await client.operate("POST", f"{DAY_PATH}/close")
    problem(await client.reserve(), 409, "day-closed")
    await client.operate("POST", f"{DAY_PATH}/open")
    problem(await client.reserve(path="/v1/offices/surabaya/days/2026-11-30"), 404, "unknown-day")
    client.clock.advance_ms(20 * 86_400_000)
    problem(await client.reserve(), 410, "day-over")
    problem(await client.step("surabaya~nobody", "confirm"), 404, "not-found")
    problem(await client.call("GET", "/v1/reservations/surabaya~nobody", role=Role.SERVICE), 404, "not-found")


async def test_a_session_that_is_over_is_refused(client: Client) -> None:
    """At 12:45 the morning is over and the afternoon is not; the availability names the end of each."""
    held = (await client.reserve(OTHER)).json()["reservation"]
    path = f"/v1/offices/surabaya/availability?first_day={DAY}&session=morning&service=new"
    body = (await client.call("GET", path)).json()
    morning, afternoon = body["days"][0]["sessions"]
    assert (body["earliest_available_day"], morning["id"], afternoon["id"]) == (str(DAY), "morning", "afternoon")
    assert morning["book_until_ms"] == morning["ends_at_ms"] < afternoon["book_until_ms"]
    assert afternoon["ends_at_ms"] == body["days"][0]["ends_at_ms"]
    client.clock.set_ms(morning["ends_at_ms"] - 1)
    late = (await client.reserve()).json()["reservation"]
    client.clock.set_ms(morning["ends_at_ms"])
    problem(await client.reserve(nik(3)), 410, "session-over")
    problem(await client.step(late["reference"], "confirm"), 410, "session-over")
    problem(await client.step(held["reference"], "confirm", reacquire=True), 410, "hold-expired")
    afternoon_move = {"day": str(DAY), "service": "new", "session": "afternoon"}
    moved = await client.call("POST", f"/v1/reservations/{late['reference']}/reschedule", afternoon_move, Role.SERVICE)
    assert moved.json()["status"] == "HELD"
    assert (await client.step(late["reference"], "confirm")).json()["status"] == "CONFIRMED"
    assert (await client.call("GET", path)).json()["earliest_available_day"] is None


async def test_no_show_blocks_the_applicant(client: Client) -> None:
    """The refusal has the end of the block."""
    reference = (await client.reserve()).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    problem(await client.step(reference, "check-in", Role.OFFICE), 409, "too-early")
    days = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"]
    client.clock.set_ms(days[0]["starts_at_ms"])
    assert (await client.step(reference, "no-show", Role.OFFICE)).json()["status"] == "NO_SHOW"
    response = await client.reserve(path=DAY_PATH.replace(str(DAY), str(TUESDAY)))
    problem(response, 403, "blocked")
    assert int(response.headers["retry-after"]) == 7 * 86_400


async def test_undone_no_show_blocks_the_applicant_no_longer(client: Client) -> None:
    reference = (await client.reserve()).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    days = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"]
    client.clock.set_ms(days[0]["starts_at_ms"])
    marked = (await client.step(reference, "no-show", Role.OFFICE)).json()["reservation"]
    assert marked["undo_until_ms"] == days[0]["starts_at_ms"] + 600_000
    client.clock.set_ms(marked["undo_until_ms"] - 1)
    undone = await client.step(reference, "undo-attendance", Role.OFFICE, expected_version=marked["version"])
    assert (undone.json()["status"], undone.json()["reservation"]["undo_until_ms"]) == ("CONFIRMED", 0)
    again = (await client.step(reference, "undo-attendance", Role.OFFICE, expected_version=marked["version"])).json()
    assert (again["status"], again["replayed"]) == ("CONFIRMED", True)
    refused = await client.reserve(path=DAY_PATH.replace(str(DAY), str(TUESDAY)))
    problem(refused, 409, "identity-limit")  # by the confirmed place, and not by a block
    await client.step(reference, "check-in", Role.OFFICE)
    client.clock.advance_ms(600_000)
    problem(await client.step(reference, "undo-attendance", Role.OFFICE), 409, "too-late")


@pytest.mark.parametrize("status", [status for status in Status if status not in SUCCESSES])
def test_every_refusal_has_a_problem_type(status: Status) -> None:
    """The HTTP status says if the caller or the service has to act."""
    found = Problem.from_outcome(Outcome(status, retry_at_ms=1_500), 1_000)
    assert found.type is STATUS_PROBLEMS[status]
    assert found.type.name == status.lower().replace("_", "-")
    assert 400 <= found.type.status < 600
    assert found.retry_after_s == 1


async def test_holds_let_go_are_counted_and_a_block_is_announced() -> None:
    """The rules of this office allow one hold a day that ends without a confirm."""
    async with running(catalog=wait_list_catalog(abandoned_holds_max=1)) as client:
        first = (await client.reserve()).json()
        assert "abandoned_holds_left" not in first
        released = (await client.step(first["reservation"]["reference"], "release")).json()
        assert released["abandoned_holds_left"] == 0
        assert "blocked_until_ms" not in released
        second = (await client.reserve()).json()
        block_ms = 86_400_000
        assert second["abandoned_holds_left"] == 0
        assert second["blocked_until_ms"] == second["reservation"]["deadline_at_ms"] + block_ms
        released = (await client.step(second["reservation"]["reference"], "release")).json()
        assert released["blocked_until_ms"] == client.clock.now_ms() + block_ms
        refused = problem(await client.reserve(), 403, "blocked")
        assert refused["retry_at_ms"] == released["blocked_until_ms"]
        path = "/v1/offices/surabaya/abandoned-holds"
        counts = await client.call("GET", path, role=Role.OFFICE)
        assert counts.json() == {"office": "surabaya", "released": 2, "expired": 0, "blocks": 1}
        assert (await client.call("GET", path, role=Role.SERVICE)).status_code == 403
