"""A second opinion on draw ledgers: what docs/rules.md says of them, by looking through lists."""

from __future__ import annotations

import dataclasses

from quota_engine.draws.ledger import (
    CloseDraw,
    CreateDraw,
    DrawCommand,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    Row,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.lottery import Preference, commitment_of

Answer = tuple[str, int, int, bool]
"""Status, number, version, replayed."""


@dataclasses.dataclass
class Entry:
    """An application by its number; ``lead`` is whose number it is."""

    lead: str
    number: int
    version: int = 0
    party: tuple[str, ...] = ()
    wishes: tuple[Preference, ...] = ()


class DrawOracle:
    """Takes the same commands."""

    def __init__(self, draw: str) -> None:
        self.draw = draw
        self.clock_ms = 0
        self.begin(None)

    def begin(self, terms: DrawConfig | None) -> None:
        self.terms = terms
        self.entries: list[Entry] = []
        self.stage = 0  # 1 closed, 2 frozen, 3 revealed
        self.frozen: FreezeDraw | None = None
        self.revealed: RevealSeed | None = None
        self.days: list[tuple[str, int, Row]] = []

    def take(self, command: DrawCommand, now_ms: int) -> Answer:
        """The answer; changes only what the answer says."""
        now_ms = max(now_ms, self.clock_ms)
        answer = self._take(command, now_ms)
        if answer[0] in ("APPLIED", "WITHDRAWN", "DONE") and not answer[3]:
            self.clock_ms = now_ms
        return answer

    def _take(self, command: DrawCommand, now_ms: int) -> Answer:
        terms = self.terms if self.terms is not None and now_ms < self.terms.forget_at_ms else None
        if isinstance(command, CreateDraw):
            if terms is not None:
                return ("DONE", 0, 0, True) if command.config == terms else ("CONFLICT", 0, 0, False)
            if now_ms >= command.config.forget_at_ms:
                return "DRAW_OVER", 0, 0, False
            self.begin(command.config)
            return "DONE", 0, 0, False
        if terms is None:
            return "UNKNOWN_DRAW", 0, 0, False
        if isinstance(command, SubmitApplication | WithdrawApplication):
            if now_ms < terms.opens_at_ms:
                return "NOT_OPEN", 0, 0, False
            if now_ms >= terms.closes_at_ms:
                return "APPLICATIONS_CLOSED", 0, 0, False
            return self._apply(command, terms) if isinstance(command, SubmitApplication) else self._withdraw(command)
        return self._operate(command, terms, now_ms)

    def _apply(self, command: SubmitApplication, terms: DrawConfig) -> Answer:
        if len(command.applicants) > terms.party_max:
            return "PARTY_TOO_LARGE", 0, 0, False
        if len(command.preferences) > terms.choices_max:
            return "TOO_MANY_CHOICES", 0, 0, False
        if any(wish.day not in range(terms.first_day, terms.last_day + 1) for wish in command.preferences):
            return "NOT_IN_DRAW", 0, 0, False
        lead = command.applicants[0]
        entry = next((one for one in self.entries if one.lead == lead), None)
        for other in self.entries:
            if other is not entry and set(other.party) & set(command.applicants):
                return "ALREADY_APPLIED", 0, 0, False
        if entry is None:
            if command.expected_version:
                return "STALE", 0, 0, False
            if len(self.entries) == terms.applications_max:
                return "DRAW_FULL", 0, 0, False
            entry = Entry(lead, len(self.entries) + 1)
            self.entries.append(entry)
        elif (entry.party, entry.wishes) == (command.applicants, command.preferences):
            return "APPLIED", entry.number, entry.version, True
        elif entry.version != command.expected_version:
            return "STALE", entry.number, entry.version, False
        entry.version, entry.party, entry.wishes = entry.version + 1, command.applicants, command.preferences
        return "APPLIED", entry.number, entry.version, False

    def _withdraw(self, command: WithdrawApplication) -> Answer:
        entry = next((one for one in self.entries if command.applicant in one.party), None)
        if entry is None:
            own = next((one for one in self.entries if one.lead == command.applicant), None)
            if own is not None and not own.party and own.version == command.expected_version + 1:
                return "WITHDRAWN", own.number, own.version, True
            return "NOT_FOUND", 0, 0, False
        if entry.version != command.expected_version:
            return "STALE", entry.number, entry.version, False
        entry.version, entry.party, entry.wishes = entry.version + 1, (), ()
        return "WITHDRAWN", entry.number, entry.version, False

    def _operate(self, command: DrawCommand, terms: DrawConfig, now_ms: int) -> Answer:
        again = "DONE", 0, 0, True
        if isinstance(command, CloseDraw):
            if now_ms < terms.closes_at_ms:
                return "STILL_OPEN", 0, 0, False
            if self.stage:
                return again
            self.stage = 1
        elif isinstance(command, OfferDay):
            if self.stage == 0:
                return "NOT_CLOSED", 0, 0, False
            if any((office, day) == (command.office, command.day) for office, day, _ in self.days):
                return again
            if self.stage > 1:
                return "FROZEN", 0, 0, False
            if command.day not in range(terms.first_day, terms.last_day + 1):
                return "NOT_IN_DRAW", 0, 0, False
            self.days.append((command.office, command.day, command.quotas))
        elif isinstance(command, FreezeDraw):
            if self.stage == 0:
                return "NOT_CLOSED", 0, 0, False
            if self.frozen is not None:
                return again if self.frozen == command else ("CONFLICT", 0, 0, False)
            if command.applications != sum(bool(one.party) for one in self.entries):
                return "CONFLICT", 0, 0, False
            self.frozen, self.stage = command, 2
        elif isinstance(command, RevealSeed):
            if self.stage < 2:
                return "NOT_FROZEN", 0, 0, False
            if commitment_of(self.draw, command.seed) != terms.commitment:
                return "CONFLICT", 0, 0, False
            if (command.entropy == "") is not (terms.entropy_source == ""):
                return "CONFLICT", 0, 0, False
            if self.revealed is not None:
                return again if self.revealed == command else ("CONFLICT", 0, 0, False)
            self.revealed, self.stage = command, 3
        return "DONE", 0, 0, False
