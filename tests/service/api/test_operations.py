"""Wait list, consumer groups, moves between offices, the day's list, and the catalog."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

from quota_engine.ports import Describe
from quota_engine.service.http.auth import Grant, Role
from tests.service.api.test_reservations import problem
from tests.support.draw_runs import MONDAY, NOW_MS, catalog
from tests.support.in_process_service import DAY, DAY_PATH, NIK, OTHER, Client, grants, running

GROUP = "/v1/offices/surabaya/consumer-groups/mail"
EVENTS = "/v1/offices/surabaya/events"


async def test_wait_list_offers_returned_places() -> None:
    """The lookup reports the position, and the event has the verb ``offer``."""
    async with running(catalog=catalog("wait_list", 1), office="sby", day=MONDAY) as client:
        client.clock.set_ms(NOW_MS)
        path = f"/v1/offices/sby/days/{MONDAY}"

        async def wait(name: str) -> str:
            body = {"applicants": [name], "session": "am", "channel": "draw", "join_wait_list": True}
            answer = await client.call(
                "POST", f"{path}/reservations", body, Role.SERVICE, idempotency_key=f"key-{name}"
            )
            assert answer.status_code == (201 if name == "ani" else 202), answer.text
            return str(answer.json()["reservation"]["reference"])

        ani, budi, citra = [await wait(name) for name in ("ani", "budi", "citra")]

        async def look(reference: str) -> dict[str, object]:
            found: dict[str, object] = (
                await client.call("GET", f"/v1/reservations/{reference}", role=Role.SERVICE)
            ).json()
            return found

        assert (await look(budi))["wait_list_position"] == {"ahead": 0, "waiting": 2}
        assert (await look(citra))["wait_list_position"] == {"ahead": 1, "waiting": 2}
        assert "wait_list_position" not in await look(ani)
        assert (await client.step(ani, "release")).status_code == 200
        assert (await look(budi))["state"] == "HELD"
        assert (await look(citra))["wait_list_position"] == {"ahead": 0, "waiting": 1}
        assert (await client.step(citra, "release")).json()["status"] == "RELEASED"
        events = (await client.call("GET", "/v1/offices/sby/events", role=Role.AUDITOR)).json()["events"]
        assert "offer" in [event.get("verb") for event in events]


async def test_consumer_group_delivers_each_event_once(client: Client) -> None:
    """Acknowledged events are not delivered again."""
    assert (await client.call("POST", GROUP, {}, Role.SERVICE)).status_code == 201
    again = await client.call("POST", GROUP, {}, Role.SERVICE)
    assert (again.status_code, again.json()) == (200, {"created": False})

    async def read(consumer: str) -> list[int]:
        page = await client.call("GET", f"{EVENTS}?consumer_group=mail&consumer={consumer}&limit=2", role=Role.SERVICE)
        return [event["number"] for event in page.json()["events"]]

    assert (await read("w1"), await read("w2"), await read("w1")) == ([1, 2], [3, 4], [1, 2])
    done = await client.call("POST", f"{GROUP}/acknowledge", {"numbers": [1, 2]}, Role.SERVICE)
    assert done.json() == {"acknowledged": 2}
    assert await read("w1") == [5, 6]
    (group,) = (await client.call("GET", "/v1/offices/surabaya/consumer-groups", role=Role.AUDITOR)).json()[
        "consumer_groups"
    ]
    assert (group["name"], group["acknowledged"], group["delivered"], group["pending"]) == ("mail", 2, 6, 4)
    problem(await client.call("GET", f"{EVENTS}?consumer_group=mail&consumer=w1", role=Role.AUDITOR), 403, "forbidden")
    problem(await client.call("GET", f"{EVENTS}?consumer_group=mail", role=Role.SERVICE), 422, "unprocessable")
    assert (await client.call("DELETE", GROUP, role=Role.SERVICE)).json() == {"deleted": True}
    assert (await client.call("DELETE", GROUP, role=Role.SERVICE)).json() == {"deleted": False}


async def test_move_to_another_office_has_a_new_reference() -> None:
    """The old reference leads to the new one."""
    async with running(catalog=catalog("at_once"), office="sby", day=MONDAY) as client:
        client.clock.set_ms(NOW_MS)
        body = {"applicants": [NIK], "session": "am", "channel": "draw"}
        path = f"/v1/offices/sby/days/{MONDAY}/reservations"
        held = await client.call("POST", path, body, Role.SERVICE, idempotency_key="wish")
        reference = held.json()["reservation"]["reference"]
        target: dict[str, Any] = {"day": str(MONDAY), "office": "mlg", "session": "pm", "channel": "draw"}
        moved = await client.step(reference, "reschedule", **target)
        assert (moved.status_code, moved.json()["reservation"]["office"]) == (200, "mlg")
        there = moved.json()["reservation"]["reference"]
        response = await client.call("GET", f"/v1/reservations/{reference}/moved-to", role=Role.OFFICE)
        assert response.json() == {"reference": there}
        old = (await client.call("GET", f"/v1/reservations/{reference}", role=Role.SERVICE)).json()
        assert (old["state"], old["moved_to"]) == ("MOVED", there)
        assert (await client.operate("POST", "/v1/moves/recover", {})).json() == {"finished": 0, "undone": 0}
        before = await client.service.engine._store.execute(Describe("mlg"))
        reconciled = (await client.operate("POST", "/v1/ledgers/mlg/reconcile")).json()
        assert (reconciled["findings"], reconciled["repaired"]) == ([], 0)
        assert await client.service.engine._store.execute(Describe("mlg")) == before


async def test_move_needs_a_token_for_both_offices() -> None:
    desks = tuple(
        Grant(f"desk-{name}", Role.SERVICE, hashlib.sha256(name.encode()).hexdigest(), offices)
        for name, offices in (("here", ("sby",)), ("there", ("mlg",)), ("both", ("sby", "mlg")))
    )
    async with running(catalog=catalog("at_once"), office="sby", day=MONDAY, grants=(*grants(), *desks)) as client:
        client.clock.set_ms(NOW_MS)
        body = {"applicants": [NIK], "session": "am", "channel": "draw"}
        path = f"/v1/offices/sby/days/{MONDAY}/reservations"
        held = await client.call("POST", path, body, Role.SERVICE, idempotency_key="wish")
        reference = held.json()["reservation"]["reference"]
        places = ("sby", "mlg")
        before = [await client.service.engine._store.execute(Describe(place)) for place in places]
        target = {"day": str(MONDAY), "office": "mlg", "session": "pm", "channel": "draw"}

        async def move(token: str) -> Any:
            headers = {"authorization": f"Bearer {token}"}
            return await client.http.post(f"/v1/reservations/{reference}/reschedule", json=target, headers=headers)

        for token in ("here", "there"):
            problem(await move(token), 403, "forbidden")
        assert [await client.service.engine._store.execute(Describe(place)) for place in places] == before
        assert (await move("both")).status_code == 200


async def test_people_move_only_to_offices_of_the_token() -> None:
    """Nothing is closed or moved by a token that does not cover the target's office."""
    operators = tuple(
        Grant(f"operator-{name}", Role.OPERATOR, hashlib.sha256(name.encode()).hexdigest(), offices)
        for name, offices in (("own", ("sby",)), ("both", ("sby", "mlg")))
    )
    async with running(catalog=catalog("at_once"), office="sby", day=MONDAY, grants=(*grants(), *operators)) as client:
        path = f"/v1/offices/sby/days/{MONDAY}/relocate"
        plan = {"targets": [{"office": "mlg", "day": str(MONDAY)}]}
        before = await client.service.engine._store.execute(Describe("sby"))
        refused = await client.http.post(path, json=plan, headers={"authorization": "Bearer own"})
        problem(refused, 403, "forbidden")
        assert await client.service.engine._store.execute(Describe("sby")) == before
        moved = await client.http.post(path, json=plan, headers={"authorization": "Bearer both"})
        assert moved.status_code == 200


