"""``status`` and ``audit`` on a real store, at 80 columns."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.catalog import day_terms
from quota_engine.cli.main import main
from quota_engine.stores.embedded import open_embedded
from tests.support.coming_days import coming_monday

pytestmark = pytest.mark.store

KEY = b"a key for tests, and only them"
DAY = coming_monday()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded store with one place confirmed and one quota overbooked."""
    folder: Path = tmp_path_factory.mktemp("store")
    url = f"valkey+embedded://{folder}"
    catalog = load_catalog("surabaya")
    terms = day_terms(catalog, "surabaya", DAY)
    assert terms is not None
    with QuotaEngine.open(url, identity_key=KEY, clock=ManualClock(terms.opens_at_ms)) as engine:
        engine.publish(catalog, DAY, DAY + datetime.timedelta(days=1))
        for number in range(2):
            held = engine.reserve("surabaya", DAY, f"{number:016}", service="new", session="morning")
            engine.confirm(held.reference)
        engine.set_capacity("surabaya", DAY, "online", 1)
        engine.close_day("surabaya", DAY + datetime.timedelta(days=1))
        yield url


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_status_shows_every_counter(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The table fits 80 columns."""
    assert main(["status", store, "--first-day", str(DAY), "--days", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (online,) = [line.split() for line in lines if line.split()[:1] == ["online"]][:1]
    assert online == ["online", "1", "0", "2", "0", "0", "1"]
    assert any(line.split()[:2] == ["surabaya", str(DAY)] for line in lines)
    (after,) = [index for index, line in enumerate(lines) if str(DAY + datetime.timedelta(days=1)) in line]
    assert lines[after + 1].split()[0] == "closed"


def test_status_prints_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", store, "--first-day", str(DAY), "--days", "1", "--office", "surabaya", "--json"]) == 0
    (office,) = json.loads(capsys.readouterr().out)["offices"]
    assert (office["office"], office["days"][0]["day"]) == ("surabaya", str(DAY))
    assert office["days"][0]["quotas"]["online"]["overbooked"] == 1


def test_audit_of_an_intact_store_has_no_findings(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The result is one line, or JSON."""
    assert main(["audit", store]) == 0
    assert capsys.readouterr().out == "1 office: no findings\n"
    assert main(["audit", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "offices": 1, "findings": []}


def test_audit_of_a_damaged_store_exits_with_1(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    import redis

    with open_embedded(store) as server:
        client = redis.Redis.from_url(server.url, decode_responses=True)
        (key,) = client.keys("*surabaya*:days")
        text = client.hget(key, str(DAY.toordinal()))
        assert isinstance(text, str)
        rows = text.split("\n")
        index = next(index for index, row in enumerate(rows) if row.startswith("online\t"))
        fields = rows[index].split("\t")
        damaged = [*rows[:index], "\t".join([*fields[:4], "7", *fields[5:]]), *rows[index + 1 :]]
        try:
            client.hset(key, str(DAY.toordinal()), "\n".join(damaged))
            assert main(["audit", store]) == 1
        finally:
            client.hset(key, str(DAY.toordinal()), text)
            client.close()
    out = capsys.readouterr().out
    assert "quota online" in out
    assert "finding" in out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--office", "nix"], 2, "--office: 'nix'; expected one of surabaya"),
        (["--first-day", "x"], 2, "--first-day"),
        (["--days", "0"], 2, "--days"),
    ],
)
def test_bad_options_exit_with_2(
    store: str, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    """The message names the option and the valid values."""
    assert main(["status", store, *words]) == code
    assert text in capsys.readouterr().err


def test_an_unreachable_store_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "audit"):
        assert main([command, "redis://127.0.0.1:1?attempts_max=1"]) == 3
    assert "the store can" in capsys.readouterr().err
