"""Endpoints of draws, their refusals, and their published files."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quota_engine import DrawChoice
from quota_engine.cli import main
from quota_engine.client.calls import draws as client_calls
from quota_engine.draws.commands import RevealSeed
from quota_engine.draws.lottery import commitment_of
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.service.background.draw_publication import DrawFileCache
from quota_engine.service.http.auth import Role
from quota_engine.service.http.problems import DRAW_STATUS_PROBLEMS, PROBLEM_TYPES, Problem
from tests.service.api.test_reservations import problem
from tests.service.test_runner import CLI, served
from tests.support.client_parity import in_process
from tests.support.draw_runs import (
    CLOSES_AT_MS,
    DAY_MS,
    ENTROPY,
    MONDAY,
    NOW_MS,
    OPENS_AT_MS,
    SEED,
    TUESDAY,
    catalog,
    settings,
)
from tests.support.in_process_service import Client, running
from tests.support.paths import DOCS

DRAW = "/v1/draws/dec"
FILES = ("applications.jsonl", "capacities.json", "result.jsonl", "proof.json")
TERMS: dict[str, Any] = {
    "opens_at_ms": OPENS_AT_MS,
    "closes_at_ms": CLOSES_AT_MS,
    "forget_at_ms": CLOSES_AT_MS + 60 * DAY_MS,
    "first_day": str(MONDAY),
    "last_day": str(TUESDAY),
    "commitment": commitment_of("dec", SEED),
    "entropy_source": "the closing price of the index on 2026-11-21",
}


def choice(office: str = "sby", session: str = "am", day: datetime.date = MONDAY) -> dict[str, str]:
    return {"office": office, "day": str(day), "session": session, "channel": "draw"}


@pytest.fixture
async def drawing() -> AsyncIterator[Client]:
    """Yield a service with a draw that accepts applications."""
    async with running(catalog=catalog(), office="sby", day=MONDAY) as client:
        client.clock.set_ms(NOW_MS)
        assert (await client.operate("PUT", DRAW, TERMS)).status_code == 201
        client.clock.set_ms(OPENS_AT_MS)
        yield client


async def apply(client: Client, *party: str, version: int = 0, choices: Any = None) -> httpx.Response:
    body = {
        "applicants": list(party),
        "choices": choices or [choice(), choice(session="pm")],
        "expected_version": version,
    }
    return await client.call("POST", f"{DRAW}/applications", body, Role.SERVICE)


async def drawn(client: Client, people: int = 6) -> None:
    """Apply as many times as given, and run the draw."""
    for one in range(people):
        assert (await apply(client, f"nik-{one}")).status_code == 201
    client.clock.set_ms(CLOSES_AT_MS)
    assert (await client.operate("POST", f"{DRAW}/close")).status_code == 200
    assert (await client.operate("POST", f"{DRAW}/run", {"seed": SEED, "entropy": ENTROPY})).status_code == 200


async def test_created_draw_is_public_and_fixed(drawing: Client) -> None:
    """Creating it again with equal values succeeds; other values conflict."""
    again = await drawing.operate("PUT", DRAW, TERMS)
    assert (again.status_code, again.json()["replayed"]) == (200, True)
    problem(await drawing.operate("PUT", DRAW, {**TERMS, "party_max": 2}), 409, "draw-conflict")
    problem(await drawing.operate("PUT", "/v1/draws/old", {**TERMS, "forget_at_ms": 1}), 422, "unprocessable")
    old = {**TERMS, "opens_at_ms": 1, "closes_at_ms": 2, "forget_at_ms": 3}
    problem(await drawing.operate("PUT", "/v1/draws/old", old), 410, "draw-over")
    shown = (await drawing.call("GET", DRAW)).json()
    assert (shown["phase"], shown["applications"], shown["frozen"], shown["files"]) == ("open", 0, None, {})
    assert {name: shown[name] for name in TERMS} == TERMS
    problem(await drawing.call("GET", "/v1/draws/nix"), 404, "unknown-draw")
    problem(await drawing.call("GET", "/v1/draws/a.b"), 422, "unprocessable")


async def test_lost_application_is_no_loser(drawing: Client) -> None:
    """After a failover another party has the number. A receipt finds the loss before and after the draw."""
    tail = drawing.lost_tail("~draw.dec")
    for one in range(2):
        assert (await apply(drawing, f"nik-{one}")).status_code == 201
    tail.save()
    lost = (await apply(drawing, "nik-lost")).json()
    tail.fail_over()
    later = (await apply(drawing, "nik-later")).json()
    assert (lost["number"], lost["epoch"], later["number"], later["epoch"]) == (3, 1, 3, 2)
    receipt = {"applicant": "nik-lost", **{name: lost[name] for name in ("number", "version", "epoch")}}

    async def check(body: dict[str, Any]) -> httpx.Response:
        return await drawing.call("POST", f"{DRAW}/applications/check", body, Role.SERVICE)

    problem(await check(receipt), 409, "draw-application-lost")
    theirs = {"applicant": "nik-later", **{name: later[name] for name in ("number", "version", "epoch")}}
    assert (await check(theirs)).json()["status"] == "APPLIED"
    drawing.clock.set_ms(CLOSES_AT_MS)
    refused = problem(await drawing.operate("POST", f"{DRAW}/close"), 409, "draw-epoch-changed")
    assert refused["epoch"] == 2
    assert (await drawing.operate("POST", f"{DRAW}/close", {"epoch": 2})).status_code == 200
    run = {"seed": SEED, "entropy": ENTROPY}
    problem(await drawing.operate("POST", f"{DRAW}/run", run), 409, "draw-epoch-changed")
    assert (await drawing.operate("POST", f"{DRAW}/run", {**run, "epoch": 2})).status_code == 200
    problem(await drawing.call("GET", f"{DRAW}/applications/3?token={lost['tokens'][0]}"), 409, "draw-application-lost")
    problem(await drawing.call("GET", f"{DRAW}/applications/9?token={lost['tokens'][0]}"), 409, "draw-application-lost")
    assert (await drawing.call("GET", f"{DRAW}/applications/3?token={later['tokens'][0]}")).json()["number"] == 3


async def test_second_run_does_not_replace_the_published_one(tmp_path: Path) -> None:
    """The service refuses another entropy. An operator who runs the draw past it makes files that state it."""
    async with running(catalog=catalog(), office="sby", day=MONDAY, publication_folder=tmp_path) as client:
        client.clock.set_ms(NOW_MS)
        assert (await client.operate("PUT", DRAW, TERMS)).status_code == 201
        client.clock.set_ms(OPENS_AT_MS)
        for one in range(3):
            assert (await apply(client, f"nik-{one}")).status_code == 201
        client.clock.set_ms(CLOSES_AT_MS)
        assert (await client.operate("POST", f"{DRAW}/close")).status_code == 200
        tail = client.lost_tail("~draw.dec")
        tail.save()
        run = {"seed": SEED, "entropy": ENTROPY}
        assert (await client.operate("POST", f"{DRAW}/run", run)).status_code == 200
        first = (await client.call("GET", f"{DRAW}/files/result.jsonl")).content
        tail.fail_over()
        other = {**run, "entropy": "7,123.46", "epoch": 2}
        problem(await client.operate("POST", f"{DRAW}/run", other), 409, "draw-conflict")
        reveal = RevealSeed("dec", SEED, "7,123.46", 2)
        assert (await client.service.engine._store.apply("~draw.dec", reveal)).ok
        proof = (await client.call("GET", f"{DRAW}/files/proof.json")).json()
        (finding,) = proof["findings"]
        assert "the entropy was" in finding
        second = (await client.call("GET", f"{DRAW}/files/result.jsonl")).content
        assert json.loads(second.splitlines()[0])["contradictions"] == [finding]
        metrics = (await client.call("GET", "/metrics")).text
        assert 'quota_engine_contradictions_total{kind="draw"} 1.0' in metrics
    assert (tmp_path / "draw.dec" / "result.jsonl").read_bytes() == first
    assert (tmp_path / "draw.dec" / "epoch-2" / "result.jsonl").read_bytes() == second
    files = [
        f"--{name}={tmp_path}/draw.dec/{name}{suffix}"
        for name, suffix in (("applications", ".jsonl"), ("capacities", ".json"))
    ]
    assert main.main(["draw", "verify", str(tmp_path / "draw.dec" / "result.jsonl"), *files]) == 0
    assert main.main(["draw", "verify", str(tmp_path / "draw.dec" / "epoch-2" / "result.jsonl"), *files]) == 1


async def test_application_can_be_found_changed_and_withdrawn(drawing: Client) -> None:
    """Number and tokens stay the same, and no response has an identity."""
    first = await apply(drawing, "nik-1", "nik-2")
    assert first.status_code == 201
    receipt = first.json()
    assert (receipt["status"], receipt["number"], receipt["version"], len(receipt["tokens"])) == ("APPLIED", 1, 1, 2)
    same = await apply(drawing, "nik-1", "nik-2")
    assert (same.status_code, same.json()) == (200, {**receipt, "replayed": True})
    found = (await drawing.call("POST", f"{DRAW}/applications/find", {"applicant": "nik-2"}, Role.SERVICE)).json()
    assert (found["number"], found["version"], found["tokens"]) == (1, 1, receipt["tokens"])
    empty = {"service": "", "service_unit": "", "group": ""}
    assert [one | empty for one in (choice(), choice(session="pm"))] == [one | empty for one in found["choices"]]
    stale = problem(await apply(drawing, "nik-1", choices=[choice("mlg")]), 412, "draw-stale")
    assert (stale["outcome"], stale["number"], stale["version"]) == ("STALE", 1, 1)
    changed = await apply(drawing, "nik-1", "nik-2", version=1, choices=[choice("mlg")])
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    problem(await apply(drawing, "nik-2"), 409, "draw-already-applied")
    withdraw = f"{DRAW}/applications/withdraw"
    gone = await drawing.call("POST", withdraw, {"applicant": "nik-2", "expected_version": 2}, Role.SERVICE)
    assert (gone.json()["status"], gone.json()["version"]) == ("WITHDRAWN", 3)
    for applicant in ("nik-2", "nobody"):
        body = {"applicant": applicant, "expected_version": 1}
        problem(await drawing.call("POST", withdraw, body, Role.SERVICE), 404, "draw-not-found")
    problem(
        await drawing.call("POST", f"{DRAW}/applications/find", {"applicant": "x"}, Role.SERVICE), 404, "draw-not-found"
    )
    assert "nik" not in first.text + str(found) + str(stale) + gone.text


async def test_applications_are_refused_with_specific_problems(drawing: Client) -> None:
    """A refusal has a retry time where a retry can succeed."""
    drawing.clock.set_ms(OPENS_AT_MS)
    crowd = [f"nik-{one}" for one in range(6)]
    problem(await apply(drawing, *crowd), 422, "draw-party-too-large")
    sessions = [choice(office, session, day) for office in ("sby", "mlg") for session in ("am", "pm") for day in days()]
    assert len(sessions) > 10
    problem(await apply(drawing, "nik-1", choices=sessions[:11]), 422, "draw-too-many-choices")
    other_day = [choice(day=TUESDAY + datetime.timedelta(days=1))]
    problem(await apply(drawing, "nik-1", choices=other_day), 422, "not-in-draw")
    problem(await apply(drawing, "nik-1", choices=[choice("nix")]), 404, "unknown-name")
    problem(await apply(drawing, "nik-1", choices=[choice(), choice()]), 422, "unprocessable")
    early = problem(await drawing.operate("POST", f"{DRAW}/close"), 409, "draw-still-open")
    assert early["retry_at_ms"] == CLOSES_AT_MS
    problem(await drawing.operate("POST", f"{DRAW}/run", {"seed": SEED}), 409, "draw-not-frozen")
    problem(await drawing.operate("POST", f"{DRAW}/award", {}), 409, "draw-not-run")
    for name in FILES:
        problem(await drawing.call("GET", f"{DRAW}/files/{name}"), 409, "draw-not-frozen")
    full = {**TERMS, "applications_max": 1, "commitment": commitment_of("one", SEED)}
    assert (await drawing.operate("PUT", "/v1/draws/one", full)).status_code == 201
    body = {"applicants": ["nik-1"], "choices": [choice()]}
    assert (await drawing.call("POST", "/v1/draws/one/applications", body, Role.SERVICE)).status_code == 201
    body["applicants"] = ["nik-2"]
    problem(await drawing.call("POST", "/v1/draws/one/applications", body, Role.SERVICE), 409, "draw-full")
    drawing.clock.set_ms(CLOSES_AT_MS)
    problem(await apply(drawing, "nik-1"), 409, "draw-applications-closed")
    later = {**TERMS, "opens_at_ms": CLOSES_AT_MS + 1, "closes_at_ms": CLOSES_AT_MS + 2}
    assert (await drawing.operate("PUT", "/v1/draws/later", later)).status_code == 201
    soon = await drawing.call("POST", "/v1/draws/later/applications", body, Role.SERVICE)
    assert problem(soon, 409, "draw-not-open")["retry_at_ms"] == CLOSES_AT_MS + 1
    assert soon.headers["retry-after"] == "1"


def days() -> list[datetime.date]:
    return [MONDAY + datetime.timedelta(days=one) for one in range(3)]


async def test_close_run_and_award(drawing: Client) -> None:
    """The lists are public after closing, the result after the run, and the winners' holds can be confirmed."""
    for index in range(6):
        await apply(drawing, f"nik-{index}")
    drawing.clock.set_ms(CLOSES_AT_MS)
    assert (await drawing.operate("POST", f"{DRAW}/close")).json()["status"] == "DONE"
    assert (await drawing.operate("POST", f"{DRAW}/close")).json()["replayed"]
    shown = (await drawing.call("GET", DRAW)).json()
    assert (shown["phase"], sorted(shown["files"])) == ("frozen", sorted(set(FILES) - {"result.jsonl"}))
    applications = await drawing.call("GET", shown["files"]["applications.jsonl"])
    assert hashlib.sha256(applications.content).hexdigest() == shown["frozen"]["applications_digest"]
    assert applications.headers["content-type"] == "application/jsonl"
    problem(await drawing.call("GET", f"{DRAW}/files/result.jsonl"), 409, "draw-not-run")
    problem(await drawing.call("GET", f"{DRAW}/applications/1"), 409, "draw-not-run")
    problem(await drawing.call("GET", f"{DRAW}/files/seed"), 422, "unprocessable")
    wrong = {"seed": SEED[::-1], "entropy": ENTROPY}
    problem(await drawing.operate("POST", f"{DRAW}/run", wrong), 409, "draw-conflict")
    problem(await drawing.operate("POST", f"{DRAW}/run", {"seed": SEED}), 409, "draw-conflict")
    assert SEED not in (await drawing.call("GET", DRAW)).text
    assert (await drawing.operate("POST", f"{DRAW}/run", {"seed": SEED, "entropy": ENTROPY})).status_code == 200
    proof = (await drawing.call("GET", f"{DRAW}/files/proof.json")).json()
    assert (proof["seed"], proof["entropy"], proof["findings"]) == (SEED, ENTROPY, [])
    assert (proof["totals"]["winners"], proof["totals"]["by_preference"]) == (3, [3, 2, 1])
    won = [await drawing.call("GET", f"{DRAW}/applications/{number}") for number in range(1, 7)]
    assert sorted(one.json()["rank"] for one in won) == [1, 2, 3, 4, 5, 6]
    for seen in won:
        result = seen.json()
        lot = hashlib.sha256(f"{proof['order_key']} {result['number']}".encode()).hexdigest()
        assert (result["lot"], result["of"], len(result["choices"])) == (lot, 6, 2)
    problem(await drawing.call("GET", f"{DRAW}/applications/7"), 404, "draw-not-found")
    for bad in ("x", "-1", "123456789", "1e3"):
        problem(await drawing.call("GET", f"{DRAW}/applications/{bad}"), 422, "unprocessable")
    report = (await drawing.operate("POST", f"{DRAW}/award", {"hold_ttl_ms": DAY_MS})).json()
    assert (report["ok"], report["winners"], len(report["references"])) == (True, 3, 3)
    winners = {result["number"] for result in (one.json() for one in won) if result["preference"]}
    assert {one["number"] for one in report["references"]} == winners
    again = await drawing.operate("POST", f"{DRAW}/award", {"hold_ttl_ms": DAY_MS})
    assert again.json() == report
    assert report["next_skip"] is None
    parts = [(await drawing.operate("POST", f"{DRAW}/award", {"skip": skip, "limit": 2})).json() for skip in (0, 2, 9)]
    assert [part["next_skip"] for part in parts] == [2, None, None]
    assert [len(part["references"]) for part in parts] == [2, 1, 0]
    assert sorted(str(one) for part in parts for one in part["references"]) == sorted(map(str, report["references"]))
    metrics = (await drawing.http.get("/metrics")).text
    assert 'quota_engine_draw_outcomes_total{status="APPLIED"} 6.0' in metrics
    assert 'quota_engine_draw_outcomes_total{status="CONFLICT"} 2.0' in metrics
    for one in report["references"]:
        confirmed = await drawing.step(one["reference"], "confirm", owner=f"nik-{one['number'] - 1}")
        assert confirmed.json()["status"] == "CONFIRMED"


