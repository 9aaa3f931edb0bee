"""Arguments that several calls take: days, moments, applicants and ids."""

from __future__ import annotations

__all__ = ["Applicants", "Day", "Moment", "day_number", "moment_ms", "random_id", "ticket_keys_from"]

import base64
import datetime
import hashlib
import os
from collections.abc import Sequence

from quota_engine.admission.tickets import TicketKeys
from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import TIME_MS_MAX, check_integer

Day = datetime.date | str | int
"""A date, an ISO date such as ``"2026-12-01"``, or a date's ordinal."""

Moment = int | str | datetime.datetime
"""Milliseconds since 1970 (UTC), or a time with its offset from UTC, such as ``2026-12-04T14:00:00+07:00``."""

Applicants = str | Sequence[str]
"""One identity, or a party of several, in clear. The request builder hashes them at once."""


def day_number(day: Day) -> int:
    """Return the ordinal of a day.

    Raises:
        InvalidRequest: no such date exists.
    """
    if type(day) is int:
        check_integer(day, "day", 1, DAY_MAX)
        return day
    if isinstance(day, datetime.date) and not isinstance(day, datetime.datetime):
        return day.toordinal()
    expected = "a date, an ISO date such as 2026-12-01, or a date's ordinal"
    if not isinstance(day, str):
        raise InvalidRequest("day", f"a {type(day).__name__}", expected)
    try:
        if len(day) != len("2026-12-01"):
            raise ValueError
        return datetime.date.fromisoformat(day).toordinal()
    except ValueError:
        raise InvalidRequest("day", "no date that exists", expected) from None


def moment_ms(moment: Moment, where: str) -> int:
    """Return a moment in milliseconds since 1970, UTC.

    Args:
        moment: the moment.
        where: the argument's name, for the error.

    Raises:
        InvalidRequest: the text is not a time, or lacks its offset from UTC.
    """
    expected = "milliseconds since 1970, or a time with its offset from UTC such as 2026-12-04T14:00:00+07:00"
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError:
            raise InvalidRequest(where, "no time that can be read", expected) from None
    if isinstance(moment, datetime.datetime):
        if moment.tzinfo is None:
            raise InvalidRequest(where, "a time without its offset from UTC", expected)
        moment = round(moment.timestamp() * 1_000)
    check_integer(moment, where, 0, TIME_MS_MAX)
    return moment


def random_id() -> str:
    """Return a new idempotency key: 128 random bits in 22 characters."""
    return base64.urlsafe_b64encode(os.urandom(16))[:22].decode()


def ticket_keys_from(identity_key: bytes) -> TicketKeys:
    """Derive the default keys of tickets and passes from the identity key."""
    derived = hashlib.blake2b(b"tickets", key=identity_key, digest_size=32, person=b"waiting rooms").digest()
    return TicketKeys("identity", {"identity": derived})
