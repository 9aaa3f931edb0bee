"""Endpoints of operators, offices and auditors, and their roles."""

from __future__ import annotations

import hashlib

import pytest

from quota_engine.service.api import ENDPOINTS
from quota_engine.service.http.auth import AccessControl, Grant, Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import Problem
from tests.service.api.test_reservations import problem
from tests.support.identities import nik
from tests.support.in_process_service import DAY, DAY_PATH, NIK, TOKENS, Client, grants, path_of


async def test_lowered_capacity_overbooks_and_sells_nothing(client: Client) -> None:
    for number in range(3):
        await client.reserve(nik(number))
    lowered = await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 2})
    assert (lowered.json()["status"], lowered.json()["overbooked"]) == ("DONE", 1)
    problem(await client.reserve(NIK), 409, "sold-out")
    problem(await client.operate("PUT", f"{DAY_PATH}/quotas/nix/capacity", {"capacity": 2}), 404, "unknown-quota")


async def test_day_commands_report_their_units(client: Client) -> None:
    """Reallocate unused units, release parked ones, and expire holds."""
    passed = await client.operate("POST", f"{DAY_PATH}/quotas/kiosk/reallocate-unused")
    assert passed.json()["units"] == 30
    problem(await client.operate("POST", f"{DAY_PATH}/quotas/online/reallocate-unused"), 409, "wrong-state")
    assert (await client.operate("POST", f"{DAY_PATH}/quotas/online/release-parked")).json()["units"] == 0
    await client.reserve()
    client.clock.advance_ms(900_000)
    assert (await client.operate("POST", f"{DAY_PATH}/expire", {"limit": 10})).json()["units"] == 1


async def test_auditor_reads_events_and_audits(client: Client) -> None:
    """No response has an identity or a secret."""
    reference = (await client.reserve()).json()["reservation"]["reference"]
    await client.step(reference, "confirm")
    page = (await client.call("GET", "/v1/offices/surabaya/events?limit=4", role=Role.AUDITOR)).json()
    assert [event["number"] for event in page["events"]] == [1, 2, 3, 4]
    rest = await client.call("GET", f"/v1/offices/surabaya/events?after={page['next_after']}", role=Role.AUDITOR)
    assert [event["verb"] for event in rest.json()["events"] if "verb" in event] == ["reserve", "confirm"]
    everything = str(page) + rest.text
    assert "jitter_seed" not in everything
    assert "applicants" not in everything
    assert NIK not in everything
    audited = await client.call("GET", "/v1/audit?office=surabaya", role=Role.AUDITOR)
    assert audited.json() == {"ok": True, "offices": 1, "findings": []}
    trimmed = await client.operate("POST", "/v1/offices/surabaya/events/trim", {"through": page["next_after"]})
    assert trimmed.json()["events_left"] == len(rest.json()["events"])


async def test_offices_and_availability_are_public(client: Client) -> None:
    """Including the next opening and the earliest available day."""
    offices = (await client.call("GET", "/v1/offices")).json()["offices"]
    assert [office["id"] for office in offices] == ["surabaya"]
    office = (await client.call("GET", "/v1/offices/surabaya")).json()
    assert office == offices[0]
    assert office["services"][0] == {
        "id": "new",
        "name": "Paspor baru",
        "names": {"id": "Paspor baru", "en": "New passport"},
    }
    for part, name in (("sessions", "Morning"), ("groups", "Priority zone"), ("channels", "Application or web")):
        assert office[part][0]["names"]["en"] == name
    assert [session["id"] for session in office["sessions"]] == ["morning", "afternoon"]
    assert office["next_opening_at_ms"] > client.clock.now_ms()
    path = f"/v1/offices/surabaya/availability?first_day={DAY}&last_day=2026-12-11&service=new&session=morning"
    found = (await client.call("GET", path)).json()
    assert (found["earliest_available_day"], len(found["days"])) == (str(DAY), 5)
    await client.operate("PUT", f"{DAY_PATH}/quotas/online/capacity", {"capacity": 0})
    assert (await client.operate("GET", path)).json()["earliest_available_day"] == "2026-12-08"
    problem(await client.call("GET", "/v1/offices/nix"), 404, "unknown-name")


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.roles is not None], ids=lambda one: one.name)
async def test_roles_are_enforced(client: Client, endpoint: Endpoint) -> None:
    """401 without a token, 403 with another role; an operator may call every endpoint."""
    path, method, roles = path_of(endpoint), endpoint.method, endpoint.roles
    assert roles is not None
    bare = await client.call(method, path)
    problem(bare, 401, "unauthorized")
    assert bare.headers["www-authenticate"] == "Bearer"
    problem(await client.call(method, path, authorization="Bearer wrong"), 401, "unauthorized")
    problem(await client.call(method, path, authorization=f"Basic {TOKENS[Role.OPERATOR]}"), 401, "unauthorized")
    for role in Role:
        response = await client.call(method, path, role=role)
        assert (response.status_code == 403) is (role not in roles and role is not Role.OPERATOR), role


