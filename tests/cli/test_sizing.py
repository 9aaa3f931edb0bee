"""``quota-engine sizing``: its figures are those of the pages, and its results those of a calculation by hand."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from quota_engine.cli.main import main
from quota_engine.cli.sizing import FIGURES, compute_sizes
from quota_engine.workflows.room_config import RoomSettings
from tests.support.paths import DOCS

MEASURED = {
    "reservation": "| Valkey 9.1.2 | 366 |",
    "ticket": "about 80 bytes in Valkey",
    "bucket": "0.1 to 0.25 kB in the store",
    "stream": "11.4 KiB for each stream",
    "reserve": "| reserve | Valkey on the load generator's core | 96 |",
    "poll": "| ticket, 304 | in memory, Valkey | 53, 57 |",
    "store_reserve": "| reserve | 500 | 45,500 |",
}
"""The text of the page that has each figure."""


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_measured_on_their_pages(name: str) -> None:
    page, _, anchor = FIGURES[name].source.partition("#")
    text = (DOCS / page).read_text(encoding="utf-8")
    title = next(one for one in re.findall(r"^##+ (.*)$", text, re.M) if one.lower().replace(" ", "-") == anchor)
    section = re.split(r"^## ", text.partition(f"# {title}\n")[2], flags=re.M)[0]
    assert MEASURED[name] in section
    assert FIGURES["stream"].value >= 11.4 * 1024
    assert FIGURES["store_reserve"].value == round(1_000_000 / 45_500)


def sizes(**changes: Any) -> Any:
    chosen = {"offices": 1, "places": 100, "people": 20_000, "days": 90, "within_s": 60, "waiting_room": False}
    return compute_sizes(**{**chosen, "buckets": False, **changes})


def test_memory_is_that_of_a_calculation_by_hand() -> None:
    data = 100 * 90 * 366 + 20_000 * 80 + 20_000 * 250
    found = sizes(waiting_room=True, buckets=True)
    assert found.store_memory_bytes == round(data * 8 / 3)
    assert found.store_disk_bytes == 3 * found.store_memory_bytes
    assert found.service_stream_bytes == 20_000 * 12 * 1024
    assert sizes().store_memory_bytes == round(100 * 90 * 366 * 8 / 3)


def test_a_waiting_room_bounds_the_reserves() -> None:
    assert sizes(people=600_000).reserves_per_s == 10_000
    found = sizes(people=600_000, waiting_room=True)
    assert found.reserves_per_s == RoomSettings().per_minute_max // 60
    assert found.polls_per_s == 8_000  # a quarter of a turn of five minutes bounds the interval


def test_cores_have_twice_the_processor_time() -> None:
    found = sizes(people=6_000_000, within_s=60)  # 100,000 reserves a second
    assert found.service_cores == -(-100_000 * 96 * 2 // 1_000_000)
    assert found.store_cores == -(-100_000 * 22 * 2 // 1_000_000)
    assert (sizes(people=1).service_cores, sizes(people=1).store_cores) == (1, 1)


def test_json_has_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--people", "20000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["reservation"]["value"] == 366
    assert found["store_cores"] == 1


@pytest.mark.parametrize("option", ["people", "offices", "places", "days", "within-s"])
def test_numbers_have_bounds(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sizing", "--people", "20000"] if option != "people" else ["sizing"]
    assert main([*words, f"--{option}", "0"]) == 2
    assert f"--{option}" in capsys.readouterr().err
