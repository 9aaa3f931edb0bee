"""``watch --host`` and ``room pace``, ``open``, ``close``: what operators do from their own terminal, over HTTP."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quota_engine import DrawConfig
from quota_engine.cli.main import main
from quota_engine.client import ServiceClient
from tests.service.test_runner import served

pytestmark = pytest.mark.store

TOKENS = {role: secrets.token_urlsafe(24) for role in ("operator", "auditor", "service")}
CONFIG = """
port = 0
backend = "valkey+embedded://{folder}/store"
[waiting_rooms]
offices = ["*"]
join_opens_before_ms = 604800000
"""


class Site(NamedTuple):
    """A service, its store, and files with tokens for it."""

    url: str
    store: str
    config: str
    folder: Path
    room: str

    def token(self, role: str) -> list[str]:
        return ["--host", self.url, "--token-file", str(self.folder / role)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A real service on a real store, with the waiting room of the next release, and a draw."""
    folder = tmp_path_factory.mktemp("site")
    config = CONFIG.format(folder=folder)
    for role, token in TOKENS.items():
        (folder / role).write_text(f"{token}\n")
        digest = hashlib.sha256(token.encode()).hexdigest()
        config += f'[[tokens]]\nname = "{role}"\nrole = "{role}"\nsha256 = "{digest}"\n'
    (folder / "quota.toml").write_text(config)
    with (
        served(folder, "--config", "quota.toml") as service,
        ServiceClient.open(service.url, TOKENS["operator"]) as client,
    ):
        (office,) = client.describe_offices().offices
        now_ms = time.time_ns() // 1_000_000
        room = client.room("special")
        first = office.next_opening_days[0]
        assert room.create("surabaya", first, opens_at=now_ms + 3_600_000, entropy_source="a lottery").value == "DONE"
        day, closes_at_ms = first.toordinal(), now_ms + 3_600_000
        terms = DrawConfig(now_ms - 1_000, closes_at_ms, now_ms + 90 * 86_400_000, day, day, "0" * 64)
        assert client.draw("january").create(terms).ok
        yield Site(service.url, f"valkey+embedded://{folder}/store", str(folder / "quota.toml"), folder, "special")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("QUOTA_ENGINE_TOKEN", raising=False)


def look(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["watch", *words, "--once", "--json", "--room", "special", "--draw", "january"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_service_and_store_give_the_same_snapshot(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """To the last counter: days, the waiting rooms (named, and found by the release), draws, and the audit."""
    for _ in range(40):  # a service may show a room as it was a moment ago, and rooms change between two looks
        distant, direct = look(capsys, *site.token("auditor")), look(capsys, site.store)
        for one in (distant, direct):
            del one["at_ms"], one["audit"]["at_ms"]
        if distant == direct:
            break
        time.sleep(0.25)
    assert distant == direct
    assert distant["audit"] == {"ok": True, "offices": 1, "findings": []}
    assert {room["room"].partition("-")[0] for room in distant["offices"][0]["rooms"]} == {"surabaya", "special"}
    assert [draw["phase"] for draw in distant["draws"]] == ["open"]


def test_watch_of_a_service_fits_80_columns(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """The output equals that of a store; the token comes from the environment."""
    monkeypatch.setenv("QUOTA_ENGINE_TOKEN", TOKENS["operator"])
    assert main(["watch", "--host", site.url, "--once", "--office", "surabaya", "--draw", "january"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "no findings" in out.splitlines()[0]
    assert "draw january  accepts applications until " in out
    assert "applications 0   applicants 0   days " in out
    assert "room surabaya-" in out


def test_room_commands_reach_service_and_store(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands go to the service or to its store; refusals name the reason, and close needs --yes."""
    operator = site.token("operator")
    assert main(["room", "pace", "special", "10", "20", *operator]) == 0
    assert "special calls 10 to 20 tickets a minute" in capsys.readouterr().out
    assert main(["room", "pace", "special", "30", "1200", "--config", site.config]) == 0
    capsys.readouterr()
    # In an opening there is also the room of the release before.
    (special,) = [one for one in look(capsys, site.store)["offices"][0]["rooms"] if one["room"] == "special"]
    assert (special["per_minute_min"], special["per_minute_max"]) == (30, 1_200)
    for where in (operator, ["--config", site.config]):
        assert main(["room", "open", "special", "7 12 49", *where]) == 1
        assert "it is too early, by the store's clock" in capsys.readouterr().out
        assert main(["room", "close", "special", *where]) == 2
        assert "0 people wait in special" in capsys.readouterr().err
    release = next(room["room"] for room in look(capsys, site.store)["offices"][0]["rooms"])
    assert main(["room", "close", release, "--yes", *operator]) == 0
    assert f"{release} is closed" in capsys.readouterr().out
    assert main(["room", "pace", release, "1", "2", "--config", site.config]) == 1
    assert "the room is closed" in capsys.readouterr().out
    assert main(["room", "pace", release, "1", "2", "--config", site.config, "--json"]) == 1
    refused = json.loads(capsys.readouterr().out)
    assert (refused["ok"], refused["status"], refused["reason"]) == (False, "ROOM_CLOSED", "the room is closed")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["watch"], 2, "BACKEND, --host: both missing"),
        (["watch", "https://booking.example"], 2, "watch --host https://booking.example"),
        (["watch", "--host", "booking.example", "--token-file", "TOKEN"], 2, "such as https://booking.example"),
        (["watch", "--host", "URL"], 2, "in QUOTA_ENGINE_TOKEN or by --token-file FILE"),
        (["watch", "--host", "URL", "--token", "s3cret"], 2, "Did you mean --token-file?"),
        (["watch", "--host", "URL", "--token-file", "none"], 2, "none cannot be read"),
        (["watch", "--host", "URL", "--token-file", "CONFIG"], 2, "a token alone"),
        (["watch", "--host", "URL", "--token-file", "TOKEN", "--once", "--room", "nix"], 2, "--room: 'nix'"),
        (["watch", "--host", "URL", "--token-file", "TOKEN", "--once", "--draw", "nix"], 2, "--draw: 'nix'"),
        (["watch", "--host", "URL", "--token-file", "TOKEN", "--office", "nix"], 2, "one of surabaya"),
        (["watch", "--host", "URL", "--token-file", "SERVICE", "--once"], 2, "one with the role auditor or operator"),
        (["watch", "--host", "http://127.0.0.1:1", "--token-file", "TOKEN"], 3, "the service cannot be used"),
        (["room", "pace", "nix", "1", "2", "--host", "URL", "--token-file", "TOKEN"], 2, "no such room"),
        (["room", "pace", "special", "2", "1", "--host", "URL", "--token-file", "TOKEN"], 2, "per_minute"),
        (["room", "pace", "special", "1", "2"], 2, "--host URL  of a service, or  --config FILE"),
        (["room", "pace", "special", "1", "2", "--config", "none"], 2, "none"),
    ],
)  # fmt: skip
def test_bad_usage_names_the_remedy(
    site: Site, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    """Messages never contain a token."""
    known = {
        "URL": site.url,
        "TOKEN": str(site.folder / "operator"),
        "SERVICE": str(site.folder / "service"),
        "CONFIG": site.config,
    }
    assert main([known.get(word, word) for word in words]) == code
    err = capsys.readouterr().err
    assert text in err
    assert not any(token in err for token in TOKENS.values())
