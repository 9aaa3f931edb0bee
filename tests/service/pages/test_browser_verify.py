"""The page that verifies a waiting room and a draw: its script against the engine's own results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from quota_engine.waiting_room.transcript import iter_positions, parse_transcript
from tests.support.browser import PhoneBrowser
from tests.support.browser_service import browser_service
from tests.support.page_texts import citizen_text
from tests.support.paths import ROOT

pytestmark = pytest.mark.browser

ROOM = ROOT / "docs" / "rooms" / "surabaya-after.json"
DRAW = tuple(ROOT / "docs" / "draw" / name for name in ("result.jsonl", "capacities.json", "applications.jsonl"))


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneBrowser]:
    with browser_service() as service, PhoneBrowser(service.url, tmp_path_factory.mktemp("profile")) as phone:
        phone.open("/check?lang=en")
        yield phone


def _check(phone: PhoneBrowser, *files: Path, number: str = "", noted: str = "") -> str:
    """Verify files on the page, and return what it says."""
    phone.open("/check?lang=en")
    phone.find("#files").send_keys("\n".join(map(str, files)))
    phone.find("#number").send_keys(number)
    phone.find("#noted").send_keys(noted)
    phone.press("form[data-verify] button")
    phone.wait_until("document.querySelector('#result p') !== null")
    return phone.text("#result")


def says(key: str, **gaps: object) -> str:
    return citizen_text(f"verify_{key}", "en", **gaps)


def test_the_pages_hash_is_sha_256(phone: PhoneBrowser) -> None:
    for length in (0, 3, 55, 56, 63, 64, 119, 200):
        text = "a" * length
        assert (
            phone.driver.execute_script("return hash(arguments[0])", text) == hashlib.sha256(text.encode()).hexdigest()
        )


def test_every_position_of_a_room_is_the_engines(phone: PhoneBrowser) -> None:
    """All 5,400 tickets, before and after the opening."""
    text = ROOM.read_text()
    found = phone.driver.execute_script(
        "const found = verifyRoom(JSON.parse(arguments[0])); return [found.faults, [...found.positions]]", text
    )
    expected = [list(pair) for pair in iter_positions(parse_transcript(text.encode()))]
    assert found == [[], expected]


def test_the_page_shows_the_position_of_a_ticket(phone: PhoneBrowser) -> None:
    transcript = parse_transcript(ROOM.read_bytes())
    position = dict(iter_positions(transcript))[1_000]
    text = _check(phone, ROOM, number="1000", noted=transcript.commitment)
    assert says("right") in text
    assert says("checked", count=5400, of=5400) in text
    assert says("position", number=1000, position=position) in text
    phone.check_accessibility()
    assert says("fault_noted") in _check(phone, ROOM, noted="0" * 64)


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("seed", "0" * 64, "fault_seed"),
        ("entropy", "04 11 19 23 38 43", "fault_digest"),
        ("contradictions", ["the seed was another"], "fault_contradiction"),
    ],
)
def test_a_forged_record_is_found(phone: PhoneBrowser, tmp_path: Path, field: str, value: object, fault: str) -> None:
    forged = tmp_path / "forged.json"
    forged.write_text(json.dumps({**json.loads(ROOM.read_text()), field: value}))
    text = _check(phone, forged)
    assert says("wrong") in text
    assert says(fault) in text


def test_a_draw_is_verified(phone: PhoneBrowser) -> None:
    text = _check(phone, *DRAW, number="13")
    assert says("right") in text
    assert says("won", number=13, rank=1, choice="c1") in text
    assert says("lost", number=1, rank=17) in _check(phone, *DRAW, number="1")


def test_a_forged_draw_is_found(phone: PhoneBrowser, tmp_path: Path) -> None:
    lines = DRAW[0].read_text().splitlines()
    forged = tmp_path / "result.jsonl"
    swapped = [line.replace('"rank":17}', '"rank":9}') for line in lines]
    for changed, fault in (
        (swapped, "fault_order"),
        ([line.replace('"choice":"c1"', '"choice":"c2"') for line in lines], "fault_choice"),
        ([line.replace("7,123.45", "7,123.46") for line in lines], "fault_order"),
    ):
        forged.write_text("\n".join(changed))
        assert says(fault) in _check(phone, forged, *DRAW[1:])
    assert _check(phone, DRAW[1]) == says("unreadable")


def test_reference_of_all_calls_is_accessible_and_fits_a_phone(phone: PhoneBrowser) -> None:
    """All calls have one form, and axe-core would take half a minute for them, so it checks some."""
    phone.open("/docs")
    assert (
        phone.driver.execute_script("return getComputedStyle(document.querySelector('header')).color")
        == "rgb(255, 255, 255)"
    )
    phone.driver.execute_script(
        "const kept = ['reserve', 'live', 'schema-ReserveBody'];"
        "for (const one of document.querySelectorAll('article')) if (!kept.includes(one.id)) one.remove();"
        "for (const one of document.querySelectorAll('nav li li')) if (!kept.includes(one.textContent)) one.remove();"
        "for (const one of document.querySelectorAll('details')) one.open = true;"
    )
    phone.check_accessibility()
    phone.resize(320)
    assert phone.driver.execute_script("return document.documentElement.scrollWidth") <= 320
    phone.resize()
