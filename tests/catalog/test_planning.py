"""Rules, terms and choices of a catalog, of the built-in catalogs, and of the example in ``docs/catalog.md``."""

from __future__ import annotations

import csv
import datetime
import importlib.resources
import itertools
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from quota_engine.catalog import (
    Catalog,
    builtin_names,
    catalog_from,
    choice_of,
    day_terms,
    load_catalog,
    next_release,
    rules_of,
)
from quota_engine.catalog.build_national import replace_offices
from quota_engine.catalog.resolved import NationalLimit
from quota_engine.catalog.selection import Selection
from quota_engine.domain.errors import InvalidRequest, UnknownName
from quota_engine.domain.model import IdentityLimit, Reallocation, ReRelease, ReReleaseRule, SessionTerms
from tests.support.catalog_samples import sample
from tests.support.paths import DOCS

DATA = importlib.resources.files("quota_engine.catalog") / "data"
MONDAY = date(2026, 3, 2)
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The sample of the tests."""
    return catalog_from(sample())


@pytest.fixture(scope="module", params=["surabaya", "indonesia"])
def shipped(request: pytest.FixtureRequest) -> Catalog:
    """Each built-in catalog."""
    return load_catalog(request.param)


def utc(text: str) -> int:
    """Return milliseconds since 1970 of an ISO time with an offset."""
    return int(datetime.datetime.fromisoformat(text).timestamp()) * 1000


def with_plan(**changes: Any) -> Catalog:
    """Return the sample with other keys in its plan."""
    raw = sample()
    raw["plans"][0].update(changes)
    return catalog_from(raw)


def test_terms_have_local_times_in_utc_and_capacities_of_plan_class_and_office(catalog: Catalog) -> None:
    west, east = day_terms(catalog, "west", MONDAY), day_terms(catalog, "east", MONDAY)
    assert west is not None
    assert east is not None
    assert west.opens_at_ms == utc("2026-02-27T14:00+07:00")
    assert west.starts_at_ms == utc("2026-03-02T08:00+07:00")
    assert west.ends_at_ms == utc("2026-03-02T16:00+07:00")
    assert west.forget_at_ms == west.ends_at_ms + 60 * DAY_MS
    assert east.opens_at_ms == utc("2026-02-27T08:00+09:00")
    assert east.starts_at_ms == utc("2026-03-02T08:00+09:00")
    assert {quota.name: quota.capacity for quota in west.quotas} == {
        "am": 60,
        "pm": 40,
        "priority": 10,
        "online": 80,
        "kiosk": 20,
    }
    by_name = {quota.name: quota for quota in east.quotas}
    assert by_name["online"].capacity == 5
    assert by_name["online"].re_release == ReRelease(ReReleaseRule.WAIT_LIST)
    assert by_name["kiosk"].re_release == ReRelease()
    assert by_name["priority"].reallocation == Reallocation("kiosk", utc("2026-03-02T10:00+09:00"))


@pytest.mark.parametrize(
    ("office", "day"),
    [
        ("west", date(2026, 3, 1)),  # a Sunday
        ("west", date(2026, 8, 17)),  # a holiday
        ("east", date(2026, 7, 1)),  # closed, from the first ...
        ("east", date(2026, 7, 10)),  # ... to the last day
    ],
)
def test_a_day_off_has_no_terms(catalog: Catalog, office: str, day: date) -> None:
    assert day_terms(catalog, office, day) is None


@pytest.mark.parametrize("day", [date.min, date(1971, 12, 31), date(2099, 1, 1), date.max])
def test_a_day_out_of_bounds_is_refused(catalog: Catalog, day: date) -> None:
    with pytest.raises(InvalidRequest, match="years 1972 to 2098"):
        day_terms(catalog, "west", day)


def test_a_limit_on_abandoned_holds_is_in_hours() -> None:
    """Without one, the library's default is no limit."""
    raw = sample()
    assert rules_of(catalog_from(raw), "west").abandoned_holds_max == 0
    raw["offices"][1]["rules"] = {
        "abandoned_holds_max": 3, "abandoned_holds_window_h": 24, "abandoned_holds_block_h": 48,
    }  # fmt: skip
    east = rules_of(catalog_from(raw), "east")
    limit = (east.abandoned_holds_max, east.abandoned_holds_window_ms, east.abandoned_holds_block_ms)
    assert limit == (3, 24 * 3_600_000, 48 * 3_600_000)


