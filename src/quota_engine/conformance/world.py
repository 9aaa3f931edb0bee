"""The small office of the conformance scenarios, and short names for its commands."""

from __future__ import annotations

__all__ = [
    "AFTERNOON",
    "BOOK_UNTIL_MS",
    "COOLING",
    "DAY",
    "DRAW",
    "FORGET_AT_MS",
    "HOLD_TTL_MS",
    "MORNING",
    "NEXT_DAY",
    "OFFICE",
    "ONLINE",
    "OPENS_AT_MS",
    "PRIORITY",
    "PUBLIC",
    "REALLOCATE_AT_MS",
    "RULES",
    "SESSION_ENDS_AT_MS",
    "STARTS_AT_MS",
    "applicant",
    "choice",
    "published",
    "reserve",
    "terms",
]

from typing import Final

from msgspec.structs import replace

from quota_engine.domain.commands import Command, Publish, Reserve, SetRules
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Rules,
    SessionTerms,
)

OFFICE: Final = "conformance"
DAY: Final = 740_000
NEXT_DAY: Final = DAY + 1
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

OPENS_AT_MS: Final = 1_000_000_000_000
STARTS_AT_MS: Final = OPENS_AT_MS + 7 * _DAY_MS
REALLOCATE_AT_MS: Final = OPENS_AT_MS + 5 * _DAY_MS
FORGET_AT_MS: Final = STARTS_AT_MS + 40 * _DAY_MS
HOLD_TTL_MS: Final = 15 * _MINUTE_MS
BOOK_UNTIL_MS: Final = STARTS_AT_MS + 2 * 60 * _MINUTE_MS
"""The end of booking of the morning session of :data:`DAY`. It ends an hour later, and the afternoon with the day."""
SESSION_ENDS_AT_MS: Final = BOOK_UNTIL_MS + 60 * _MINUTE_MS

RULES: Final = Rules(
    hold_ttl_ms=HOLD_TTL_MS,
    offer_ttl_ms=30 * _MINUTE_MS,
    party_max=3,
    identity_limits=(IdentityLimit(1, 1), IdentityLimit(2, 0)),
    no_show_block_ms=30 * _DAY_MS,
    cancellations_max=1,
    cancellations_window_ms=10 * _DAY_MS,
    cancellations_block_ms=20 * _DAY_MS,
    reschedules_max=1,
    wait_list_max=2,
    jitter_seed="conformance",
)


def terms(shift_days: int = 0, blocks_ms: int = 0) -> DayTerms:
    """Return a day with two sessions and one quota per re-release rule.

    Unused units of ``fast`` are reallocated to ``online``.

    Args:
        shift_days: how much later it takes place.
        blocks_ms: how long a party on the wait list blocks units of ``priority``; 0 for the order ``first_fit``.
    """
    shift_ms = shift_days * _DAY_MS
    ends_at_ms = STARTS_AT_MS + shift_ms + _DAY_MS // 2
    return DayTerms(
        OPENS_AT_MS,
        STARTS_AT_MS + shift_ms,
        ends_at_ms,
        FORGET_AT_MS + shift_ms,
        (
            QuotaTerms("online", 2),
            QuotaTerms("priority", 1, ReRelease(ReReleaseRule.WAIT_LIST, blocks_ms=blocks_ms)),
            QuotaTerms("slow", 1, ReRelease(ReReleaseRule.COOLING, 60 * _MINUTE_MS, 30 * _MINUTE_MS)),
            QuotaTerms("draw", 1, ReRelease(ReReleaseRule.NEXT_DRAW)),
            QuotaTerms("fast", 2, reallocation=Reallocation("online", REALLOCATE_AT_MS + shift_ms)),
            QuotaTerms("morning", 3),
        ),
        (
            SessionTerms("morning", SESSION_ENDS_AT_MS + shift_ms, BOOK_UNTIL_MS + shift_ms),
            SessionTerms("afternoon", ends_at_ms, ends_at_ms),
        ),
    )


def choice(*options: tuple[str, ...], session: str = "") -> Choice:
    """Return a choice with these options."""
    return Choice("passport", "", session, "online", "", options)


ONLINE: Final = choice(("online",))
PRIORITY: Final = choice(("priority",))
COOLING: Final = choice(("slow",))
DRAW: Final = choice(("draw",))
PUBLIC: Final = choice(("fast", "morning"), ("online", "morning"))
"""The fast quota if it has room, otherwise the online one, and in both cases the morning quota."""
MORNING: Final = choice(("priority",), session="morning")
AFTERNOON: Final = choice(("priority",), session="afternoon")


def applicant(name: str) -> str:
    """Return a string with the form of a keyed hash."""
    return f"{name}-".ljust(32, "0")


def reserve(key: str, wanted: Choice, *names: str, day: int = DAY, wait: bool = False) -> Reserve:
    """Return a reserve for these applicants, or for one with the name of the key."""
    return Reserve(key, day, tuple(applicant(name) for name in names or (key,)), wanted, wait)


def published(**rules: object) -> tuple[Command, ...]:
    """Return the commands that publish the office and two days, with changed rules."""
    changed: Rules = replace(RULES, **rules)
    return (SetRules(changed), Publish(DAY, terms()), Publish(NEXT_DAY, terms(1)))
