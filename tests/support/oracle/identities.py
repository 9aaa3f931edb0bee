"""Limits of identity, blocks and abandoned holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from msgspec.structs import replace

from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import IdentityLimit
from tests.support.oracle.records import Day, ExpectedOutcome, Record
from tests.support.oracle.units import Units


class Identities(Units):
    """An office that limits its applicants."""

    def _conflicting_claims(
        self, applicants: Iterable[str], day: Day, except_record: Record | None = None
    ) -> list[Record]:
        """Return the claims that use up a limit of one of the applicants, or an empty list."""
        conflicting = []
        for applicant in applicants:
            # A hundred claims at the office reach the limit under any rules.
            for limit in (IdentityLimit(100, 0), *self.rules.identity_limits):
                claims = [
                    record
                    for record in self.records.values()
                    if record is not except_record
                    and applicant in record.applicants
                    and record.is_claim(self.now_ms)
                    and not self.days[record.day].closed
                    and not self._waits_in_vain(record)
                    and (limit.span_days == 0 or abs(record.day - day.number) < limit.span_days)
                ]
                if len(claims) >= limit.places_max:
                    conflicting += claims
        return conflicting

    def _waits_in_vain(self, record: Record) -> bool:
        """Return True if the party waits for a day that is over, or for a session that can no longer be booked."""
        day = self.days[record.day]
        is_over = day.ends_at_ms <= self.now_ms or day.booking_ended(record.choice, self.now_ms)
        return record.state is State.WAITING and is_over

    def _blocked_until(self, applicants: Iterable[str]) -> int:
        """Return the end of the latest block of the applicants; 0 if none is blocked."""
        ends = [until_ms for who, until_ms, _ in self.blocks if who in applicants]
        return max((end for end in ends if self.now_ms < end), default=0)

    def _block(self, applicant: str, duration_ms: int, no_show: str = "") -> None:
        self.blocks.append((applicant, self.now_ms + duration_ms, no_show))

    def _block_if_cancelled_too_often(self, applicant: str) -> None:
        window_starts_at_ms = self.now_ms - self.rules.cancellations_window_ms
        # Cancellations outside the window are forgotten, even if the window becomes longer later.
        self.cancellations = [
            (who, at) for who, at in self.cancellations if who != applicant or at > window_starts_at_ms
        ]
        recent = [at_ms for who, at_ms in self.cancellations if who == applicant]
        if self.rules.cancellations_max and len(recent) > self.rules.cancellations_max:
            self._block(applicant, self.rules.cancellations_block_ms)

    def _abandon(self, record: Record, ended_at_ms: int, leaving: tuple[str, ...] = ()) -> None:
        """Count a hold that ended without a confirm."""
        counts, rules = self.abandoned_counts, self.rules
        if leaving:
            pass  # the hold continues without the applicant
        elif record.state is State.EXPIRED:
            self.abandoned_counts = replace(counts, expired=counts.expired + 1)
        else:
            self.abandoned_counts = replace(counts, released=counts.released + 1)
        if not rules.abandoned_holds_max:
            return
        # New lists, because the projection of a view shares the old ones.
        forgotten_ms = self.now_ms - rules.abandoned_holds_window_ms - rules.abandoned_holds_block_ms
        for applicant in leaving or record.applicants:
            kept = [(who, at) for who, at in self.abandoned if who != applicant or at > forgotten_ms]
            self.abandoned = [*kept, (applicant, ended_at_ms)]
            ends_ms = [at_ms for who, at_ms in self.abandoned if who == applicant]
            before_ms = max((until_ms for who, until_ms, _ in self.blocks if who == applicant), default=0)
            blocks_ms = [
                end_ms + rules.abandoned_holds_block_ms
                for end_ms in ends_ms
                if end_ms >= ended_at_ms
                and sum(end_ms - rules.abandoned_holds_window_ms < one <= end_ms for one in ends_ms)
                > rules.abandoned_holds_max
            ]
            self.blocks = [*self.blocks, *((applicant, until_ms, "") for until_ms in blocks_ms)]
            if max(blocks_ms, default=0) > before_ms:
                self.abandoned_counts = replace(self.abandoned_counts, blocks=self.abandoned_counts.blocks + 1)

    def _expire(self, record: Record, day: Day) -> None:
        self._step(record, State.EXPIRED)
        self._return_units(record, day, record.quotas, record.deadline_at_ms)
        if not day.closed:
            self._abandon(record, record.deadline_at_ms)

    def _expire_own_holds(self, applicants: Iterable[str]) -> None:
        """Expire the overdue holds of these applicants on all days, so that time decides about their block."""
        if not self.rules.abandoned_holds_max:
            return
        party = set(applicants)
        own = [record for record in self.records.values() if record.is_overdue(self.now_ms) and party & record.party]
        for record in sorted(own, key=lambda record: (record.deadline_at_ms, record.id)):
            self._expire(record, self.days[record.day])
        for number in sorted({record.day for record in own}):
            self._distribute(self.days[number])

    def _announce(self, expected: ExpectedOutcome, record: Record) -> ExpectedOutcome:
        """Add how many more holds the party may abandon, if one of them has abandoned any within the window."""
        limit = self.rules.abandoned_holds_max
        window_starts_at_ms = self.now_ms - self.rules.abandoned_holds_window_ms
        recent = [who for who, at_ms in self.abandoned if window_starts_at_ms < at_ms <= self.now_ms]
        counts = [recent.count(applicant) for applicant in record.applicants]
        if not limit or not any(counts):
            return expected
        left = max(limit - max(counts), 0)
        if record.state is State.HELD:
            block_ms = None if left else self.rules.abandoned_holds_block_ms
            return dataclasses.replace(expected, abandoned_holds_left=left, blocks_after_deadline_ms=block_ms)
        until_ms = self._blocked_until(record.applicants)
        return dataclasses.replace(expected, abandoned_holds_left=left, blocked_until_ms=until_ms)
