"""Penalties of applicants: the end of a block, and the recent ends that may lead to one."""

from __future__ import annotations

__all__ = ["NoShowBlock", "PenaltyRecord", "abandoned_holds_left", "update_penalties"]

from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.domain.lifecycle import Verb
from quota_engine.domain.model import ABANDONED_HOLDS_MAX, CANCELLATIONS_MAX, Reservation, Rules

_CANCEL: Final = Verb.CANCEL  # reading a member of the class costs as much as a call
_MARK_NO_SHOW: Final = Verb.MARK_NO_SHOW


class NoShowBlock(msgspec.Struct, frozen=True, gc=False):
    """A block that ends early if its no-show is undone.

    Attributes:
        reservation_id: the reservation that is a no-show.
        undo_until_ms: when the no-show can no longer be undone, milliseconds since 1970 (UTC).
        until_ms: the end of the block, milliseconds since 1970 (UTC).
    """

    reservation_id: str
    undo_until_ms: int
    until_ms: int


class PenaltyRecord(msgspec.Struct, frozen=True, gc=False):
    """An applicant's recent cancellations, the end of the current block, and the recent ends of abandoned holds.

    ``abandoned_at_ms`` ascends, even if a sweep finds an older overdue hold later. ``no_show_blocks`` are those that
    can still be undone, and ``other_block_until_ms`` is the end of the block without them; 0 if there are none.
    """

    cancelled_at_ms: tuple[int, ...] = ()
    blocked_until_ms: int = 0
    abandoned_at_ms: tuple[int, ...] = ()
    no_show_blocks: tuple[NoShowBlock, ...] = ()
    other_block_until_ms: int = 0


_NO_PENALTIES: Final = PenaltyRecord()


def update_penalties(
    penalties: dict[str, PenaltyRecord],
    reservation: Reservation,
    applicants: Sequence[str],
    verb: Verb,
    at_ms: int,
    ended_at_ms: int,
    rules: Rules,
) -> int:
    """Update the penalties of some applicants after a step of their reservation.

    Args:
        penalties: the office's penalties by applicant, in order of the last change; changed in place.
        reservation: the reservation after the step.
        applicants: those of its applicants whom the step concerns.
        verb: cancel, mark no-show, undo a no-show, reacquire; or release or expire, if they end a hold.
        at_ms: the time of the step, milliseconds since 1970 (UTC).
        ended_at_ms: the end of the hold: its deadline if it expired, otherwise the time of the step.
        rules: the office's rules.

    Returns:
        The number of applicants who are blocked longer than before.
    """
    blocks = 0
    for applicant in applicants:
        old = penalties.pop(applicant, _NO_PENALTIES)
        new = _updated(old, verb, at_ms, ended_at_ms, rules, reservation)
        blocks += new.blocked_until_ms > old.blocked_until_ms
        if new.blocked_until_ms > at_ms or new.cancelled_at_ms or new.abandoned_at_ms:
            penalties[applicant] = new
    # Two removals per written entry keep outdated entries bounded.
    for _ in range(2 * len(applicants)):
        applicant = next(iter(penalties), "")
        if applicant not in penalties or not _is_outdated(penalties[applicant], at_ms, rules):
            break
        del penalties[applicant]
    return blocks


