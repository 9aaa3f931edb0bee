"""``day relocate`` and ``reservation`` over HTTP: an operator changes a day or a reservation from the terminal."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine.cli.main import main
from quota_engine.client import ServiceClient
from tests.service.test_runner import served

pytestmark = pytest.mark.store

TOKENS = {role: secrets.token_urlsafe(24) for role in ("operator", "service")}
CATALOG = """
[[services]]
id = "new"
[[channels]]
id = "online"
[[schedules]]
id = "early"
kind = "days_ahead"
days = 40
at = "00:00"
[rules]
hold_ttl_s = 900
[[plans]]
id = "plan"
working_weekdays = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
hours = { start = "08:00", end = "16:00" }
sessions = [{ id = "morning", start = "08:00", end = "12:00" }, { id = "afternoon", start = "13:00", end = "16:00" }]
quotas = [{ id = "am", session = "morning", capacity = 5 }, { id = "pm", session = "afternoon", capacity = 5 }]
allotments = [{ id = "online", channels = ["online"], capacity = 10 }]
[[offices]]
id = "east"
name = "East"
time_zone = "UTC"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceClient]:
    """A real service whose days are all open, and a client with every right."""
    folder: Path = tmp_path_factory.mktemp("site")
    (folder / "east.toml").write_text(CATALOG)
    (folder / "token").write_text(TOKENS["operator"])
    tokens = "".join(
        f'[[tokens]]\nname = "{role}"\nrole = "{role}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        for role, token in TOKENS.items()
    )
    (folder / "quota.toml").write_text(f'backend = "memory://"\ncatalog = "east.toml"\nport = 0\n{tokens}')
    with served(folder, "--config", "quota.toml") as service:
        site_words[:] = ["--host", service.url, "--token-file", str(folder / "token")]
        with ServiceClient.open(service.url, TOKENS["service"]) as client:
            yield client


site_words: list[str] = []
TODAY = datetime.datetime.now(datetime.UTC).date()


def day_of(distance: int) -> datetime.date:
    """Return a day of the coming weeks; each test uses different days, also if midnight passes."""
    return TODAY + datetime.timedelta(days=distance)


def book(client: ServiceClient, day: datetime.date, *parties: int) -> None:
    for number, size in enumerate(parties):
        people = [f"{day}-{number}-{member}" for member in range(size)]
        held = client.reserve("east", day, people, service="new", session="morning")
        assert client.confirm(held.reference).ok, held.status


def test_plan_comes_first_and_the_move_follows(
    site: ServiceClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan changes nothing. Both fit 80 columns and say where each party goes."""
    monkeypatch.setenv("COLUMNS", "80")
    day, target = day_of(3), day_of(4)
    book(site, day, 2, 1)
    words = ["day", "relocate", "east", str(day), "--to", str(target), *site_words]
    assert main(words) == 0
    plan = capsys.readouterr().out
    assert "3 people would move, 0 stay on the closed day." in plan
    assert "Add --yes to close the day and move them." in " ".join(plan.split())
    assert not site.availability("east", day)[0].closed
    assert main([*words, "--yes"]) == 0
    done = capsys.readouterr().out
    assert "3 people have moved, 0 stay on the closed day." in done
    assert f"{target} morning" in done
    assert max(map(len, (plan + done).splitlines())) <= 80
    assert site.availability("east", day)[0].closed


def test_people_without_room_stay_and_the_exit_code_says_so(
    site: ServiceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same session of the target has five places; the other one takes the rest if that is allowed."""
    day, target = day_of(6), day_of(7)
    book(site, target, 4)
    book(site, day, 1, 2)
    words = ["day", "relocate", "east", str(day), "--to", f"east:{target}", "--json", *site_words]
    assert main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["people_moved"], found["people_left"], found["dry_run"]) == (1, 2, True)
    assert [party["status"] for party in found["parties"]] == ["CONFIRMED", "SOLD_OUT"]
    assert main([*words, "--other-sessions"]) == 0
    assert [party["target_session"] for party in json.loads(capsys.readouterr().out)["parties"]] == [
        "morning",
        "afternoon",
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["east", "tomorrow"], "DAY: 'tomorrow' is no date"),
        (["east", "2026-12-07", "--to", "soon"], "--to: 'soon' is no date"),
        (["east", "2000-01-03"], "east has no day 2000-01-03"),
        (["west", "2026-12-07"], "west"),
    ],
)
def test_bad_usage_exits_with_2(
    site: ServiceClient, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["day", "relocate", *words, *site_words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_reservation_is_changed_through_the_service(
    site: ServiceClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``quota-engine reservation`` takes the address of a service in place of a store."""
    day, people = day_of(12), ["3578011203850007", "3578011203850008"]
    held = site.reserve("east", day, people, service="new", session="morning")
    assert site.confirm(held.reference).ok
    url, token = site_words[1], site_words[2:]

    def run(step: str, *words: str, given: str = "") -> dict[str, object]:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        main(["reservation", step, url, held.reference, *words, "--json", *token])
        output = capsys.readouterr()
        assert not any(one in output.out + output.err for one in people)
        found: dict[str, object] = json.loads(output.out)
        return found

    assert run("show")["state"] == "CONFIRMED"
    assert run("remove-member", "--yes", given=people[0])["ok"] is True
    assert run("replace-member", "--yes", given=f"{people[1]}\n{people[0]}")["ok"] is True
    assert run("cancel", "--yes", "--check-owner", given=people[1])["status"] == "NOT_OWNER"
    assert run("cancel", "--yes", "--check-owner", given=people[0])["status"] == "CANCELLED"
