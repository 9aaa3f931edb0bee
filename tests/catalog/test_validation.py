"""Validation of catalog files: one row per kind of issue, with its key, value and expectation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from quota_engine.catalog import catalog_from
from quota_engine.catalog.schema_conversion import ISSUES_MAX
from quota_engine.domain.check_digits import CHECK_DIGITS
from quota_engine.domain.identity_format import ANY_FORM, IdentityFormat
from quota_engine.domain.identity_pattern import PATTERN_EXPECTED
from tests.support.catalog_samples import FILE, issues_of, sample

Change = Callable[[dict[str, Any]], object]


def put(path: str, value: object) -> Change:
    """Return a function that sets the value at a dotted path (numbers are list positions)."""

    def change(raw: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        parent: Any = raw
        for part in parents:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        if isinstance(parent, list):
            parent[int(last)] = value
        else:
            parent[last] = value

    return change


def drop(path: str) -> Change:
    """Return a function that removes a key."""

    def change(raw: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        parent: Any = raw
        for part in parents:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        del parent[last]

    return change


ALLOTMENT = "plans.0.allotments.0"
NOON_TO_ONLINE = {"to": "online", "at": "12:00"}
TIME = 'a time of the day from "00:00" to "23:59", such as "09:00"'
DATE = 'a date that exists, such as "2026-08-17"'
ZONE = 'an IANA time zone such as "Asia/Jakarta"'
ID = "an id: 1 to 64 characters of A-Z a-z 0-9 _ -"
CAPACITY = "an integer from 0 to 10000000"

CASES: dict[str, tuple[Change, str, str, str]] = {
    # Issues of single values.
    "two places over all offices": (
        put("national", {"places_max": 2}),
        "national.places_max",
        "2",
        "1: one active reservation over all offices",
    ),
    "no number of places over all offices": (
        put("national", {"lease_s": 20}),
        "national.places_max",
        "missing",
        "1: one active reservation over all offices",
    ),
    "separators of letters": (
        put("identity", {"strip": " x"}),
        "identity.strip",
        "' x'",
        "up to 32 characters that are neither letters nor digits",
    ),
    "a pattern that may be slow": (
        put("identity", {"pattern": "(a+)+", "expected": "x"}),
        "identity.pattern",
        "+ at character 3",
        PATTERN_EXPECTED,
    ),
    "a pattern without words": (
        put("identity", {"pattern": r"\d{16}"}),
        "identity.expected",
        "missing",
        'a valid identity in words, such as "16 digits"',
    ),
    "English words alone": (
        put("identity", {"expected_en": "16 digits"}),
        "identity.expected",
        "missing",
        "the words in the offices' own language in addition to expected_en",
    ),
    "unknown check digit": (
        put("identity", {"check_digit": "luhm", "expected": "x"}),
        "identity.check_digit",
        "'luhm'",
        "one of luhn, mod11_10, verhoeff; did you mean 'luhn'?",
    ),
    "capital letters that are folded": (
        put("identity", {"pattern": "[A-Z]{9}", "casefold": True, "expected": "x"}),
        "identity.pattern",
        "has capital letters",
        "small letters, because casefold is set",
    ),
    "lease out of bounds": (
        put("national", {"places_max": 1, "lease_s": 9}),
        "national.lease_s",
        "9",
        "an integer from 10 to 3600",
    ),
    "unknown key": (
        put("plans.0.alotments", []),
        "plans[0].alotments",
        "unknown key",
        "one of id, services, hours, working_weekdays, sessions, quotas, allotments, capacities_by_class, schedule, "
        "re_release, rules; did you mean 'allotments'?",
    ),
    "missing key": (drop("offices.0.time_zone"), "offices[0].time_zone", "missing", ZONE),
    "missing list": (drop("services"), "services", "missing", "a list"),
    "wrong type": (put(f"{ALLOTMENT}.capacity", "ten"), "plans[0].allotments[0].capacity", "'ten'", CAPACITY),
    "boolean for a number": (put(f"{ALLOTMENT}.capacity", True), "plans[0].allotments[0].capacity", "true", CAPACITY),
    "16.0 for an integer": (put(f"{ALLOTMENT}.capacity", 16.0), "plans[0].allotments[0].capacity", "16.0", CAPACITY),
    "negative capacity": (put(f"{ALLOTMENT}.capacity", -1), "plans[0].allotments[0].capacity", "-1", CAPACITY),
    "huge capacity": (
        put("offices.1.capacities.online", 10_000_001),
        "offices[1].capacities.online",
        "10000001",
        CAPACITY,
    ),
    "very huge capacity": (
        put("offices.1.capacities.online", 10**5_000),
        "offices[1].capacities.online",
        "a very large number",
        CAPACITY,
    ),
    "number for a boolean": (
        put("services.0.needs_session", 1),
        "services[0].needs_session",
        "1",
        "true or false",
    ),
    "text for a table": (put("offices.0", "west"), "offices[0]", "'west'", "a table"),
    "table for a list": (put("holidays", {}), "holidays", "{}", "a list"),
    "empty list": (put("offices", []), "offices", "0 entries", "1 to 10000 entries"),
    "bad id": (put("services.0.id", "new passport"), "services[0].id", "'new passport'", ID),
    "id with a line break": (put("services.0.id", "new\n"), "services[0].id", "'new\\n'", ID),
    "long id": (put("services.0.id", "x" * 65), "services[0].id", f"'{'x' * 22}...{'x' * 23}'", ID),
    "time that does not exist": (
        put("plans.0.sessions.0.start", "25:00"),
        "plans[0].sessions[0].start",
        "'25:00'",
        TIME,
    ),
    "time in another form": (put("schedules.0.at", "2pm"), "schedules[0].at", "'2pm'", TIME),
    "date that does not exist": (put("holidays.0.date", "2026-02-30"), "holidays[0].date", "'2026-02-30'", DATE),
    "unknown weekday": (
        put("schedules.0.weekday", "frday"),
        "schedules[0].weekday",
        "'frday'",
        "one of friday, monday, saturday, sunday, thursday, tuesday, wednesday; did you mean 'friday'?",
    ),
    "unknown kind of schedule": (
        put("schedules.0.kind", "weekley"),
        "schedules[0].kind",
        "'weekley'",
        "one of weekly, monthly, days_ahead; did you mean 'weekly'?",
    ),
    "no kind of schedule": (
        drop("schedules.0.kind"),
        "schedules[0].kind",
        "missing",
        "one of weekly, monthly, days_ahead",
    ),
    "unknown re-release rule": (
        put("plans.0.allotments.1.re_release.rule", "waitlist"),
        "plans[0].allotments[1].re_release.rule",
        "'waitlist'",
        "one of at_once, cooling, wait_list, next_draw; did you mean 'wait_list'?",
    ),
    "party too large": (put("rules.party_max", 101), "rules.party_max", "101", "an integer from 1 to 100"),
    # Issues between keys.
    "unknown time zone": (
        put("offices.1.time_zone", "Asia/Jaypura"),
        "offices[1].time_zone",
        "'Asia/Jaypura'",
        f"{ZONE}; did you mean 'Asia/Jayapura'?",
    ),
    "path for a time zone": (put("offices.1.time_zone", "../etc"), "offices[1].time_zone", "'../etc'", ZONE),
    "directory for a time zone": (
        put("schedules.0.zone", "Asia"),
        "schedules[0].zone",
        "'Asia'",
        f"{ZONE}; did you mean 'Asia/Oral'?",
    ),
    "duplicate office": (
        put("offices.1.id", "west"),
        "offices[1].id",
        "'west'",
        "a unique id; offices[0] has the same",
    ),
    "quota and allotment of one id": (
        put("plans.0.quotas.0.id", "online"),
        "plans[0].allotments[1].id",
        "'online'",
        "a unique id; plans[0].quotas[0] has the same",
    ),
    "duplicate service unit": (
        put("offices.1.service_units.1.id", "counter-1"),
        "offices[1].service_units[1].id",
        "'counter-1'",
        "a unique id; offices[1].service_units[0] has the same",
    ),
    "unknown plan": (
        put("offices.0.plan", "standart"),
        "offices[0].plan",
        "'standart'",
        "one of the plans: standard; did you mean 'standard'?",
    ),
    "unknown schedule of a plan": (
        put("plans.0.schedule", "fridays"),
        "plans[0].schedule",
        "'fridays'",
        "one of the schedules: friday, month, daily; did you mean 'friday'?",
    ),
    "no schedule of a plan": (
        drop("plans.0.schedule"),
        "plans[0].schedule",
        "missing",
        "one of the schedules: friday, month, daily",
    ),
    "unknown schedule of an office": (
        put("offices.1.schedule", "x"),
        "offices[1].schedule",
        "'x'",
        "one of the schedules: friday, month, daily",
    ),
    "unknown service of a plan": (
        put("plans.0.services", ["new", "renew"]),
        "plans[0].services[1]",
        "'renew'",
        "one of the services: new, renewal; did you mean 'renewal'?",
    ),
    "service given twice": (
        put("plans.0.services", ["new", "new"]),
        "plans[0].services[1]",
        "'new'",
        "each entry once",
    ),
    "unknown session of a quota": (
        put("plans.0.quotas.0.session", "evening"),
        "plans[0].quotas[0].session",
        "'evening'",
        "one of the sessions of the plan 'standard': morning, afternoon",
    ),
    "unknown service of a quota": (
        put("plans.0.quotas.0.service", "x"),
        "plans[0].quotas[0].service",
        "'x'",
        "one of the services of the plan 'standard': new, renewal",
    ),
    "unit that an office lacks": (
        lambda raw: (put("plans.0.quotas.0.service_unit", "counter-1")(raw), put("offices.1.plan", "standard")(raw)),
        "offices[0].service_units",
        "no unit counter-1",
        "the units that quotas of the plan 'standard' count",
    ),
    "unknown channel": (
        put("plans.0.allotments.1.channels", ["on-line"]),
        "plans[0].allotments[1].channels[0]",
        "'on-line'",
        "one of the channels: online, kiosk; did you mean 'online'?",
    ),
    "unknown group": (
        put(f"{ALLOTMENT}.groups", ["elderly"]),
        "plans[0].allotments[0].groups[0]",
        "'elderly'",
        "one of the groups: priority",
    ),
    "unknown session of an allotment": (
        put(f"{ALLOTMENT}.sessions", ["noon"]),
        "plans[0].allotments[0].sessions[0]",
        "'noon'",
        "one of the sessions of the plan 'standard': morning, afternoon; did you mean 'afternoon'?",
    ),
    "unknown fallback": (
        put(f"{ALLOTMENT}.fallback", ["general"]),
        "plans[0].allotments[0].fallback[0]",
        "'general'",
        "one of the allotments of the plan 'standard': priority, online, kiosk",
    ),
    "fallback to itself": (
        put(f"{ALLOTMENT}.fallback", ["priority"]),
        "plans[0].allotments[0].fallback[0]",
        "'priority'",
        "another allotment, not itself",
    ),
    "fallback that never applies": (
        put("plans.0.allotments.1.fallback", ["kiosk"]),
        "plans[0].allotments[1].fallback[0]",
        "'kiosk'",
        "an allotment that admits some of the same bookings",
    ),
    "reallocation to the unknown": (
        put(f"{ALLOTMENT}.reallocation.to", "am"),
        "plans[0].allotments[0].reallocation.to",
        "'am'",
        "one of the allotments of the plan 'standard': priority, online, kiosk",
    ),
    "reallocation to itself": (
        put(f"{ALLOTMENT}.reallocation.to", "priority"),
        "plans[0].allotments[0].reallocation.to",
        "'priority'",
        "another allotment, not itself",
    ),
    "reallocation in a chain": (
        put("plans.0.allotments.2.reallocation", {"to": "online", "at": "11:00"}),
        "plans[0].allotments[0].reallocation.to",
        "'kiosk'",
        "an allotment without a reallocation",
    ),
    "reallocation at no time": (
        drop(f"{ALLOTMENT}.reallocation.at"),
        "plans[0].allotments[0].reallocation.at",
        "missing",
        "either a time of the day or a schedule",
    ),
    "reallocation after the end": (
        put(f"{ALLOTMENT}.reallocation.at", "16:00"),
        "plans[0].allotments[0].reallocation.at",
        "16:00:00",
        "a time before the day is over, 16:00:00",
    ),
    "reallocation by an unknown schedule": (
        put(f"{ALLOTMENT}.reallocation", {"to": "kiosk", "schedule": "never"}),
        "plans[0].allotments[0].reallocation.schedule",
        "'never'",
        "one of the schedules: friday, month, daily",
    ),
    "fallback that is not bookable": (
        lambda raw: (
            put(
                "plans.0.allotments.2",
                {"id": "kiosk", "capacity": 5, "bookable": False, "reallocation": NOON_TO_ONLINE},
            )(raw),
            put("plans.0.allotments.0.reallocation.to", "online")(raw),
        ),
        "plans[0].allotments[0].fallback[1]",
        "'kiosk'",
        "an allotment that is bookable",
    ),
    "second tranche without a reallocation": (
        lambda raw: (
            put("plans.0.allotments.2.bookable", False)(raw),
            put(f"{ALLOTMENT}.fallback", ["online"])(raw),
        ),
        "plans[0].allotments[2].reallocation",
        "missing",
        "a reallocation, because the allotment is not bookable",
    ),
    "session that ends before it starts": (
        put("plans.0.sessions.1.end", "12:30"),
        "plans[0].sessions[1].end",
        "12:30:00",
        "later than start, 13:00:00",
    ),
    "session outside the hours": (
        put("plans.0.sessions.1.end", "17:00"),
        "plans[0].sessions[1]",
        "13:00:00 to 17:00:00",
        "a time within the hours, 08:00:00 to 16:00:00",
    ),
    "former id that is still one": (
        put("plans.0.quotas.0.renamed_from", "online"),
        "plans[0].quotas[0].renamed_from",
        "'online'",
        "an id that the plan no longer has, and that no other quota was renamed from",
    ),
    "former id that stands twice": (
        lambda raw: (put("plans.0.quotas.0.renamed_from", "x")(raw), put(f"{ALLOTMENT}.renamed_from", "x")(raw)),
        "plans[0].allotments[0].renamed_from",
        "'x'",
        "an id that the plan no longer has, and that no other quota was renamed from",
    ),
    "session with two ends of booking": (
        put("plans.0.sessions.0.book_until", {"before_start_min": 5, "before_end_min": 5}),
        "plans[0].sessions[0].book_until",
        "both keys",
        "either before_start_min or before_end_min",
    ),
    "session with an empty end of booking": (
        put("plans.0.sessions.0.book_until", {}),
        "plans[0].sessions[0].book_until",
        "neither key",
        "either before_start_min or before_end_min",
    ),
    "session whose booking ends too early": (
        put("plans.0.sessions.0.book_until", {"before_start_min": 10_081}),
        "plans[0].sessions[0].book_until.before_start_min",
        "10081",
        "an integer from 0 to 10080",
    ),
    "closure that ends before it starts": (
        put("offices.1.closures.0.last", "2026-06-30"),
        "offices[1].closures[0].last",
        "2026-06-30",
        "not before first, 2026-07-01",
    ),
    "capacity of an unknown quota": (
        put("offices.1.capacities", {"onlin": 3}),
        "offices[1].capacities.onlin",
        "'onlin'",
        "a quota or allotment of the plan 'standard': am, pm, priority, online, kiosk; did you mean 'online'?",
    ),
    "capacity of an unused class": (
        put("plans.0.capacities_by_class", {"Sub": {"online": 3}}),
        "plans[0].capacities_by_class.Sub",
        "'Sub'",
        "a class of an office: I, II",
    ),
    "cooling without a time": (
        put("plans.0.re_release", {"rule": "cooling"}),
        "plans[0].re_release.cooling_s",
        "missing",
        "a cooling time of 1 second or more",
    ),
    "cooling time without cooling": (
        put("plans.0.re_release", {"rule": "at_once", "cooling_s": 5}),
        "plans[0].re_release.rule",
        "'at_once'",
        "cooling, because a cooling time is set",
    ),
    "strict order without a wait list": (
        put("plans.0.re_release", {"rule": "at_once", "order": "strict", "blocks_s": 60}),
        "plans[0].re_release.rule",
        "'at_once'",
        "wait_list, because the order is strict",
    ),
    "strict order without a bound": (
        put("plans.0.re_release", {"rule": "wait_list", "order": "strict"}),
        "plans[0].re_release.blocks_s",
        "missing",
        "1 second or more, because the order is strict",
    ),
    "bound without strict order": (
        put("plans.0.re_release", {"rule": "wait_list", "blocks_s": 60}),
        "plans[0].re_release.order",
        "'first_fit'",
        "strict, because blocks_s is set",
    ),
    "plan without places": (
        lambda raw: (
            raw["plans"].append({"id": "empty", "schedule": "month"})
            or put("offices.0.plan", "standard")(raw)
            or put("offices.1.plan", "standard")(raw)
        ),
        "plans[1]",
        "neither quotas nor allotments",
        "at least one quota or allotment",
    ),
    **{
        f"an English name alone, of {where}": (
            put(f"{where}.name_en", "Name"),
            re.sub(r"\.(\d+)", r"[\1]", where) + ".name",
            "missing",
            "a name in the office's own language in addition to name_en",
        )
        for where in (
            "services.0",
            "channels.1",
            "groups.0",
            "plans.0.sessions.1",
            "plans.0.quotas.0",
            "plans.0.allotments.2",
            "offices.1.service_units.1",
        )
    },
    "retention shorter than a limit": (
        put("rules.retention_days", 29),
        "rules.retention_days",
        "29 days",
        "at least the span_days of all limits, 30",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_issue_is_reported_once(name: str) -> None:
    change, key, value, expected = CASES[name]
    raw = sample()
    change(raw)
    assert [(m.file, m.key, m.value, m.expected) for m in issues_of(raw)] == [(FILE, key, value, expected)]


def test_the_sample_is_valid() -> None:
    assert set(catalog_from(sample(), FILE).offices) == {"west", "east"}


def test_the_identity_table_becomes_the_format() -> None:
    """Without the table, only the rules that hold always apply."""
    raw = sample()
    assert catalog_from(raw).identity_format == ANY_FORM
    raw["identity"] = {"strip": " .-", "pattern": r"\d{16}", "expected": "16 angka", "expected_en": "16 digits"}
    assert catalog_from(raw).identity_format == IdentityFormat(
        strip=" .-", pattern=r"\d{16}", expected="16 angka", expected_en="16 digits"
    )
    for name in CHECK_DIGITS:
        raw["identity"]["check_digit"] = name
        assert catalog_from(raw).identity_format.check_digit == name


def test_ten_issues_are_reported_as_ten() -> None:
    raw = sample()
    ten = [
        "unknown key",
        "missing key",
        "wrong type",
        "time that does not exist",
        "date that does not exist",
        "huge capacity",
        "fallback that never applies",
        "unknown time zone",
        "closure that ends before it starts",
        "unknown service of a quota",
    ]
    for name in ten:
        CASES[name][0](raw)
    assert sorted(issue.key for issue in issues_of(raw)) == sorted(CASES[name][1] for name in ten)


def test_an_invalid_definition_is_not_reported_again_where_it_is_used() -> None:
    raw = sample()
    raw["schedules"] = 5
    raw["channels"][0]["id"] = "on line"
    raw["plans"][0]["allotments"][1]["channels"] = ["on line"]
    assert [issue.key for issue in issues_of(raw)] == ["channels[0].id", "schedules"]


def test_a_report_is_bounded() -> None:
    raw = sample()
    raw["holidays"] = [5] * 5_000
    found = issues_of(raw)
    assert len(found) == ISSUES_MAX + 1
    assert found[-1].value == "4000 more issues"


@pytest.mark.parametrize("raw", [None, [], "x", 5, {}, {1: 2}, {"offices": [{2: 3}]}])
def test_data_of_another_shape_is_reported(raw: object) -> None:
    assert issues_of(raw)
