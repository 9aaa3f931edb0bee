"""Nothing that a service lets out or keeps has an identity or a secret, except at the places listed here.

A run on Valkey uses reservations, waiting room, draw, wait list, pages and operators' commands, with valid and with bad
input. Runs on SQL stores use what writes to the store. Then every response, header, page, event, log record, metric,
span, stored key and value, and file is searched.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import html
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quota_engine import RoomSettings
from quota_engine.catalog import day_terms
from quota_engine.clocks import ManualClock
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.identity_key import IdentityKey
from quota_engine.draws.lottery import commitment_of
from quota_engine.service.app import create_app
from quota_engine.service.config.admission_settings import TicketSecrets, WaitingRoomsConfig
from quota_engine.service.http.auth import Role
from quota_engine.service.http.limits import RequestLimits
from quota_engine.service.observability.tracing import Tracing
from quota_engine.waiting_room.releases import WaitingRoomSchedule
from tests.support.browser_service import wait_list_catalog
from tests.support.form_browser import DECLARED, CitizenBrowser, OperatorBrowser, csrf_token_of
from tests.support.in_process_service import DAY, DAY_PATH, TOKENS, Client, configuration, listening
from tests.support.planted_secrets import Sightings
from tests.support.postgresql_servers import PostgresqlServer
from tests.support.servers import Server, valkey_server_binary

pytestmark = pytest.mark.slow

HOUR_MS: Final = 3_600_000
NIKS: Final = tuple(str(7_365_190_000_000_000 + number * 7_919_331) for number in range(1, 41))
"""Identities of this run. No other number contains one of them."""
IDENTITY_KEY: Final = b"planted identity key \xf0\x9f\x94\x91 of 32 b"
STORE_PASSWORD: Final = "planted-password-of-the-store"  # noqa: S105
DRAW_SEED: Final = hashlib.sha256(b"planted seed").hexdigest()
TICKET_SECRET: Final = b"planted secret of the ticket keys"
OWNERS: Final = ("body", "cookie")
"""Channels to the owner of a secret."""
OWN_INPUT: Final = re.compile(r'<input[^>]* name="(?:nik|code)"[^>]*? value="[^>]*>')
"""The input of a form that was refused. It shows its sender the text again, in a page that no browser may store.

