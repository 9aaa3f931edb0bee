"""Identities over HTTP: nine spellings of one number get one place, and what does not fit is a problem document."""

from __future__ import annotations

from quota_engine.service.http.auth import Role
from tests.service.api.test_reservations import problem
from tests.support.identities import NIK, SPELLINGS, nik
from tests.support.in_process_service import DAY, Client


async def test_nine_spellings_of_one_number_get_one_place(client: Client) -> None:
    answers = [await client.reserve(spelling) for spelling in SPELLINGS]
    assert [answer.status_code for answer in answers] == [201] + [200] * 8
    assert len({answer.json()["reservation"]["reference"] for answer in answers}) == 1
    days = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"]
    assert {quota["name"]: quota["held"] for quota in days[0]["quotas"]}["online"] == 1
    confirmed = await client.step(answers[0].json()["reservation"]["reference"], "confirm", owner=SPELLINGS[5])
    assert confirmed.status_code == 200


async def test_what_does_not_fit_is_refused_with_the_form(client: Client) -> None:
    """The problem names the field and the form, and not the identity."""
    body = problem(await client.reserve(nik(1), "3578-0123"), 422, "unprocessable")
    expected = {"where": "applicants[1]", "problem": "not a usable identity", "expected": "16 digits"}
    assert body["errors"] == [expected]
    assert "3578-0123" not in str(body)
    reference = (await client.reserve()).json()["reservation"]["reference"]
    wrong = problem(await client.step(reference, "confirm", owner="x"), 422, "unprocessable")
    assert wrong["errors"] == [expected | {"where": "owner"}]


async def test_a_party_with_one_person_twice_is_refused(client: Client) -> None:
    for spelling in SPELLINGS:
        body = problem(await client.reserve(NIK, nik(1), spelling), 422, "unprocessable")
        assert body["errors"] == [
            {"where": "applicants", "problem": "one applicant twice", "expected": "each applicant once"}
        ]
    listed = await client.call("GET", f"/v1/offices/surabaya/days/{DAY}/reservations", role=Role.OPERATOR)
    assert listed.json()["reservations"] == []
