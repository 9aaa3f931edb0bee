"""``quota-engine reservation``: one reservation is shown and changed, and no identity is in arguments or output."""

from __future__ import annotations

import base64
import datetime
import io
import json
import pathlib
from typing import Any, NamedTuple

import pytest

from quota_engine import QuotaEngine, Reservation, State
from quota_engine.catalog import Catalog, catalog_from
from quota_engine.cli import identity_input
from quota_engine.cli.main import main

KEY = b"a key for tests, and only them"
ANI, BUDI, CITRA = "3578011203850007", "3578011203850008", "3578011203850009"
DAY = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=5)
LATER = DAY + datetime.timedelta(days=1)
RAW: dict[str, Any] = {
    "services": [{"id": "new"}],
    "channels": [{"id": "online"}],
    "schedules": [{"id": "early", "kind": "days_ahead", "days": 40, "at": "00:00"}],
    "rules": {"hold_ttl_s": 900, "extensions_max": 1, "extension_s": 300, "reschedules_max": 3, "declines_max": 1},
    "plans": [
        {
            "id": "plan",
            "working_weekdays": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
            "hours": {"start": "08:00", "end": "16:00"},
            "sessions": [
                {"id": "morning", "start": "08:00", "end": "12:00"},
                {"id": "afternoon", "start": "13:00", "end": "16:00"},
            ],
            "allotments": [
                {"id": "online", "channels": ["online"], "capacity": 2, "re_release": {"rule": "wait_list"}}
            ],
        }
    ],
    "offices": [{"id": "east", "name": "East", "time_zone": "Asia/Jakarta"}],
}


class Site(NamedTuple):
    """A store in a file, its catalog file, and an engine on it."""

    url: str
    catalog_file: str
    engine: QuotaEngine

    def book(self, *party: str, key: str = "k1", confirmed: bool = True, wait: bool = False) -> str:
        outcome = self.engine.reserve(
            "east", DAY, list(party), service="new", session="morning", idempotency_key=key, join_wait_list=wait
        )
        assert not confirmed or self.engine.confirm(outcome.reference).ok
        return outcome.reference

    def record(self, reference: str) -> Reservation:
        found = self.engine.lookup(reference)
        assert found is not None
        return found