The links to the other language likewise repeat the query of the address that the reader has asked for.
"""
CODE_CHANNELS: Final = ("page", "store", "event")
"""A registration code is the reservation's id, so its records and the office's list have it."""
ROOMS: Final = WaitingRoomsConfig(WaitingRoomSchedule(("surabaya",)), RoomSettings(turn_ms=300_000, per_minute_min=60))


def spellings(nik: str) -> tuple[str, ...]:
    """Return an identity in spellings that the catalog of Surabaya accepts."""
    full_width, arabic = (nik.translate({48 + one: base + one for one in range(10)}) for base in (0xFF10, 0x0660))
    groups = [nik[at : at + 4] for at in range(0, 16, 4)]
    invisible = f"\u200f{nik[:2]}\u00ad{nik[2:4]}\u200b{nik[4:]}"
    return (nik, f"  {nik} ", " ".join(groups), ".".join(groups), "-".join(groups), full_width, arabic, invisible)


def misspellings(nik: str) -> tuple[str, ...]:
    """Return texts with all digits of an identity that the catalog refuses."""
    return (f"{nik[:4]},{nik[4:]}", f"{nik}x", f"NIK {nik}", f"<b>{nik}</b>", f"'{nik}'; --", nik + "0")


class Run:
    """One service on a socket, and everything that is seen of it."""

    def __init__(self, client: Client, sightings: Sightings) -> None:
        self.client = client
        self.sightings = sightings
        self.statuses: set[int] = set()
        client.http.event_hooks["response"] = [self.see]

    async def see(self, response: httpx.Response) -> None:
        """Keep a response, and the address of the next request that it leads to."""
        self.statuses.add(response.status_code)
        self.sightings.see_headers(response.headers.multi_items())
        content = (await response.aread()).decode()
        if not response.headers.get("content-type", "").startswith("text/html"):
            self.sightings.see("body", content)
            return
        query = urlencode(list(response.request.url.params.multi_items()))
        page = OWN_INPUT.sub("", html.unescape(content).replace(query, "") if query else html.unescape(content))
        self.sightings.see("page", page)

    async def api(self, method: str, path: str, body: Any = None, role: Role = Role.OPERATOR, **headers: str) -> Any:
        """Send a request, and return the JSON of its response."""
        response = await self.client.call(method, path, body, role, **headers)
        return response.json() if response.headers.get("content-type", "").endswith("json") else {}

    async def reserve(self, *applicants: str, **more: Any) -> Any:
        """Reserve, and return the JSON of the response."""
        return (await self.client.reserve(*applicants, **more)).json()

    # --- Parts of the run ---

    async def reservations(self) -> None:
        """Walk reservations through their states, in all spellings, with wrong owners and wrong versions."""
        held = [await self.reserve(one) for one in spellings(NIKS[0])]
        references = {one["reservation"]["reference"] for one in held}
        assert len(references) == 1, "all spellings are one applicant"
        (reference,) = references
        steps = f"/v1/reservations/{reference}"
        for nik in (*misspellings(NIKS[0]), *spellings(NIKS[1])):
            await self.reserve(nik)
            await self.api("POST", f"{steps}/confirm", {"owner": nik}, Role.SERVICE)
        assert (await self.api("POST", f"{steps}/confirm", {"owner": NIKS[0]}, Role.SERVICE))["status"] == "CONFIRMED"
        await self.api("POST", f"{steps}/reschedule", {
            "day": str(DAY + datetime.timedelta(days=1)), "service": "new", "session": "morning", "owner": NIKS[0],
        }, Role.SERVICE)  # fmt: skip
        party = (await self.reserve(NIKS[2], NIKS[3]))["reservation"]["reference"]
        for nik in (NIKS[3], NIKS[4], *misspellings(NIKS[3])):
            body = {"owner": NIKS[2], "applicant": nik}
            await self.api("POST", f"/v1/reservations/{party}/remove-applicant", body, Role.SERVICE)
        replaced = {"applicant": NIKS[2], "replacement": NIKS[5]}
        await self.api("POST", f"/v1/reservations/{party}/replace-applicant", replaced)
        for step in ("extend", "confirm", "check-in", "no-show", "undo-attendance", "cancel", "release", "decline"):
            await self.api("POST", f"/v1/reservations/{party}/{step}", {"extension": 1} if step == "extend" else {})

    async def wait_list(self) -> None:
        """Sell a day out, join its wait list, and give a place back."""
        day = str(DAY + datetime.timedelta(days=2))
        path = f"/v1/offices/surabaya/days/{day}"
        await self.api("PUT", f"{path}/quotas/online/capacity", {"capacity": 1})
        first = (await self.reserve(NIKS[6], path=path))["reservation"]["reference"]
        waiting = await self.reserve(NIKS[7], path=path, join_wait_list=True)
        assert waiting["reservation"]["state"] == "WAITING"
        await self.reserve(NIKS[8], path=path)
        await self.api("POST", f"/v1/reservations/{first}/release", {"owner": NIKS[6]}, Role.SERVICE)
        await self.api("GET", f"/v1/reservations/{waiting['reservation']['reference']}", role=Role.SERVICE)

    async def misplaced(self, *spelled: str) -> None:
        """Send an identity or a secret in every part of a request where it does not belong."""
        for value in spelled:
            for path in (
                f"/v1/reservations/surabaya~{value}", f"/v1/offices/{value}", f"/v1/offices/surabaya/days/{value}",
                f"/v1/rooms/{value}", f"/v1/rooms/{value}/tickets/{value}", f"/v1/draws/{value}", f"/{value}",
                f"/v1/offices/surabaya/availability?first_day={value}", f"/v1/offices?nik={value}",
                f"/?office={value}", f"/room?{value}", f"/operator/day?day={value}", f"/static/{value}/{value}",
            ):  # fmt: skip
                await self.client.http.get(path)
                await self.api("GET", path)
            for path in (
                f"/v1/offices/{value}/days/{value}/close", f"{DAY_PATH}/quotas/{value}/capacity",
                f"/v1/rooms/{value}/pace", f"/v1/rooms/{value}/close", f"/v1/draws/{value}/close",
                f"/v1/offices/surabaya/consumer-groups/{value}", f"/v1/offices/{value}/events/trim",
            ):  # fmt: skip
                for method in ("PUT", "POST"):
                    await self.api(method, path, {"through": 1, "capacity": 1, "per_minute_max": 60})
            for body in (value, [value], {value: value}, {"applicants": value}, {"applicants": [[value]]},
                         {"applicants": [NIKS[9]], "service": value, "session": value},
                         {"applicants": [NIKS[9], NIKS[9]], "service": "new", "session": "morning"}):  # fmt: skip
                headers = {"idempotency_key": "misplaced"}
                await self.api("POST", f"{DAY_PATH}/reservations", body, Role.SERVICE, **headers)
            body = {"applicants": [NIKS[9]], "service": "new", "session": "morning"}
            for name in ("authorization", "content_type", "idempotency_key", "request_timeout", "traceparent"):
                headers = {"idempotency_key": "misplaced-too", name: value}
                await self.client.call("POST", f"{DAY_PATH}/reservations", body, Role.SERVICE, **headers)
        await self.api("POST", "/v1/offices/surabaya/events/trim", {"through": int(NIKS[9])})
        for secret in TOKENS.values():
            await self.client.http.get("/v1/audit", headers={"authorization": f"Basic {secret}"})
            await self.client.http.get("/v1/audit", headers={"authorization": f"Bearer {secret[:-1]}"})

    async def draw(self) -> None:
        """Hold a draw from its creation to its awards."""
        now_ms = self.client.clock.now_ms()
        day = str(DAY + datetime.timedelta(days=3))
        terms = {
            "opens_at_ms": now_ms, "closes_at_ms": now_ms + HOUR_MS, "forget_at_ms": now_ms + 90 * 24 * HOUR_MS,
            "first_day": day, "last_day": day, "commitment": commitment_of("dec", DRAW_SEED),
            "entropy_source": "the closing price of the index",
        }  # fmt: skip
        await self.api("PUT", "/v1/draws/dec", terms)
        choice = {"office": "surabaya", "day": day, "service": "new", "session": "morning", "channel": "online"}
        for nik in (*spellings(NIKS[10])[:3], NIKS[11], NIKS[12], *misspellings(NIKS[10])):
            body = {"applicants": [nik], "choices": [choice]}
            receipt = await self.api("POST", "/v1/draws/dec/applications", body, Role.SERVICE)
            for name in ("find", "withdraw", "check"):
                numbers = {key: receipt.get(key, 1) for key in ("number", "version", "epoch")}
                sent = {"applicant": nik, **(numbers if name == "check" else {})}
                sent |= {"expected_version": 99} if name == "withdraw" else {}
                await self.api("POST", f"/v1/draws/dec/applications/{name}", sent, Role.SERVICE)
        self.client.clock.advance_ms(HOUR_MS)
        await self.api("POST", "/v1/draws/dec/close")
        for channel in list(self.sightings.sizes):
            assert not any(DRAW_SEED in text for text in self.sightings.texts(channel)), "before the draw is run"
        run = {"seed": DRAW_SEED, "entropy": "7,123.45"}
        ran = await self.client.operate("POST", "/v1/draws/dec/run", run)
        assert ran.status_code == 200, ran.text
        await self.api("POST", "/v1/draws/dec/award", {"hold_ttl_ms": HOUR_MS})
        for file in ("applications.jsonl", "capacities.json", "result.jsonl", "proof.json"):
            await self.api("GET", f"/v1/draws/dec/files/{file}")

    async def waiting_room(self) -> None:
        """Take a ticket and a pass through the API, and show them at the wrong places too."""
        room = f"/v1/rooms/{self.client.service.current_room('surabaya')}"
        tickets = {}
        for nik in (NIKS[13], NIKS[14]):
            joined = [
                await self.api("POST", f"{room}/tickets", {"identity": one}, Role.SERVICE) for one in spellings(nik)
            ]
            tickets[nik] = joined[0]["ticket"]
        self.sightings.plant("ticket", *tickets.values(), allowed=OWNERS)
        browser = CitizenBrowser(self.client)
        browser.http.event_hooks["response"] = [self.see]
        async with browser.http:
            await browser.get("/")
            for nik in (misspellings(NIKS[21])[2], spellings(NIKS[21])[4]):
                await browser.http.post("/room/join", data={**browser.fields("/room/join"), "nik": nik})
            for path in ("/room", "/room/state", "/room/stream", "/"):
                await browser.get(path)
        self.client.clock.advance_ms(HOUR_MS)
        for _ in range(3):
            self.client.clock.advance_ms(1_000)
            await self.api("GET", room)
        entered = await self.api(
            "POST", f"{room}/enter", {"ticket": tickets[NIKS[13]], "identity": NIKS[13]}, Role.SERVICE
        )
        self.sightings.plant("pass", entered["admission_pass"], allowed=OWNERS)
        for nik in (NIKS[14], NIKS[15], *misspellings(NIKS[13])):
            await self.api("POST", f"{room}/enter", {"ticket": tickets[NIKS[13]], "identity": nik}, Role.SERVICE)
            await self.reserve(nik, admission_pass=entered["admission_pass"])
            await self.reserve(nik, admission_pass=entered["admission_pass"][:-2])
        for ticket in (tickets[NIKS[13]], tickets[NIKS[13]][:-2]):
            await self.api("GET", f"{room}/tickets/{ticket}")
            await self.api("GET", f"/v1/rooms/nobodys/tickets/{ticket}")
        assert (await self.reserve(NIKS[13], admission_pass=entered["admission_pass"]))["status"] == "HELD"
        for stream in (f"{room}/stream", f"{room}/tickets/{tickets[NIKS[14]]}/stream"):
            self.sightings.see("body", (await self.client.http.get(stream)).text)
        await self.api("GET", f"{room}/summary")
        await self.api("GET", f"{room}/transcript")
        await self.api("POST", f"{room}/close")
        supervisor = self.client.service.room_supervisor
        assert supervisor is not None
        await supervisor.tick()
        await self.api("GET", f"{room}/transcript")

    async def citizen(self) -> None:
        """Book, mistype, search, change and cancel on the pages."""
        browser = CitizenBrowser(self.client)
        browser.http.event_hooks["response"] = [self.see]
        async with browser.http:
            for nik in (*misspellings(NIKS[16])[:3], "", *spellings(NIKS[16])[3:6]):
                await browser.reserve(nik)
            await browser.submit("/reservation/confirm", DECLARED)
            (code,) = set(re.findall(r"\b[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}\b", browser.page))
            self.sightings.plant("registration code", code, code.replace("-", ""), allowed=(*OWNERS, *CODE_CHANNELS))
            await browser.get("/reservation/calendar.ics")
            stranger = CitizenBrowser(self.client)
            stranger.http.event_hooks["response"] = [self.see]
            async with stranger.http:
                await stranger.get("/find")
                for nik in (NIKS[16], NIKS[17], misspellings(NIKS[16])[0]):
                    await stranger.http.post("/find", data={"nik": nik, "code": nik})
                    await stranger.http.post("/reservation/cancel", data={"nik": nik, "code": nik})
                    await stranger.http.post("/room/join", data={"nik": nik})
                    await stranger.http.post("/draw/apply", data={"nik": nik})
            await browser.get("/reservation")
            await browser.submit("/reservation/cancel")
            await browser.http.post("/finish", data={})

    async def operator(self) -> None:
        """Sign in with wrong and right tokens, and use the pages with identities in every field."""
        browser = OperatorBrowser(self.client)
        browser.http.event_hooks["response"] = [self.see]
        async with browser.http:
            for token in ("wrong " + TOKENS[Role.OPERATOR], TOKENS[Role.SERVICE], NIKS[18]):
                data = {"csrf_token": csrf_token_of((await browser.http.get("/operator")).text), "token": token}
                await browser.http.post("/operator/login", data=data)
            await browser.sign_in(Role.OPERATOR)
            session = browser.http.cookies["operator"]
            self.sightings.plant("session", session, allowed=("cookie",))
            self.sightings.plant("form token", browser.csrf_token, allowed=("page",))
            for page in ("dashboard", "dashboard.csv", "day", "queue", "queue.csv", "queue/rows", "room", "opening",
                         "opening.csv", "offices", "audit", "queue/print", "call", "screen", "walk-in",
                         "catalog"):  # fmt: skip
                await browser.get(f"/operator/{page}?day={DAY}")
            for nik in (NIKS[0], spellings(NIKS[18])[3], spellings(NIKS[18])[4], misspellings(NIKS[18])[3]):
                for form in (
                    "queue/find",
                    "queue/check-in",
                    "queue/no-show",
                    "queue/undo",
                    "queue/cancel",
                    "queue/replace",
                    "reservation/move",
                    "reservation/extend",
                    "reservation/remove",
                    "walk-in",
                    "call",
                ):
                    await browser.submit(form, number=nik, nik=nik, reference=nik, applicant=nik, replacement=nik)
                for form in (
                    "day/capacity",
                    "day/close",
                    "day/open",
                    "room/pace",
                    "room/open",
                    "room/close",
                    "catalog",
                ):
                    fields = {
                        "capacity-online": nik,
                        f"capacity-{nik}": "1",
                        "room": nik,
                        "per_minute_max": nik,
                        "entropy": nik,
                    }
                    await browser.submit(form, **fields)
                await browser.submit("day/close", office=nik, day=nik)
            await browser.http.post("/operator/logout", data={"csrf_token": browser.csrf_token})

    async def reports(self) -> None:
        """Read events, audits, lists and metrics."""
        await self.api("POST", "/v1/offices/surabaya/consumer-groups/mail", {})
        events = "/v1/offices/surabaya/events"
        for path in (
            events, f"{events}?consumer_group=mail&consumer=a", "/v1/audit", f"{DAY_PATH}/reservations", "/metrics",
            "/openapi.json", "/health/ready",
        ):  # fmt: skip
            await self.api("GET", path)
        self.sightings.see("metrics", (await self.client.http.get("/metrics")).text)

    async def outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the store fail with each kind of error."""
        store = type(self.client.service.engine._store)
        for error in (BackendUnavailable("the connection is refused"), ZeroDivisionError("an error of the code")):

            async def fail(*_: object, error: Exception = error, **__: object) -> None:
                raise error

            with monkeypatch.context() as patch:
                for name in ("apply", "execute"):
                    patch.setattr(store, name, fail)
                await self.reserve(NIKS[20])
                browser = CitizenBrowser(self.client)
                browser.http.event_hooks["response"] = [self.see]
                async with browser.http:
                    await browser.http.post("/find", data={"nik": NIKS[20], "code": "7K3M-9QXZ"})
                    await browser.http.post("/reserve", data={"nik": NIKS[20], "slot": f"{DAY}|morning"})


