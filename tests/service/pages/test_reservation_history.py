"""The history of one reservation among the events of its office."""

from __future__ import annotations

import pytest

from quota_engine.service.pages import reservation_history
from quota_engine.service.pages.reservation_history import read_history
from tests.support.identities import nik
from tests.support.in_process_service import Client


@pytest.mark.parametrize("place", [0, 1, 17, 39])
async def test_the_search_finds_a_reservation_anywhere(
    client: Client, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Only the events after the reserve and the last ones are read, in small pages."""
    monkeypatch.setattr(reservation_history, "_PAGE", 3)
    monkeypatch.setattr(reservation_history, "EVENTS_READ_MAX", 8)
    references = []
    for number in range(40):
        client.clock.advance_ms(1_000)
        references.append((await client.reserve(nik(number))).json()["reservation"]["reference"])
    client.clock.advance_ms(1_000)
    await client.step(references[place], "confirm")
    record = await client.service.engine.lookup(references[place])
    assert record is not None
    history = await read_history(client.service.engine, record)
    assert [str(step.verb) for step in history.steps] == ["reserve", "confirm"]
    assert history.is_complete
    assert history.steps[1].before == history.steps[0].after


async def test_a_change_in_the_gap_is_reported_as_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservation_history, "EVENTS_READ_MAX", 8)
    reference = (await client.reserve(nik(99))).json()["reservation"]["reference"]
    for number in range(30):
        client.clock.advance_ms(1_000)
        await client.reserve(nik(number))
        if number == 15:
            await client.step(reference, "confirm")
    record = await client.service.engine.lookup(reference)
    assert record is not None
    history = await read_history(client.service.engine, record)
    assert [str(step.verb) for step in history.steps] == ["reserve"]
    assert not history.is_complete