def test_extensions_are_rules_of_an_office() -> None:
    raw = sample()
    raw["offices"][1]["rules"] = {"extensions_max": 2, "extension_s": 90}
    built = catalog_from(raw)
    west, east = rules_of(built, "west"), rules_of(built, "east")
    assert (west.extensions_max, west.extension_ms) == (0, 300_000)
    assert (east.extensions_max, east.extension_ms) == (2, 90_000)


def test_the_rules_of_the_wait_list() -> None:
    raw = sample()
    online = raw["plans"][0]["allotments"][1]
    online["re_release"] = {"rule": "wait_list", "order": "strict", "blocks_s": 7_200}
    raw["offices"][1]["rules"] = {"wait_list_max": 50, "declines_max": 1, "decline_pause_s": 600}
    built = catalog_from(raw)
    terms = day_terms(built, "east", MONDAY)
    assert terms is not None
    assert {quota.name: quota.re_release.blocks_ms for quota in terms.quotas}["online"] == 7_200_000
    east, west = rules_of(built, "east"), rules_of(built, "west")
    assert (east.wait_list_max, east.declines_max, east.decline_pause_ms) == (50, 1, 600_000)
    assert (west.wait_list_max, west.declines_max, west.decline_pause_ms) == (1_000, 3, 3_600_000)


def test_rules_are_merged_key_by_key() -> None:
    raw = sample()
    raw["plans"][0]["rules"] = {"party_max": 3, "hold_ttl_s": 60, "no_show_block_days": 7}
    raw["offices"][1]["rules"] = {"hold_ttl_s": 30, "reschedule_before_h": 48}
    built = catalog_from(raw)
    west, east = rules_of(built, "west"), rules_of(built, "east", jitter_seed="secret")
    assert (west.hold_ttl_ms, west.party_max, west.no_show_block_ms) == (60_000, 3, 7 * DAY_MS)
    assert (east.hold_ttl_ms, east.party_max, east.reschedule_before_ms) == (30_000, 3, 2 * DAY_MS)
    assert east.identity_limits == (IdentityLimit(1, 30),)
    assert (west.jitter_seed, east.jitter_seed) == ("", "secret")


@pytest.mark.parametrize(
    ("booking", "options"),
    [
        ({"channel": "online"}, (("online", "am"),)),
        ({"channel": "online", "group": "priority"}, (("priority", "am"), ("online", "am"))),
        ({"channel": "kiosk", "group": "priority"}, (("priority", "am"), ("kiosk", "am"))),
        ({"channel": "kiosk"}, (("kiosk", "am"),)),  # its fallback, the priority places, does not admit it
        ({"channel": "online", "session": "afternoon"}, (("online", "pm"),)),
        ({"channel": "online", "service_unit": "counter-2"}, (("online", "am"),)),
    ],
)
def test_a_choice_is_the_first_allotment_its_fallbacks_and_all_guards(
    catalog: Catalog, booking: dict[str, str], options: tuple[tuple[str, ...], ...]
) -> None:
    choice = choice_of(catalog, "east", Selection(**{"service": "new", "session": "morning", **booking}))
    assert choice.options == options


@pytest.mark.parametrize(
    ("office", "booking", "kind", "message"),
    [
        ("wst", {}, UnknownName, "office: unknown office 'wst'; expected one of west, east; did you mean 'west'?"),
        ("west", {}, InvalidRequest, "service: missing; expected one of new, renewal"),
        ("west", {"service": "nwe"}, UnknownName, "expected one of new, renewal; did you mean 'new'?"),
        ("west", {"service": "new"}, InvalidRequest, "session: missing; expected one of morning, afternoon"),
        ("west", {"service": "new", "session": "noon"}, UnknownName, "session: unknown session 'noon'"),
        ("west", {"channel": "fax"}, UnknownName, "channel: unknown channel 'fax'; expected one of online, kiosk"),
        ("west", {"group": "vip"}, UnknownName, "group: unknown group 'vip'; expected one of priority"),
        (
            "west",
            {"service": "new", "session": "morning", "service_unit": "counter-1"},
            UnknownName,
            "service_unit: unknown service unit 'counter-1'; expected one of none",
        ),
    ],
)
def test_an_unknown_name_lists_the_known_ones(
    catalog: Catalog, office: str, booking: dict[str, str], kind: type[InvalidRequest], message: str
) -> None:
    with pytest.raises(kind) as caught:
        choice_of(catalog, office, Selection(**booking))
    assert type(caught.value) is kind
    assert message in str(caught.value)