@contextlib.asynccontextmanager
async def planted(backend: str, folder: Path, sightings: Sightings) -> AsyncIterator[Run]:
    """Yield a run on a store, with every secret of its configuration planted and its spans kept."""
    key = IdentityKey(IDENTITY_KEY)
    sightings.plant("identity key", IDENTITY_KEY)
    sightings.plant("ticket key", TICKET_SECRET)
    sightings.plant("store password", STORE_PASSWORD)
    sightings.plant("token", *TOKENS.values())
    sightings.plant("hash of a token", *(hashlib.sha256(one.encode()).digest() for one in TOKENS.values()))
    pseudonyms = Pseudonyms(IDENTITY_KEY)
    sightings.plant_text("hash of an identity", *map(pseudonyms.of, NIKS), allowed=("store", "event"))
    sightings.plant("derived key", *(pseudonyms.secret_for(purpose) for purpose in ("tickets", "draws")))
    settings = configuration(
        backend=backend,
        catalog=wait_list_catalog(),
        identity_key=key,
        waiting_rooms=ROOMS,
        limits=RequestLimits(stream_lifetime_ms=1),
        ticket_keys=TicketSecrets("2026", (("2026", TICKET_SECRET),)),
        publication_folder=folder / "published",
    )
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    terms = day_terms(settings.catalog, "surabaya", DAY)
    assert terms is not None
    clock = ManualClock(terms.opens_at_ms - HOUR_MS)
    app = create_app(settings, clock=clock, tracing=Tracing(settings.catalog.offices, provider))
    async with app.lifespan():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            client = Client(http, app, clock)
            days = {"first_day": str(DAY), "last_day": str(DAY + datetime.timedelta(days=4))}
            assert (await client.operate("POST", "/v1/publish", days)).status_code == 200
            yield Run(client, sightings)
    for span in exporter.get_finished_spans():
        sightings.see("trace", span.to_json())
    sightings.see_folder("file", folder / "published")