def test_token_is_limited_to_its_offices() -> None:
    """It is also refused where no office is named."""
    digest = hashlib.sha256(b"a token").hexdigest()
    access = AccessControl((*grants(), Grant("desk", Role.OFFICE, digest, ("surabaya",))))
    grant = access.authenticate(b"Bearer a token")
    assert grant.name == "desk"
    access.authorize(grant, frozenset({Role.OFFICE}), "surabaya")
    for office in ("malang", ""):
        with pytest.raises(Problem) as error:
            access.authorize(grant, frozenset({Role.OFFICE}), office)
        assert error.value.type.status == 403


async def test_health_metrics_and_openapi_are_served(client: Client) -> None:
    assert (await client.call("GET", "/health/live")).json() == {"status": "live"}
    assert (await client.call("GET", "/health/ready")).json() == {"status": "ready"}
    await client.reserve()
    metrics = (await client.call("GET", "/metrics")).text
    assert 'quota_engine_outcomes_total{status="HELD"} 1.0' in metrics
    assert 'quota_engine_http_requests_total{endpoint="reserve",status="201"} 1.0' in metrics
    document = (await client.call("GET", "/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    client.service.draining = True
    drained = await client.call("GET", "/health/ready")
    assert (drained.status_code, drained.json()) == (503, {"status": "draining"})


async def test_a_command_that_expects_another_revision_is_refused(client: Client) -> None:
    """The refusal names the present revision. A repeated command finds its effect with any expected revision."""
    path = f"{DAY_PATH}/quotas/online/capacity"
    days = (await client.call("GET", f"/v1/offices/surabaya/availability?first_day={DAY}")).json()["days"]
    assert days[0]["revision"] == 1
    done = await client.operate("PUT", path, {"capacity": 2, "expected_revision": 1})
    assert (done.json()["revision"], done.json()["replayed"]) == (2, False)
    again = await client.operate("PUT", path, {"capacity": 2, "expected_revision": 1})
    assert (again.json()["revision"], again.json()["replayed"]) == (2, True)
    refused = problem(await client.operate("PUT", path, {"capacity": 9, "expected_revision": 1}), 412, "stale")
    assert (refused["outcome"], refused["revision"]) == ("STALE", 2)
    problem(await client.operate("POST", f"{DAY_PATH}/close", {"expected_revision": 1}), 412, "stale")
    closed = await client.operate("POST", f"{DAY_PATH}/close", {"expected_revision": 2})
    assert closed.json()["revision"] == 3
    problem(await client.operate("POST", f"{DAY_PATH}/open", {"expected_revision": 2}), 412, "stale")
    assert (await client.operate("POST", f"{DAY_PATH}/open")).json()["revision"] == 4
    for command in ("reallocate-unused", "release-parked"):
        path = f"{DAY_PATH}/quotas/online/{command}"
        assert (await client.operate("POST", path, {"expected_revision": 2**31 + 1})).status_code == 422