def test_display_names_fall_back_to_the_own_language_and_the_id() -> None:
    raw = sample()
    raw["services"] = [{"id": "new", "name": "Paspor baru", "name_en": "New passport"}, {"id": "renewal", "name": "R"}]
    services = catalog_from(raw).offices["west"].services
    assert [one.display_name("id") for one in services.values()] == ["Paspor baru", "R"]
    assert [one.display_name("en") for one in services.values()] == ["New passport", "R"]
    assert catalog_from(raw).channels["kiosk"].display_name("en") == "kiosk"


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_catalogs_have_names_in_both_languages(name: str) -> None:
    catalog = load_catalog(name)
    for office in catalog.offices.values():
        for one in (
            *catalog.channels.values(), *catalog.groups.values(), *office.services.values(), *office.sessions.values(),
            *office.service_units.values(), *office.quotas, *office.allotments,
        ):  # fmt: skip
            assert one.name, one
            assert one.name_en or one.name == "Online", one


def test_the_only_service_and_session_may_be_omitted() -> None:
    built = with_plan(services=["new"], sessions=[{"id": "all-day", "start": "08:00", "end": "16:00"}], quotas=[])
    choice = choice_of(built, "west", Selection())
    assert (choice.service, choice.session, choice.options) == ("new", "all-day", (("online",),))


def test_a_service_without_sessions_does_not_consume_their_guards() -> None:
    raw = sample()
    raw["services"].append({"id": "collect", "needs_session": False})
    assert choice_of(catalog_from(raw), "west", Selection(service="collect")).options == (("online",),)


def test_a_guard_by_unit_requires_the_unit() -> None:
    raw = sample()
    raw["offices"] = raw["offices"][1:]
    raw["plans"][0].update(capacities_by_class={})
    raw["plans"][0]["quotas"] = [
        {"id": f"guard-{number}", "service_unit": f"counter-{number}", "capacity": 9} for number in (1, 2)
    ]
    built = catalog_from(raw)
    booking = {"service": "new", "session": "morning"}
    with pytest.raises(InvalidRequest, match="service_unit: missing; expected one of counter-1, counter-2"):
        choice_of(built, "east", Selection(**booking))
    assert choice_of(built, "east", Selection(service_unit="counter-2", **booking)).options == (("online", "guard-2"),)


def test_a_booking_that_no_allotment_admits_is_refused() -> None:
    built = with_plan(allotments=[{"id": "online", "channels": ["kiosk"], "capacity": 1}])
    with pytest.raises(InvalidRequest, match="no allotment of 'west' admits channel 'online'"):
        choice_of(built, "west", Selection(service="new", session="morning"))


def test_a_plan_without_allotments_uses_its_guards() -> None:
    raw = sample()
    raw["plans"][0].update(allotments=[], capacities_by_class={})
    raw["offices"][1]["capacities"] = {}
    built = catalog_from(raw)
    assert choice_of(built, "west", Selection(service="new", session="morning")).options == (("am",),)


def test_a_release_opens_all_days_of_the_same_time(catalog: Catalog) -> None:
    opening = utc("2026-02-27T14:00+07:00")
    week = tuple(MONDAY + timedelta(days=offset) for offset in range(5))
    assert next_release(catalog, "west", opening - 1) == (opening, week)
    assert next_release(catalog, "west", opening) == (
        opening + 7 * DAY_MS,
        tuple(day + timedelta(days=7) for day in week),
    )
    assert next_release(catalog, "east", utc("2026-02-27T07:59+09:00")) == (utc("2026-02-27T08:00+09:00"), (MONDAY,))


def test_a_second_tranche_is_reallocated_when_its_schedule_opens_the_day() -> None:
    national = load_catalog("indonesia")
    terms = day_terms(national, "pontianak", MONDAY)
    assert terms is not None
    assert terms.opens_at_ms == utc("2026-02-27T09:00+07:00")
    weekly = next(quota for quota in terms.quotas if quota.name == "weekly")
    assert (weekly.capacity, weekly.reallocation) == (100, Reallocation("ordinary", utc("2026-02-27T14:00+07:00")))
    for group in ("", "priority"):
        options = choice_of(national, "pontianak", Selection(service="new", session="morning", group=group)).options
        assert not any("weekly" in option for option in options)