async def go_through(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use everything that the service has."""
    await use_store(run)
    await run.operator()
    plain, _, _, _, dashed, *_ = spellings(NIKS[9])
    await run.misplaced(plain, dashed)
    async with (
        listening(run.client.app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await Run(Client(http, run.client.app, run.client.clock), run.sightings).misplaced(dashed)
    await run.outage(monkeypatch)
    assert {200, 201, 202, 303, 400, 401, 403, 404, 409, 422, 500, 503} <= run.statuses


async def use_store(run: Run) -> None:
    """Use everything that writes to the store, and read all that it reports."""
    await run.waiting_room()
    await run.reservations()
    await run.wait_list()
    await run.draw()
    await run.citizen()
    await run.reports()
    for event in await run.client.service.engine.events("surabaya", limit=1000):
        run.sightings.see("event", repr(event))


def see_log(caplog: pytest.LogCaptureFixture, sightings: Sightings) -> None:
    """Add the log records, except those of this test's own HTTP client."""
    for record in caplog.records:
        if not record.name.startswith(("httpx", "httpcore")):
            sightings.see("log", f"{record.name} {record.getMessage()} {record.exc_text or ''} {record.args!r}")


def check(sightings: Sightings) -> None:
    """Check that the run reached every channel, and that no channel has what it must not have."""
    assert set(sightings.sizes) >= {
        "body", "cookie", "event", "file", "header", "log", "metrics", "page", "store", "trace",
    }  # fmt: skip
    assert sightings.found() == []


@pytest.mark.store
async def test_run_on_valkey_keeps_secrets_in_their_places(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    sightings = Sightings(NIKS)
    with Server(valkey_server_binary(), settings=[("appendonly", "yes")], tcp=True) as server:
        server.ask("CONFIG", "SET", "requirepass", STORE_PASSWORD)
        backend = f"redis://:{STORE_PASSWORD}@127.0.0.1:{server.port}/0"
        async with planted(backend, tmp_path, sightings) as run:
            await go_through(run, monkeypatch)
        reader = server.client(password=STORE_PASSWORD, decode_responses=False)
        for key in reader.scan_iter(count=1000):
            sightings.see("store", key)
            sightings.see("store", repr(contents(reader, key)))
        sightings.see_folder("store", server.directory / "appendonlydir")
        sightings.see("log", (server.directory / "log").read_bytes())
    see_log(caplog, sightings)
    check(sightings)


def contents(reader: Any, key: bytes) -> Any:
    """Return everything in a key."""
    kind = reader.type(key)
    read = {
        b"string": lambda: reader.get(key),
        b"hash": lambda: reader.hgetall(key),
        b"zset": lambda: reader.zrange(key, 0, -1, withscores=True),
        b"list": lambda: reader.lrange(key, 0, -1),
        b"set": lambda: reader.smembers(key),
        b"stream": lambda: reader.xrange(key),
    }
    return read[kind]()


async def test_run_on_sqlite_keeps_secrets_in_their_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sightings = Sightings(NIKS)
    (tmp_path / "data").mkdir()
    async with planted(f"sqlite:///{tmp_path}/data/store.db?durability=memory", tmp_path, sightings) as run:
        await use_store(run)
        sightings.see_folder("store", tmp_path / "data")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "store.db")) as connection:
        for line in connection.iterdump():
            sightings.see("store", line)
    see_log(caplog, sightings)
    check(sightings)