@pytest.fixture
def site(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two days with two places each, and the variables that the command line reads."""
    catalog: Catalog = catalog_from(RAW)
    file = tmp_path / "east.json"
    file.write_text(json.dumps(RAW), "utf-8")
    url = f"sqlite://{tmp_path}/quota.db"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("QUOTA_ENGINE_IDENTITY_KEY", base64.b64encode(KEY).decode())
    monkeypatch.setenv("QUOTA_ENGINE_CATALOG", str(file))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with QuotaEngine.open(url, identity_key=KEY, catalog=catalog) as engine:
        engine.publish(catalog, DAY, LATER)
        yield Site(url, str(file), engine)


class Run(NamedTuple):
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs ``reservation``. No output has an identity, a hash, or a line over 80 columns."""

    def call(step: str, *words: str, given: str = "") -> Run:
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        code = main(["reservation", step, *words])
        output = capsys.readouterr()
        hashes = [site.engine._methods.requests.owner_hash(one) for one in (ANI, BUDI, CITRA)]
        for secret in (ANI, BUDI, CITRA, *hashes):
            assert secret not in output.out + output.err
        if "--json" not in words:
            assert max(map(len, output.out.splitlines()), default=0) <= 80
        return Run(code, output.out, output.err)

    return call


def test_show_prints_a_confirmed_reservation(site: Site, run: Any) -> None:
    reference = site.book(ANI, BUDI)
    lines = run("show", site.url, reference).out.splitlines()
    assert lines[0] == "east~k1  CONFIRMED"
    assert f"  day           {DAY}, morning" in lines
    assert "  queue number  1, 2" in lines
    found = run("show", site.url, reference, "--json").json
    assert (found["state"], found["day"], found["queue_numbers"]) == ("CONFIRMED", str(DAY), [1, 2])


def test_show_needs_neither_key_nor_catalog(site: Site, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the catalog, times are in UTC."""
    reference = site.book(ANI, confirmed=False)
    assert "WIB" in run("show", site.url, reference).out
    monkeypatch.delenv("QUOTA_ENGINE_IDENTITY_KEY")
    monkeypatch.delenv("QUOTA_ENGINE_CATALOG")
    monkeypatch.setenv("QUOTA_ENGINE_BACKEND", site.url)
    shown = run("show", reference)
    assert (shown.code, "UTC" in shown.out) == (0, True)
    assert run("show", "east~nobody").code == 1


def test_show_has_the_place_on_the_wait_list(site: Site, run: Any) -> None:
    site.book(ANI, BUDI)
    waiting = site.book(CITRA, key="k2", confirmed=False, wait=True)
    assert "  wait list     0 parties ahead, 1 wait in all" in run("show", site.url, waiting).out
    assert run("show", site.url, waiting, "--json").json["wait_list_position"] == {"ahead": 0, "waiting": 1}


def test_extend_moves_the_deadline_as_often_as_allowed(site: Site, run: Any) -> None:
    reference = site.book(ANI, confirmed=False)
    deadline_at_ms = site.record(reference).deadline_at_ms
    extended = run("extend", site.url, reference)
    assert (extended.code, "extensions    1 used, 0 left" in extended.out) == (0, True)
    assert site.record(reference).deadline_at_ms == deadline_at_ms + 300_000
    refused = run("extend", site.url, reference)
    assert refused.code == 1
    assert "east~k1 is unchanged: EXTENSIONS_EXCEEDED" in refused.out
    assert run("extend", site.url, reference, "--json").json["next_step"].startswith("the office allows no more")


def test_cancel_asks_first(site: Site, run: Any) -> None:
    """Without --yes the reservation is printed, and nothing changes."""
    reference = site.book(ANI)
    asked = run("cancel", site.url, reference)
    assert (asked.code, asked.out) == (2, "")
    assert "east~k1  CONFIRMED" in asked.err
    assert "--yes: missing: the party would lose the places" in asked.err
    assert site.record(reference).state is State.CONFIRMED
    assert run("cancel", site.url, reference, "--yes", "--json").json["status"] == "CANCELLED"
    assert run("cancel", site.url, reference, "--yes", "--json").json["reservation"]["state"] == "CANCELLED"


def test_a_changed_reservation_is_not_touched(site: Site, run: Any) -> None:
    reference = site.book(ANI)
    refused = run("cancel", site.url, reference, "--yes", "--expected-version", "1", "--json")
    assert (refused.code, refused.json["status"], refused.json["ok"]) == (1, "STALE", False)
    assert site.record(reference).state is State.CONFIRMED


def test_decline_keeps_the_place_on_the_list(site: Site, run: Any) -> None:
    first = site.book(ANI, BUDI)
    offered = site.book(CITRA, key="k2", confirmed=False, wait=True)
    assert site.engine.cancel(first).ok
    assert site.record(offered).is_offer
    assert "offer ends" in run("show", site.url, offered).out
    assert run("decline", site.url, offered, "--yes", "--json").json["status"] == "WAITING"
    assert "WRONG_STATE" in run("cancel", site.url, offered, "--yes").out


def test_reschedule_keeps_what_is_not_given(site: Site, run: Any) -> None:
    reference = site.book(ANI, BUDI)
    moved = run("reschedule", site.url, reference, "--to", str(LATER), "--session", "afternoon", "--json").json
    found = moved["reservation"]
    assert (moved["ok"], found["day"], found["session"], found["service"]) == (True, str(LATER), "afternoon", "new")
    wrong = run("reschedule", site.url, reference, "--to", "tomorrow")
    assert (wrong.code, "--to: 'tomorrow' is no date" in wrong.err) == (2, True)


def test_remove_member_reads_the_identity_from_standard_input(site: Site, run: Any) -> None:
    reference = site.book(ANI, BUDI)
    removed = run("remove-member", site.url, reference, "--yes", given=f"{ANI}\n")
    assert (removed.code, "queue number  2" in removed.out) == (0, True)
    last = run("remove-member", site.url, reference, "--yes", given=BUDI)
    assert (last.code, "use  reservation cancel  instead" in last.out) == (1, True)
    assert run("remove-member", site.url, reference, "--yes", "--json", given=CITRA).json["status"] == "NOT_IN_PARTY"


def test_replace_member_keeps_the_queue_number(site: Site, run: Any) -> None:
    reference = site.book(ANI, BUDI)
    assert run("replace-member", site.url, reference, "--yes", given=f"{ANI}\n{CITRA}\n").code == 0
    assert list(site.record(reference).queue_numbers) == [1, 2]
    assert site.engine.remove_applicant(reference, CITRA).ok


def test_the_owner_is_checked_from_the_first_line(site: Site, run: Any) -> None:
    reference = site.book(ANI, BUDI)
    assert run("cancel", site.url, reference, "--yes", "--check-owner", "--json", given=CITRA).json["status"] == (
        "NOT_OWNER"
    )
    assert run("remove-member", site.url, reference, "--yes", "--check-owner", given=f"{BUDI}\n{ANI}\n").code == 0
    assert run("cancel", site.url, reference, "--yes", "--check-owner", given=BUDI).code == 0


@pytest.mark.parametrize(
    ("step", "given", "complaint"),
    [
        ("remove-member", "", "standard input: 0 lines with text; expected 1 line: the identity of who leaves"),
        ("remove-member", f"{ANI}\n{BUDI}\n", "standard input: 2 lines with text; expected 1 line"),
        ("replace-member", ANI, "expected 2 lines: the identity of who leaves, then of who comes in"),
        ("remove-member", "x" * 300, "standard input: a line is too long"),
    ],
)
def test_missing_identities_are_named(site: Site, run: Any, step: str, given: str, complaint: str) -> None:
    failed = run(step, site.url, site.book(ANI, BUDI), "--yes", given=given)
    assert (failed.code, failed.out, complaint in failed.err) == (2, "", True)


def test_identities_are_asked_on_a_terminal_without_echo(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    prompts: list[str] = []

    def ask(prompt: str, stream: object) -> str:
        prompts.append(prompt)
        return ANI

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", ask)
    assert identity_input.read_identities(["the owner", "who leaves"]) == [ANI, ANI]
    assert prompts == ["Identity of the owner (not shown): ", "Identity of who leaves (not shown): "]
    assert ANI not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["east~k1", ANI], "STORE: not a URL"),
        (["STORE", "east~k1", ANI], "(not shown)"),
        (["STORE", "east~k1", "3578 0112 0385 0007"], "(not shown)"),
        ([ANI], "REFERENCE"),
        (["STORE"], "REFERENCE: missing"),
        (["STORE", "east"], "reference: not a reference"),
        (["nowhere://x", "east~k1"], "no backend serves it"),
    ],
)
def test_an_identity_as_an_argument_is_refused_and_not_shown(
    site: Site, run: Any, words: list[str], complaint: str
) -> None:
    failed = run("cancel", *[site.url if word == "STORE" else word for word in words], "--yes")
    assert (failed.code, failed.out) == (2, "")
    assert complaint in failed.err or words == [ANI]
    assert "Traceback" not in failed.err


def test_missing_key_and_catalog_are_named(site: Site, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = site.book(ANI)
    monkeypatch.delenv("QUOTA_ENGINE_CATALOG")
    assert "--catalog: missing" in run("cancel", site.url, reference, "--yes").err
    assert run("cancel", site.url, reference, "--yes", "--catalog", site.catalog_file).code == 0
    monkeypatch.setenv("QUOTA_ENGINE_IDENTITY_KEY", base64.b64encode(b"another key, for tests").decode())
    wrong = run("cancel", site.url, reference, "--yes", "--catalog", site.catalog_file)
    assert (wrong.code, "not the identity key that this store was first opened with" in wrong.err) == (2, True)
    monkeypatch.delenv("QUOTA_ENGINE_IDENTITY_KEY")
    missing = run("cancel", site.url, reference, "--yes", "--catalog", site.catalog_file)
    assert "QUOTA_ENGINE_IDENTITY_KEY (or --config FILE): missing" in missing.err


def test_a_configuration_file_names_store_catalog_and_key(
    site: Site, run: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IDENTITY_KEY", "CATALOG"):
        monkeypatch.delenv(f"QUOTA_ENGINE_{name}")
    config = tmp_path / "quota.toml"
    key = base64.b64encode(KEY).decode()
    config.write_text(f'backend = "{site.url}"\ncatalog = "east.json"\nidentity_key = "{key}"\n', "utf-8")
    reference = site.book(ANI)
    assert run("show", reference, "--config", str(config)).code == 0
    assert run("cancel", reference, "--yes", "--config", str(config), "--json").json["status"] == "CANCELLED"