async def test_day_list_is_paged_by_queue_number(client: Client) -> None:
    """Only the role office may read it."""
    first = (await client.reserve(NIK)).json()["reservation"]["reference"]
    second = (await client.reserve(OTHER)).json()["reservation"]["reference"]
    await client.step(second, "confirm")
    path = f"{DAY_PATH}/reservations"
    listed = (await client.call("GET", path, role=Role.OFFICE)).json()
    assert (listed["total"], [one["reference"] for one in listed["reservations"]]) == (2, [second, first])
    part = (await client.call("GET", f"{path}?skip=1&limit=1", role=Role.OFFICE)).json()
    assert (part["total"], part["reservations"]) == (2, listed["reservations"][1:])
    problem(await client.call("GET", path, role=Role.SERVICE), 403, "forbidden")
    later = DAY + datetime.timedelta(days=400)
    empty = await client.call("GET", f"/v1/offices/surabaya/days/{later}/reservations", role=Role.OFFICE)
    assert (empty.status_code, empty.json()["total"]) == (200, 0)
    assert NIK not in str(listed)


async def test_catalog_has_no_secrets(client: Client) -> None:
    shown = await client.operate("GET", "/v1/catalog")
    (office,) = shown.json()["offices"]
    assert (office["id"], office["schedule"]["id"]) == ("surabaya", client.service.get_office("surabaya").schedule.id)
    assert {one["id"] for one in office["allotments"]} >= {"online", "kiosk"}
    assert "jitter_seed" not in shown.text