def test_all_offices_of_the_csv_file_are_in_the_national_catalog() -> None:
    national = load_catalog("indonesia")
    text = (DATA / "offices.csv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(national.offices) == 125
    for row in rows:
        office = national.offices[row["id"]]
        assert (office.name, office.office_class, office.province, office.zone.key) == (
            row["name"],
            row["class"],
            row["province"],
            row["time_zone"],
        )
    toml = (DATA / "indonesia.toml").read_text("utf-8")
    assert replace_offices(toml, text) == toml, "run python -m quota_engine.catalog.build_national"


def test_known_capacities_are_as_published() -> None:
    national, surabaya = load_catalog("indonesia"), load_catalog("surabaya")

    def capacities(catalog: Catalog, office: str) -> dict[str, int]:
        terms = day_terms(catalog, office, MONDAY)
        assert terms is not None
        return {quota.name: quota.capacity for quota in terms.quotas}

    batam = capacities(national, "batam")
    assert (batam["ordinary"], batam["fast"], batam["priority"]) == (200, 35, 50)
    assert capacities(national, "jakarta-pusat")["ordinary"] == 384
    assert capacities(national, "surabaya")["ordinary"] == 100
    pontianak = capacities(national, "pontianak")
    assert [pontianak[name] for name in ("ordinary", "weekly", "priority", "fast")] == [140, 100, 50, 20]
    assert capacities(surabaya, "surabaya")["online"] == 100
    assert len(surabaya.offices["surabaya"].service_units) == 6
    assert len(surabaya.offices["surabaya"].cities_served) == 3
    assert rules_of(surabaya, "surabaya").party_max == 5


def test_every_choice_finds_its_quotas_on_every_weekday(shipped: Catalog) -> None:
    for office in shipped.offices.values():
        for offset in range(7):
            terms = day_terms(shipped, office.id, MONDAY + timedelta(days=offset))
            assert (terms is not None) == (offset < 5)
            if terms is None:
                continue
            names = {quota.name for quota in terms.quotas}
            assert terms.opens_at_ms < terms.starts_at_ms
        guards = sum(quota.capacity for quota in office.quotas)
        assert guards >= sum(allotment.capacity for allotment in office.allotments), office.id
        bookings = itertools.product(office.services, office.sessions, shipped.channels, ("", *shipped.groups))
        for service, session, channel, group in bookings:
            choice = choice_of(
                shipped, office.id, Selection(service=service, session=session, channel=channel, group=group)
            )
            assert {name for option in choice.options for name in option} <= names
            again = choice_of(
                shipped, office.id, Selection(service=service, session=session, channel=channel, group=group)
            )
            assert choice == again


def test_all_offices_open_in_the_same_second_on_friday() -> None:
    national = load_catalog("indonesia")
    opening = utc("2026-02-27T14:00+07:00")
    together = [name for name in national.offices if next_release(national, name, opening - 1)[0] == opening]  # type: ignore[index]
    assert len(together) == 123
    assert {national.offices[name].zone.key for name in together} == {
        "Asia/Jakarta",
        "Asia/Pontianak",
        "Asia/Makassar",
        "Asia/Jayapura",
    }


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    manual = DOCS / "catalog.md"
    (example,) = re.findall(r"```toml\n(.*?)```", manual.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "my-offices.toml"
    path.write_text(example, "utf-8")
    catalog = load_catalog(path)
    choice = choice_of(catalog, "airport", Selection(service="new", session="morning", group="priority"))
    assert choice.options == (("priority", "morning"), ("online", "morning"))
    assert choice_of(catalog, "harbour", Selection(service="collect", channel="walk-in")).options == (("walk-in",),)
    assert day_terms(catalog, "airport", date(2026, 7, 10)) is None
    assert day_terms(catalog, "harbour", date(2026, 7, 10)) is not None


def test_the_national_limit_is_off_by_default_and_has_a_lease_of_20_seconds() -> None:
    assert catalog_from(sample()).national is None
    raw = sample()
    raw["national"] = {"places_max": 1}
    assert catalog_from(raw).national == NationalLimit(20_000)
    raw["national"]["lease_s"] = 45
    assert catalog_from(raw).national == NationalLimit(45_000)


@pytest.mark.parametrize(
    ("book_until", "moment"),
    [
        (None, "12:00"),
        ({"before_start_min": 0}, "08:00"),
        ({"before_start_min": 90}, "06:30"),
        ({"before_end_min": 15}, "11:45"),
    ],
)
def test_a_session_can_be_booked_until_its_own_time(book_until: dict[str, int] | None, moment: str) -> None:
    raw = sample()
    if book_until is not None:
        raw["plans"][0]["sessions"][0]["book_until"] = book_until
    terms = day_terms(catalog_from(raw), "west", MONDAY)
    assert terms is not None
    assert terms.sessions == (
        SessionTerms("morning", utc("2026-03-02T12:00+07:00"), utc(f"2026-03-02T{moment}+07:00")),
        SessionTerms("afternoon", terms.ends_at_ms, terms.ends_at_ms),
    )
