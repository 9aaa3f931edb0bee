"""``catalog diff``: what a new catalog changes, and whom, without a store and with one."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from quota_engine import ManualClock, QuotaEngine, load_catalog
from quota_engine.cli.main import main
from tests.support.catalog_samples import sample
from tests.support.coming_days import coming_monday

_MONDAY = coming_monday()
MONDAY, TUESDAY = str(_MONDAY), str(_MONDAY + datetime.timedelta(days=1))
OPENING = ManualClock.at(f"{_MONDAY - datetime.timedelta(days=3)}T14:00:00+07:00")
RANGE = ("--first-day", MONDAY, "--days", "7")
KEY = b"a key for tests, and only them"


def write(folder: Path, name: str, raw: dict[str, Any]) -> str:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(raw), "utf-8")
    return str(file)


def new_catalog() -> dict[str, Any]:
    """Return the sample with a holiday and without the afternoon."""
    raw = sample()
    plan = raw["plans"][0]
    plan["sessions"], plan["quotas"] = plan["sessions"][:1], [{**plan["quotas"][0], "capacity": 80}]
    raw["offices"] = [{**raw["offices"][0], "holidays": [{"date": MONDAY}]}]
    return raw


def test_equal_catalogs_have_no_differences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "diff", "surabaya", "surabaya"]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_diff_without_a_store_counts_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = write(tmp_path, "old", sample()), write(tmp_path, "new", new_catalog())
    assert main(["catalog", "diff", old, new, *RANGE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "west",
        f"  closes {MONDAY}",
        "  quota pm vanishes",
        "  quota am has 80 places instead of 60; published days keep theirs",
        "  session afternoon vanishes",
        "east",
        "  the office is gone: its days stay as they are, and no service offers them",
    ]


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--first-day", "soon"), ("--days", "401")])
def test_invalid_ranges_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog", "diff", "surabaya", "indonesia", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.store
def test_diff_with_a_store_counts_people_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write(tmp_path, "old", sample()), write(tmp_path, "new", new_catalog())
    url = f"valkey+embedded://{tmp_path / 'store'}"
    with QuotaEngine.open(url, identity_key=KEY, clock=OPENING) as engine:
        engine.publish(load_catalog(old), MONDAY, TUESDAY)
        held = engine.reserve("west", MONDAY, ["1", "2"], service="new", session="morning")
        assert engine.confirm(held.reference).ok
        assert engine.reserve("west", TUESDAY, "3", service="new", session="afternoon").ok
        before = engine.availability("west", MONDAY, TUESDAY)
        assert main(["catalog", "diff", old, new, url, *RANGE]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[:5] == [
            "west: 3 people affected",
            f"  closes {MONDAY}: 2 people",
            "  quota pm vanishes: 1 person",
            "    their days refuse the new catalog, until they have gone or another quota has renamed_from",
            "  quota am has 80 places instead of 60; published days keep theirs",
        ]
        assert main(["catalog", "diff", old, new, url, *RANGE, "--json"]) == 0
        west, east = json.loads(capsys.readouterr().out)["offices"]
        assert west["people"]["days_closed"] == {MONDAY: 2}
        assert west["people"]["affected"] == 3
        assert (east["is_gone"], east["people"]["affected"]) == (True, 0)
        assert engine.availability("west", MONDAY, TUESDAY) == before