async def test_run_on_postgresql_keeps_secrets_in_their_places(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    postgresql: PostgresqlServer,
    schema: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    sightings = Sightings(NIKS)
    backend = postgresql.url(schema=schema, durability="memory", options="-csynchronous_commit%3Doff")
    async with planted(backend, tmp_path, sightings) as run:
        await use_store(run)
    with postgresql.connect() as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]).fetchall()
        assert tables
        for (table,) in tables:
            for (row,) in connection.execute(f'SELECT t::text FROM "{schema}"."{table}" t'):  # noqa: S608
                sightings.see("store", row)
            for row in connection.execute(f'SELECT * FROM "{schema}"."{table}"'):  # noqa: S608
                for value in row:
                    sightings.see("store", value if isinstance(value, bytes) else repr(value))
    see_log(caplog, sightings)
    check(sightings)


@pytest.mark.parametrize("hidden", [
    *spellings(NIKS[0]), *misspellings(NIKS[0]), "%37" + NIKS[0][1:], "&#55;" + NIKS[0][1:], "\\u0037" + NIKS[0][1:],
])  # fmt: skip
def test_search_finds_an_identity_in_each_form(hidden: str) -> None:
    sightings = Sightings(NIKS)
    sightings.see("log", f"before {hidden} after")
    assert {one.partition(":")[0] for one in sightings.found()} == {"log"}


def test_search_finds_a_secret_in_each_form_outside_of_its_places() -> None:
    forms = (IDENTITY_KEY, IDENTITY_KEY.hex().encode(), *(base64.b64encode(b"x" * n + IDENTITY_KEY) for n in range(3)))
    for form in forms:
        sightings = Sightings(NIKS)
        sightings.plant("identity key", IDENTITY_KEY, allowed=("cookie",))
        sightings.see_headers([("set-cookie", form.decode("latin-1"))])
        assert sightings.found() == []
        sightings.see_headers([("location", form.decode("latin-1"))])
        assert len(sightings.found()) >= 1, form
