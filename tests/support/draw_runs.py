"""A catalog of two offices with a draw, and a whole draw from announcement to award, for any store."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from quota_engine import Catalog, DrawChoice, DrawConfig, ManualClock, QuotaEngine, Status
from quota_engine.catalog import catalog_from
from quota_engine.draws.files import applications_of_lines, capacities_of_json, digest_of, result_of_lines
from quota_engine.draws.verify import Expected, check_draw

KEY = b"a key for tests, and only them"
SEED = "53a9317dfe17d56c867632fac3b5afd613172e879fcc7c92624116511f99aaaa"
MONDAY = datetime.date(2026, 12, 7)
TUESDAY = MONDAY + datetime.timedelta(days=1)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = ManualClock.at("2026-11-20T09:00:00+07:00").now_ms()
OPENS_AT_MS, CLOSES_AT_MS = NOW_MS + HOUR_MS, NOW_MS + 25 * HOUR_MS
ENTROPY = "IHSG 7,123.45"


def catalog(rule: str = "next_draw", drawn: int = 3) -> Catalog:
    """Return a catalog of two offices, each with ``drawn`` places a day for the draw and one for the counter."""
    return catalog_from(settings(rule, drawn), "small country")


def catalog_with_draw() -> Catalog:
    """Return :func:`catalog` with the draw ``dec`` at the first office."""
    made = catalog()
    office = dataclasses.replace(made.offices["sby"], draw="dec", draw_channel="draw")
    return dataclasses.replace(made, offices={**made.offices, "sby": office})


def settings(rule: str = "next_draw", drawn: int = 3, of_session: int = 2) -> dict[str, Any]:
    """Return the settings of the catalog as a dictionary."""
    return {
        "title": "a small country",
        "services": [{"id": "passport"}],
        "channels": [{"id": "draw"}, {"id": "counter"}],
        "schedules": [{"id": "ahead", "kind": "days_ahead", "at": "00:00", "days": 60}],
        "plans": [
            {
                "id": "plan",
                "services": ["passport"],
                "sessions": [
                    {"id": "am", "start": "08:00", "end": "12:00"},
                    {"id": "pm", "start": "13:00", "end": "16:00"},
                ],
                "hours": {"start": "08:00", "end": "16:00"},
                "schedule": "ahead",
                "quotas": [{"id": session, "session": session, "capacity": of_session} for session in ("am", "pm")],
                "allotments": [
                    {
                        "id": "drawn",
                        "channels": ["draw"],
                        "capacity": drawn,
                        "re_release": {"rule": rule, "cooling_s": 7_200 if rule == "cooling" else 0},
                    },
                    {"id": "counter", "channels": ["counter"], "capacity": 1},
                ],
            }
        ],
        "offices": [
            {"id": office, "name": office, "time_zone": "Asia/Jakarta", "plan": "plan"} for office in ("sby", "mlg")
        ],
    }


def choice(office: str, day: datetime.date = MONDAY, session: str = "am") -> DrawChoice:
    return DrawChoice(office, day, session=session, channel="draw")


def terms(commitment: str, **more: Any) -> DrawConfig:
    """Return settings of a draw that opens in an hour for a day, for places on Monday and Tuesday."""
    first, last = MONDAY.toordinal(), TUESDAY.toordinal()
    return DrawConfig(OPENS_AT_MS, CLOSES_AT_MS, CLOSES_AT_MS + 60 * DAY_MS, first, last, commitment, **more)


def announced(engine: QuotaEngine, clock: ManualClock, draw: str = "dec", **more: Any) -> None:
    """Publish the catalog, create the draw, and set the clock to its opening time."""
    clock.set_ms(max(clock.now_ms(), NOW_MS))
    engine.publish(engine._methods.requests._plans._catalog or catalog(), MONDAY, TUESDAY)
    assert engine.draw(draw).create(terms(engine.draw(draw).commitment(SEED), **more)).ok
    clock.set_ms(max(clock.now_ms(), OPENS_AT_MS))


def apply_all(engine: QuotaEngine, draw: str, people: int = 20) -> None:
    """Submit twenty applications of one or two applicants, with Surabaya on Monday as the first choice."""
    for index in range(people):
        party = [f"nik-{index}", f"partner-{index}"] if index % 4 == 3 else f"nik-{index}"
        choices = [choice("sby"), choice("sby", session="pm"), choice("mlg", TUESDAY)][: 1 + index % 3]
        outcome = engine.draw(draw).apply(party, choices)
        assert (outcome.status, outcome.number, outcome.version) == ("APPLIED", index + 1, 1)


def check_published(engine: QuotaEngine, draw: str, entropy: str = "", noted: Expected | None = None) -> None:
    """Verify the published files from their bytes."""
    files = engine.draw(draw).files()
    assert files is not None
    assert files.findings == ()
    applications = list(files.application_lines())
    head, lots = result_of_lines(files.result_lines(), "result")
    assert head.entropy == entropy
    assert not check_draw(
        head,
        lots,
        capacities_of_json(files.capacities_json, "capacities"),
        list(applications_of_lines(applications, "applications")),
        digest_of([files.capacities_json]),
        digest_of(applications),
        noted or Expected(),
    )


def whole_draw(engine: QuotaEngine, clock: ManualClock) -> None:
    """Run a draw from its announcement to its award, and verify the published files."""
    announced(engine, clock, entropy_source="the closing price of the index on 2026-11-21")
    draw = engine.draw("dec")
    apply_all(engine, "dec")
    assert draw.withdraw("nik-0", expected_version=1).ok
    assert draw.apply("nik-1", [choice("mlg")], expected_version=1).version == 2
    view = draw.view()
    assert view is not None
    assert (view.phase, view.applications, view.applicants, view.last_number) == ("open", 19, 24, 20)
    assert draw.close().status == "STILL_OPEN"
    assert draw.run(SEED, ENTROPY).status == "NOT_FROZEN"
    clock.set_ms(CLOSES_AT_MS)
    assert draw.apply("late", [choice("sby")]).status == "APPLICATIONS_CLOSED"
    assert draw.close().ok
    frozen = draw.view()
    assert frozen is not None
    assert frozen.frozen is not None
    noted = Expected(draw.commitment(SEED), frozen.frozen.applications_digest, frozen.frozen.capacities_digest, ENTROPY)
    before = draw.files()
    assert before is not None
    assert list(before.result_lines()) == []
    assert draw.award().findings == ("the seed has not been revealed",)
    assert draw.run(SEED).status == "CONFLICT"
    assert draw.run(SEED, ENTROPY).ok
    check_published(engine, "dec", ENTROPY, noted)
    files = draw.files()
    assert files is not None
    assert files.head is not None
    report = draw.award(hold_ttl_ms=48 * HOUR_MS)
    assert report.ok
    assert len(report.references) == report.winners == files.head.totals.winners > 3
    for number, reference in report.references.items():
        record = engine.lookup(reference)
        assert record is not None
        assert record.deadline_at_ms == CLOSES_AT_MS + 48 * HOUR_MS
        assert engine.confirm(reference, owner=f"nik-{number - 1}").status is Status.CONFIRMED
    again = draw.award(hold_ttl_ms=48 * HOUR_MS)
    assert again.references == report.references
    views = [view for office in ("sby", "mlg") for view in engine.availability(office, MONDAY, TUESDAY)]
    assert sum(view.quotas["drawn"].confirmed for view in views) == files.head.totals.places
    assert engine.audit().ok
