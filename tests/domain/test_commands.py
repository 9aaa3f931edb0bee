"""Malformed values are refused when they are created, with the field, the problem and a valid value."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quota_engine.conformance.world import ONLINE, RULES, choice, terms
from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Confirm,
    Expire,
    Extend,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
)
from quota_engine.domain.errors import CatalogError, InvalidRequest, UnknownName, ValidationIssue
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    Rules,
    SessionTerms,
)

HUGE = 10**5000
BAD: list[tuple[str, Callable[[], object], str]] = [
    ("id empty", lambda: Confirm(""), "id: an empty id"),
    ("id long", lambda: Confirm("x" * 65), "id: not a valid id"),
    ("id control", lambda: Cancel("a\n"), "id: not a valid id"),
    ("id brace", lambda: Cancel("{a}"), "1 to 64 characters of A-Z a-z 0-9 _ -"),
    ("id type", lambda: Cancel(7), "id: not a valid id"),  # type: ignore[arg-type]
    ("owner", lambda: Confirm("a", owner="b c"), "owner: not a valid id"),
    ("version", lambda: Confirm("a", expected_version=-1), "expected_version: -1; expected an integer from 0"),
    ("version type", lambda: Confirm("a", expected_version=True), "expected_version: True"),
    ("reacquire", lambda: Confirm("a", reacquire=1), "reacquire: a int; expected True or False"),  # type: ignore[arg-type]
    ("extension", lambda: Extend("a", extension=0), "extension: 0; expected an integer from 1 to 100"),
    ("extension huge", lambda: Extend("a", extension=101), "extension: 101"),
    ("extensions_max", lambda: Rules(extensions_max=101), "extensions_max: 101"),
    ("extension_ms", lambda: Rules(extension_ms=0), "extension_ms: 0"),
    (
        "moved extensions",
        lambda: MoveIn("a", 1, ("x",), ONLINE, 0, 1, extensions=-1),
        "extensions: -1; expected an integer from 0 to 100",
    ),
    ("leaving", lambda: RemoveApplicant("a", applicant="b c"), "applicant: not a valid id"),
    ("leaving missing", lambda: RemoveApplicant("a"), "applicant: an empty id"),
    ("replaced id", lambda: ReplaceApplicant("", "x", "y"), "id: an empty id"),
    ("replaced", lambda: ReplaceApplicant("a", "", "y"), "applicant: an empty id"),
    ("replacement", lambda: ReplaceApplicant("a", "x", "~"), "replacement: not a valid id"),
    ("replacement same", lambda: ReplaceApplicant("a", "x", "x"), "replacement: the same applicant"),
    ("replacement version", lambda: ReplaceApplicant("a", "x", "y", -1), "expected_version: -1"),
    ("replacement until", lambda: ReplaceApplicant("a", "x", "y", 0, -1), "valid_until_ms: -1"),
    ("move id", lambda: Reschedule("", 1, ONLINE), "id: an empty id"),
    ("move day", lambda: Reschedule("a", 0, ONLINE), "day: 0"),
    ("move owner", lambda: Reschedule("a", 1, ONLINE, owner="~"), "owner"),
    (
        "move version",
        lambda: Reschedule("a", 1, ONLINE, expected_version=HUGE),
        "expected_version: an integer of more than 48 bits",
    ),
    ("day huge", lambda: CloseDay(HUGE), "day: an integer of more than 48 bits"),
    ("day type", lambda: OpenDay("2026-12-01"), "day: a str; expected an integer"),  # type: ignore[arg-type]
    ("day float", lambda: OpenDay(1.5), "day: 1.5"),  # type: ignore[arg-type]
    ("limit", lambda: Expire(1, 0), "limit: 0"),
    ("capacity negative", lambda: SetCapacity(1, "q", -1), "capacity: -1; expected an integer from 0 to 10000000"),
    ("capacity huge", lambda: SetCapacity(1, "q", 10**9), "capacity: 1000000000"),
    ("quota", lambda: ReallocateUnused(1, "a b"), "quota: not a valid id"),
    ("parked", lambda: ReleaseParked(0, "q"), "day: 0"),
    ("publish", lambda: Publish(0, terms()), "day: 0"),
    ("reserve id", lambda: Reserve("a b", 1, ("x",), ONLINE).check(), "id: not a valid id"),
    ("reserve day", lambda: Reserve("a", 0, ("x",), ONLINE).check(), "day: 0"),
    ("reserve ttl", lambda: Reserve("a", 1, ("x",), ONLINE, hold_ttl_ms=-1).check(), "hold_ttl_ms: -1"),
    ("last moment", lambda: Reserve("a", 1, ("x",), ONLINE, valid_until_ms=-1).check(), "valid_until_ms: -1"),
    ("confirm last moment", lambda: Confirm("a", valid_until_ms=HUGE), "valid_until_ms: an integer of more than"),
    ("move in id", lambda: MoveIn("", 1, ("x",), ONLINE, 0, 1), "id: an empty id"),
    ("move in day", lambda: MoveIn("a", 0, ("x",), ONLINE, 0, 1), "day: 0"),
    ("move in nobody", lambda: MoveIn("a", 1, (), ONLINE, 0, 1), "applicants: 0 applicants"),
    ("move in twice", lambda: MoveIn("a", 1, ("x", "x"), ONLINE, 0, 1), "applicants: one applicant twice"),
    ("move in deadline", lambda: MoveIn("a", 1, ("x",), ONLINE, -1, 1), "deadline_at_ms: -1"),
    ("move in moves", lambda: MoveIn("a", 1, ("x",), ONLINE, 0, 0), "moves: 0"),
    ("move in last moment", lambda: MoveIn("a", 1, ("x",), ONLINE, 0, 1, -1), "valid_until_ms: -1"),
    ("move out", lambda: MoveOut("a b"), "id: not a valid id"),
    ("prepare", lambda: PrepareMove("a", expected_version=-1), "expected_version: -1"),
    ("nobody", lambda: Reserve("a", 1, (), ONLINE).check(), "applicants: 0 applicants; expected 1 to 100"),
    ("a crowd", lambda: Reserve("a", 1, tuple(map(str, range(101))), ONLINE).check(), "applicants: 101 applicants"),
    ("twice", lambda: Reserve("a", 1, ("x", "x"), ONLINE).check(), "applicants: one applicant twice"),
    ("applicant", lambda: Reserve("a", 1, ("x y",), ONLINE).check(), "applicants: not a valid id"),
    ("no option", lambda: choice(), "choice.options: 0 alternatives; expected 1 to 16"),
    ("many options", lambda: choice(*[("q",)] * 17), "choice.options: 17 alternatives"),
    ("empty option", lambda: choice(()), "choice.options: an alternative of 0 quotas"),
    ("double option", lambda: choice(("q", "q")), "choice.options: an alternative of 2 quotas"),
    ("option name", lambda: choice(("q q",)), "choice.options: not a valid id"),
    ("service name", lambda: Choice("a b", "", "", "", "", (("q",),)), "choice.service: not a valid id"),
    ("no quota", lambda: DayTerms(0, 0, 0, 0, ()), "day.quotas: 0 quotas"),
    ("times", lambda: DayTerms(5, 0, 4, 9, (QuotaTerms("q", 1),)), "day: times out of order"),
    ("time", lambda: DayTerms(-1, 0, 4, 9, (QuotaTerms("q", 1),)), "opens_at_ms: -1"),
    (
        "quota twice",
        lambda: DayTerms(0, 0, 0, 0, (QuotaTerms("q", 1),) * 2),
        "day.quotas: two quotas with the same name",
    ),
    (
        "same session",
        lambda: DayTerms(0, 0, 9, 9, (QuotaTerms("q", 1),), (SessionTerms("am", 5, 5),) * 2),
        "day.sessions: 2 sessions; expected at most 256, with different names",
    ),
    (
        "session after the day",
        lambda: DayTerms(0, 0, 9, 9, (QuotaTerms("q", 1),), (SessionTerms("am", 10, 5),)),
        "session am: ends_at_ms: after the end of the day",
    ),
    ("booking after the session", lambda: SessionTerms("am", 5, 6), "session am: book_until_ms: 6"),
    (
        "former name in use",
        lambda: DayTerms(0, 0, 9, 9, (QuotaTerms("q", 1), QuotaTerms("r", 1, renamed_from="q"))),
        "day.quotas: a renamed_from that is a quota",
    ),
    (
        "former name twice",
        lambda: DayTerms(0, 0, 9, 9, tuple(QuotaTerms(name, 1, renamed_from="old") for name in "qr")),
        "or is given twice",
    ),
    ("scope", lambda: GuardScope(session="a b"), "guard.session"),
    (
        "reallocates to itself",
        lambda: DayTerms(0, 0, 0, 0, (QuotaTerms("q", 1, reallocation=Reallocation("q", 0)),)),
        "reallocation.to: 'q'",
    ),
    (
        "reallocates in a cycle",
        lambda: DayTerms(
            0,
            0,
            0,
            0,
            (
                QuotaTerms("a", 1, reallocation=Reallocation("b", 0)),
                QuotaTerms("b", 1, reallocation=Reallocation("a", 0)),
            ),
        ),
        "quota a: reallocation.to: 'b'; expected another quota of the same day that reallocates nothing itself",
    ),
    ("quota capacity", lambda: QuotaTerms("q", -1), "quota q: capacity: -1"),
    ("cooling", lambda: ReRelease(cooling_ms=-1), "cooling_ms: -1"),
    ("jitter", lambda: ReRelease(jitter_ms=2**60), "jitter_ms"),
    ("a bound without a wait list", lambda: ReRelease(blocks_ms=5), "blocks_ms: 5 with the rule at_once"),
    ("span", lambda: IdentityLimit(1, -1), "identity_limit.span_days: -1"),
    ("places", lambda: IdentityLimit(0, 1), "identity_limit.places_max: 0"),
    ("ttl", lambda: Rules(hold_ttl_ms=0), "hold_ttl_ms: 0"),
    ("party", lambda: Rules(party_max=101), "party_max: 101"),
    ("limits", lambda: Rules(identity_limits=(IdentityLimit(1, 1),) * 9), "identity_limits: 9 limits"),
    ("seed", lambda: Rules(jitter_seed="x" * 129), "jitter_seed: not a valid id"),
    ("block", lambda: Rules(no_show_block_ms=-5), "no_show_block_ms: -5"),
    ("key type", lambda: Pseudonyms("k" * 32), "identity_key: not a usable key"),  # type: ignore[arg-type]
    ("key short", lambda: Pseudonyms(b"k"), "16 to 64 secret bytes"),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_malformed_value_is_refused(make: Callable[[], object], message: str) -> None:
    """``InvalidRequest`` names the field, the problem and a valid value."""
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert message in str(caught.value)
    assert caught.value.expected


def test_values_at_the_limits_are_accepted() -> None:
    Reserve("a-Z_9" + "x" * 59, 1, tuple(f"x{one}" for one in range(100)), ONLINE, hold_ttl_ms=1).check()
    Confirm("a", owner="b", expected_version=2**31)
    assert RULES.party_max == 3


def test_an_unknown_name_is_a_key_error_with_a_readable_message() -> None:
    error = UnknownName("office", "'x' is not in the catalog", "one of 'a'")
    assert isinstance(error, KeyError)
    assert str(error) == "office: 'x' is not in the catalog; expected one of 'a'"


def test_a_catalog_error_prints_one_line_per_issue() -> None:
    error = CatalogError((ValidationIssue("a.toml", "x", "1", "2"), ValidationIssue("a.toml", "y", "3", "4")))
    assert str(error) == "a.toml: x: 1; expected 2\na.toml: y: 3; expected 4"