def _updated(
    old: PenaltyRecord, verb: Verb, at_ms: int, ended_at_ms: int, rules: Rules, reservation: Reservation
) -> PenaltyRecord:
    cancelled_at_ms, abandoned_at_ms, blocks = old.cancelled_at_ms, old.abandoned_at_ms, old.no_show_blocks
    other_until_ms = old.other_block_until_ms if blocks else old.blocked_until_ms
    if verb is _CANCEL or verb is _MARK_NO_SHOW:
        window_start_ms = at_ms - rules.cancellations_window_ms
        cancelled_at_ms = tuple(time_ms for time_ms in cancelled_at_ms if time_ms > window_start_ms)
    if verb is _CANCEL:
        # One more than the highest limit is enough to decide under any limit that is set later.
        cancelled_at_ms = (*cancelled_at_ms, at_ms)[-(CANCELLATIONS_MAX + 1) :]
        if 0 < rules.cancellations_max < len(cancelled_at_ms):
            other_until_ms = max(other_until_ms, at_ms + rules.cancellations_block_ms)
    elif verb is _MARK_NO_SHOW:
        if rules.no_show_block_ms:
            block = NoShowBlock(reservation.id, reservation.undo_until_ms, at_ms + rules.no_show_block_ms)
            blocks = (*blocks, block)
    elif verb is Verb.UNDO_ATTENDANCE:
        blocks = tuple(one for one in blocks if one.reservation_id != reservation.id)
    elif verb is Verb.REACQUIRE:
        if ended_at_ms in abandoned_at_ms:
            index = abandoned_at_ms.index(ended_at_ms)
            abandoned_at_ms = abandoned_at_ms[:index] + abandoned_at_ms[index + 1 :]
    else:
        forgotten_ms = at_ms - _remembered_ms(rules)
        known = (time_ms for time_ms in abandoned_at_ms if time_ms > forgotten_ms)
        abandoned_at_ms = tuple(sorted((*known, ended_at_ms)))[-(ABANDONED_HOLDS_MAX + 1) :]
        other_until_ms = max(other_until_ms, _abandonment_block_ms(abandoned_at_ms, ended_at_ms, rules))
    if blocks:
        final_ms = (one.until_ms for one in blocks if one.undo_until_ms <= at_ms)
        other_until_ms = max(other_until_ms, *final_ms, 0)
        blocks = tuple(one for one in blocks if one.undo_until_ms > at_ms)
    if not blocks:
        return PenaltyRecord(cancelled_at_ms, other_until_ms, abandoned_at_ms)
    blocked_until_ms = max(other_until_ms, *(one.until_ms for one in blocks))
    return PenaltyRecord(cancelled_at_ms, blocked_until_ms, abandoned_at_ms, blocks, other_until_ms)


def _remembered_ms(rules: Rules) -> int:
    """Return how long the end of an abandoned hold matters.

    A sweep may find an older overdue hold later. Its block is over after ``abandoned_holds_block_ms``, and only ends
    within the window before it count.
    """
    return rules.abandoned_holds_window_ms + rules.abandoned_holds_block_ms


def _abandonment_block_ms(ends_ms: tuple[int, ...], from_ms: int, rules: Rules) -> int:
    """Return the end of the latest block that an end at ``from_ms`` or later leads to, or 0."""
    for index in range(len(ends_ms) - 1, rules.abandoned_holds_max - 1, -1):
        end_ms = ends_ms[index]
        if end_ms < from_ms:
            return 0
        if ends_ms[index - rules.abandoned_holds_max] > end_ms - rules.abandoned_holds_window_ms:
            return end_ms + rules.abandoned_holds_block_ms
    return 0


def _is_outdated(record: PenaltyRecord, at_ms: int, rules: Rules) -> bool:
    """Return True if the record can affect no outcome from ``at_ms`` (milliseconds since 1970) on."""
    return (
        record.blocked_until_ms <= at_ms
        and record.cancelled_at_ms[-1:] <= (at_ms - rules.cancellations_window_ms,)
        and record.abandoned_at_ms[-1:] <= (at_ms - _remembered_ms(rules),)
    )


def abandoned_holds_left(record: PenaltyRecord, now_ms: int, rules: Rules) -> int | None:
    """Return how many more holds the applicant may abandon before one of them leads to a block.

    Returns:
        The number, 0 or more; ``None`` if no abandoned hold lies within the window that ends at ``now_ms``.
    """
    window_start_ms = now_ms - rules.abandoned_holds_window_ms
    count = sum(window_start_ms < end_ms <= now_ms for end_ms in record.abandoned_at_ms)
    return max(0, rules.abandoned_holds_max - count) if count else None