async def test_client_awards_all_winners_page_by_page(drawing: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report equals the engine's for every page size."""
    await drawn(drawing)
    monkeypatch.setattr(client_calls, "AWARDS_MAX", 2)
    async with in_process(drawing) as client:
        whole = await client.draw("dec").award()
        parts = [await client.draw("dec").award(skip=skip, limit=1) for skip in range(4)]
    assert (whole.winners, whole.ok, len(whole.references)) == (3, True, 3)
    assert [len(part.references) for part in parts] == [1, 1, 1, 0]
    assert {number: one for part in parts for number, one in part.references.items()} == whole.references
    assert whole == await drawing.service.engine.draw("dec").award()


async def test_files_are_computed_once_for_each_phase(drawing: Client) -> None:
    """Concurrent and later requests share the files."""
    await drawn(drawing)
    published = drawing.service.draw_files
    answers = await asyncio.gather(*[drawing.call("GET", f"{DRAW}/files/{name}") for name in FILES * 5])
    assert {one.status_code for one in answers} == {200}
    await drawing.call("GET", f"{DRAW}/applications/1")
    assert published.builds == 1
    tag = answers[0].headers["etag"]
    same = await drawing.call("GET", f"{DRAW}/files/{FILES[0]}", if_none_match=tag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    head = await drawing.call("HEAD", f"{DRAW}/files/{FILES[0]}")
    assert (head.content, int(head.headers["content-length"])) == (b"", len(answers[0].content))
    assert published.downloads == 0


async def test_draws_on_disk_and_downloads_are_bounded(drawing: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the cache deletes all files."""
    drawing.service.draw_files = published = DrawFileCache(draws_max=1)
    other = {**TERMS, "commitment": commitment_of("jan", SEED)}
    assert (await drawing.operate("PUT", "/v1/draws/jan", other)).status_code == 201
    await drawn(drawing)
    assert (await drawing.operate("POST", "/v1/draws/jan/close")).status_code == 200
    for _ in range(2):
        for draw in ("dec", "jan"):
            assert (await drawing.call("GET", f"/v1/draws/{draw}/files/applications.jsonl")).status_code == 200
    assert published.builds == 4
    folder = published._folder
    assert folder is not None
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(published, "downloads", 64)
    busy = await drawing.call("GET", f"{DRAW}/files/applications.jsonl")
    problem(busy, 503, "overloaded")
    assert busy.headers["retry-after"] == "5"
    await published.close()
    assert not folder.exists()


@pytest.mark.slow
async def test_binary_search_finds_every_line(drawing: Client) -> None:
    """The list is longer than one read."""
    party = [f"{one}-" + "x" * 20 for one in range(5)]
    numbers = list(range(1, 1_201))
    for number in numbers:
        outcome = await drawing.service.engine.draw("dec").apply([f"{number} {one}" for one in party], [wish()])
        assert outcome.number == number
    drawing.clock.set_ms(CLOSES_AT_MS)
    await drawing.operate("POST", f"{DRAW}/close")
    await drawing.operate("POST", f"{DRAW}/run", {"seed": SEED, "entropy": ENTROPY})
    text = (await drawing.call("GET", f"{DRAW}/files/applications.jsonl")).content
    assert len(text) > 3 * 65_536
    tokens = {line["number"]: line["applicants"] for line in map(json.loads, text.splitlines())}
    for number in (1, 2, 3, 599, 600, 601, 777, 1_199, 1_200):
        found = (await drawing.call("GET", f"{DRAW}/applications/{number}")).json()
        assert (found["number"], found["tokens"]) == (number, tokens[number])
    problem(await drawing.call("GET", f"{DRAW}/applications/1201"), 404, "draw-not-found")


def wish() -> DrawChoice:
    return DrawChoice("sby", MONDAY, session="am", channel="draw")


@pytest.mark.parametrize("status", [status for status in DrawStatus if not DrawOutcome(status).ok])
def test_every_draw_refusal_has_a_problem_type(status: DrawStatus) -> None:
    found = Problem.from_draw_outcome(DrawOutcome(status, retry_at_ms=5_000), 2_000)
    assert found.type is DRAW_STATUS_PROBLEMS[status] is PROBLEM_TYPES[found.type.name]
    assert 400 <= found.type.status < 600
    assert found.retry_after_s == 3
    assert "draw" in found.type.name or status is DrawStatus.OVERLOADED


@pytest.mark.store
@pytest.mark.skipif(
    shutil.which("curl") is None and not os.environ.get("CI"), reason="no curl: install Debian's package curl"
)
def test_documented_draw_runs_on_a_real_service(tmp_path: Path) -> None:
    """50 applicants apply; the draw is closed, run, verified from its files, awarded and confirmed."""
    (tmp_path / "country.json").write_text(json.dumps(settings(drawn=5, of_session=3)))
    (tmp_path / "quota-engine").write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n')
    (tmp_path / "quota-engine").chmod(0o755)
    with served(tmp_path, "--catalog", str(tmp_path / "country.json")) as service, httpx.Client(timeout=60) as http:
        http.base_url = service.url
        operator, booking = service.token("operator"), service.token("service")
        today = datetime.datetime.now(datetime.UTC).date()
        asked = {"session": "am", "channel": "draw"}
        span = {"first_day": today + datetime.timedelta(days=2), "last_day": today + datetime.timedelta(days=9)}
        looked = http.get("/v1/offices/sby/availability", params={name: str(day) for name, day in span.items()} | asked)
        days = [day["day"] for day in looked.json()["days"][:2]]
        began_s = time.monotonic()
        commitment = command("draw", "commit", "january", "--seed-file", "seed", folder=tmp_path)["commitment"]
        command_ms = 1_000 * (time.monotonic() - began_s)
        now_ms = time.time_ns() // 1_000_000
        settled = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "DRAW": f"{service.url}/v1/draws/january",
            "OPERATOR": operator["authorization"].split()[1],
            "SERVICE": booking["authorization"].split()[1],
            "OFFICE": "sby",
            "OPENS_AT_MS": str(now_ms - 60_000),
            # All applications must arrive before, so a busy machine closes later.
            "CLOSES_AT_MS": str(now_ms + round(max(5_000, 10 * command_ms) + 1_000 * os.getloadavg()[0])),
            "FORGET_AT_MS": str(now_ms + 30 * DAY_MS),
            "FIRST_DAY": days[0],
            "LAST_DAY": days[1],
            "COMMITMENT": commitment,
        }
        announce, apply_once, publish, run_it, award = documented()

        def shell(script: str) -> str:
            words = ["bash", "-e", "-c", script]
            run = subprocess.run(
                words,
                cwd=tmp_path,
                env={**os.environ, **settled},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == 0, run.stdout + run.stderr
            return run.stdout

        shell(announce)
        receipts = {1: json.loads(shell(apply_once))["tokens"]}
        wishes = [choice(day=datetime.date.fromisoformat(day), session=part) for day in days for part in ("am", "pm")]
        for number in range(2, 51):
            body = {"applicants": [f"nik-{number}"], "choices": wishes[number % 3 :]}
            applied = http.post("/v1/draws/january/applications", json=body, headers=booking)
            assert applied.status_code == 201, applied.text
            receipts[number] = applied.json()["tokens"]
        early = http.post("/v1/draws/january/close", headers=operator)
        assert (early.status_code, early.json()["outcome"]) == (409, "STILL_OPEN")
        time.sleep(max(0.0, early.json()["retry_at_ms"] / 1000 - time.time()) + 0.01)
        shell(publish)
        frozen = http.get("/v1/draws/january").json()["frozen"]
        shell(run_it)
        report = command(
            "draw", "verify", "result.jsonl", "--applications", "applications.jsonl", "--capacities", "capacities.json",
            "--commitment", settled["COMMITMENT"], "--applications-digest", frozen["applications_digest"],
            "--capacities-digest", frozen["capacities_digest"], "--entropy", "7,123.45", "--number", "7",
            folder=tmp_path,
        )  # fmt: skip
        assert (report["ok"], report["applications"], report["winners"]) == (True, 50, 10)
        assert report["application"]["applicants"] == receipts[7]
        proof = json.loads((tmp_path / "proof.json").read_text())
        assert command(*shlex.split(proof["check"])[1:], folder=tmp_path)["ok"]
        awarded = json.loads(shell(award))
        assert (awarded["ok"], len(awarded["references"])) == (True, 10)
        for one in awarded["references"]:
            identity = f"nik-{one['number']}" if one["number"] > 1 else "3578012345678901"
            step = f"/v1/reservations/{one['reference']}/confirm"
            confirmed = http.post(step, json={"owner": identity}, headers=booking)
            assert confirmed.json()["status"] == "CONFIRMED"
        assert http.get("/v1/audit", headers=operator).json()["ok"]


def documented() -> list[str]:
    """Return the commands of the documentation in order."""
    page = (DOCS / "service.md").read_text()
    section = page.partition("## Draws")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def command(*words: str, folder: Path | None = None) -> Any:
    """Run the command line and return its report."""
    run = subprocess.run([*CLI, *words, "--json"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout)
