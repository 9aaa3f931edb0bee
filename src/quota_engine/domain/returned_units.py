"""Units that a reservation returns: the quota's re-release rule says when they become free."""

from __future__ import annotations

__all__ = ["ReturnedUnits", "split_returned_units"]

import hashlib
from typing import NamedTuple

from quota_engine.domain.ledger import Quota
from quota_engine.domain.model import ReReleaseRule, Reservation


class ReturnedUnits(NamedTuple):
    """The counters that returned units are added to. ``cooling`` includes ``parked``.

    ``due_at_ms`` is the end of the cooling time of the units that are not parked.
    """

    free: int
    cooling: int
    due_at_ms: int
    parked: int


def split_returned_units(
    quota: Quota, name: str, units: int, record: Reservation, at_ms: int, seed: str
) -> ReturnedUnits:
    """Split returned units by the quota's re-release rule.

    Units that reduce an overbooking become free at once. No applicant can reserve them, so they need no cooling time.

    Args:
        quota: the quota, before the units are returned.
        name: its name.
        units: the number of returned units, 1 or more.
        record: the new version of the reservation that returns them.
        at_ms: the time of the return, milliseconds since 1970 (UTC): for an expired hold its deadline.
        seed: the office's ``jitter_seed``.

    Returns:
        The split. The cooling time is ``cooling_ms`` plus the first 12 hex digits of
        ``sha1("{seed}:{id}:{version}:{name}")`` modulo ``jitter_ms + 1``. The Lua scripts use the same formula.
    """
    worked_off = min(units, max(0, -quota.free))
    rest = units - worked_off
    rule = quota.re_release
    if not rest or rule.rule in (ReReleaseRule.AT_ONCE, ReReleaseRule.WAIT_LIST):
        return ReturnedUnits(units, 0, 0, 0)
    if rule.rule is ReReleaseRule.NEXT_DRAW:
        return ReturnedUnits(worked_off, rest, 0, rest)
    digest = hashlib.sha1(f"{seed}:{record.id}:{record.version}:{name}".encode(), usedforsecurity=False).hexdigest()
    jitter_ms = int(digest[:12], 16) % (rule.jitter_ms + 1)
    return ReturnedUnits(worked_off, rest, at_ms + rule.cooling_ms + jitter_ms, 0)
