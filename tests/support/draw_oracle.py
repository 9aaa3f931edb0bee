"""Oracle of draw ledgers, written from ``docs/rules.md`` with lists instead of indexes."""

from __future__ import annotations

import dataclasses

from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.draws.commands import (
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
"""Status, number, version and ``replayed``. The epoch of an application is in its entry."""


@dataclasses.dataclass
class Entry:
    """An application. ``lead`` is the applicant who owns its number."""

    lead: str
    number: int
    version: int = 0
    epoch: int = 0
    party: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()


class DrawOracle:
    """Applies the commands of a draw."""

    def __init__(self, draw: str) -> None:
        self.draw = draw
        self.clock_ms = 0
        self.begin(None)

    def begin(self, config: DrawConfig | None) -> None:
        self.config = config
        self.entries: list[Entry] = []
        self.epoch = 1
        self.phase = 0  # 1 closed, 2 frozen, 3 revealed
        self.frozen: tuple[int, str, str] | None = None
        self.revealed: str | None = None
        self.days: list[tuple[str, int, Row]] = []

    def apply(self, command: DrawCommand, now_ms: int) -> Answer:
        """Apply a command and return its result."""
        now_ms = max(now_ms, self.clock_ms)
        answer = self._dispatch(command, now_ms)
        is_change = not answer[3] and not isinstance(command, AdvanceEpoch)
        if answer[0] in ("APPLIED", "WITHDRAWN", "DONE") and is_change:
            self.clock_ms = now_ms
        return answer

    def _dispatch(self, command: DrawCommand, now_ms: int) -> Answer:
        config = self.config if self.config is not None and now_ms < self.config.forget_at_ms else None
        if isinstance(command, CreateDraw):
            if config is not None:
                return ("DONE", 0, 0, True) if command.config == config else ("CONFLICT", 0, 0, False)
            if now_ms >= command.config.forget_at_ms:
                return "DRAW_OVER", 0, 0, False
            self.begin(command.config)
            return "DONE", 0, 0, False
        if config is None:
            return "UNKNOWN_DRAW", 0, 0, False
        if isinstance(command, SubmitApplication | WithdrawApplication):
            if now_ms < config.opens_at_ms:
                return "NOT_OPEN", 0, 0, False
            if now_ms >= config.closes_at_ms:
                return "APPLICATIONS_CLOSED", 0, 0, False
            return self._submit(command, config) if isinstance(command, SubmitApplication) else self._withdraw(command)
        return self._operate(command, config, now_ms)

    def _submit(self, command: SubmitApplication, config: DrawConfig) -> Answer:
        if len(command.applicants) > config.party_max:
            return "PARTY_TOO_LARGE", 0, 0, False
        if len(command.preferences) > config.choices_max:
            return "TOO_MANY_CHOICES", 0, 0, False
        if any(
            preference.day not in range(config.first_day, config.last_day + 1) for preference in command.preferences
        ):
            return "NOT_IN_DRAW", 0, 0, False
        lead = command.applicants[0]
        entry = next((one for one in self.entries if one.lead == lead), None)
        for other in self.entries:
            if other is not entry and set(other.party) & set(command.applicants):
                return "ALREADY_APPLIED", 0, 0, False
        if entry is None:
            if command.expected_version:
                return self._wrong_version(None, command)
            if len(self.entries) == config.applications_max:
                return "DRAW_FULL", 0, 0, False
            entry = Entry(lead, len(self.entries) + 1)
            self.entries.append(entry)
        elif (entry.party, entry.preferences) == (command.applicants, command.preferences):
            return "APPLIED", entry.number, entry.version, True
        elif not self._is_expected(entry, command):
            return self._wrong_version(entry, command)
        entry.version, entry.party, entry.preferences = entry.version + 1, command.applicants, command.preferences
        entry.epoch = self.epoch
        return "APPLIED", entry.number, entry.version, False

    def _withdraw(self, command: WithdrawApplication) -> Answer:
        entry = next((one for one in self.entries if command.applicant in one.party), None)
        if entry is None:
            own = next((one for one in self.entries if one.lead == command.applicant), None)
            if own is not None and not own.party and own.version == command.expected_version + 1:
                return "WITHDRAWN", own.number, own.version, True
            answer = self._wrong_version(None, command)
            return answer if answer[0] == "APPLICATION_LOST" else ("NOT_FOUND", 0, 0, False)
        if not self._is_expected(entry, command):
            return self._wrong_version(entry, command)
        entry.version, entry.party, entry.preferences = entry.version + 1, (), ()
        entry.epoch = self.epoch
        return "WITHDRAWN", entry.number, entry.version, False

    @staticmethod
    def _is_expected(entry: Entry, command: SubmitApplication | WithdrawApplication) -> bool:
        if entry.version != command.expected_version:
            return False
        return command.expected_epoch in (0, entry.epoch) or entry.version == 0

    def _wrong_version(self, entry: Entry | None, command: SubmitApplication | WithdrawApplication) -> Answer:
        """Return the refusal of a command whose version the draw does not have."""
        number, version = (0, 0) if entry is None else (entry.number, entry.version)
        names_epoch = command.expected_epoch > 0
        of_another_epoch = command.expected_epoch != self.epoch
        is_later = command.expected_version > version and of_another_epoch
        lost = names_epoch and (is_later or command.expected_version == version)
        return "APPLICATION_LOST" if lost else "STALE", number, version, False

    def _operate(self, command: DrawCommand, config: DrawConfig, now_ms: int) -> Answer:
        again = "DONE", 0, 0, True
        if isinstance(command, AdvanceEpoch):
            self.epoch = max(self.epoch, command.epoch_min) + 1
        elif isinstance(command, CloseDraw):
            if now_ms < config.closes_at_ms:
                return "STILL_OPEN", 0, 0, False
            if self.phase:
                return again
            self.phase = 1
        elif isinstance(command, OfferDay):
            if self.phase == 0:
                return "NOT_CLOSED", 0, 0, False
            if any((office, day) == (command.office, command.day) for office, day, _ in self.days):
                return again
            if self.phase > 1:
                return "FROZEN", 0, 0, False
            if command.day not in range(config.first_day, config.last_day + 1):
                return "NOT_IN_DRAW", 0, 0, False
            self.days.append((command.office, command.day, command.quotas))
        elif isinstance(command, FreezeDraw):
            if self.phase == 0:
                return "NOT_CLOSED", 0, 0, False
            if self.frozen is not None:
                return (
                    again
                    if self.frozen == (command.applications, command.applications_digest, command.capacities_digest)
                    else ("CONFLICT", 0, 0, False)
                )
            if command.applications != sum(bool(one.party) for one in self.entries):
                return "CONFLICT", 0, 0, False
            if max(command.epoch, 1) != self.epoch:
                return "EPOCH_CHANGED", 0, 0, False
            self.frozen, self.phase = (command.applications, command.applications_digest, command.capacities_digest), 2
        elif isinstance(command, RevealSeed):
            if self.phase < 2:
                return "NOT_FROZEN", 0, 0, False
            if commitment_of(self.draw, command.seed) != config.commitment:
                return "CONFLICT", 0, 0, False
            if (command.entropy == "") is not (config.entropy_source == ""):
                return "CONFLICT", 0, 0, False
            if self.revealed is not None:
                return again if self.revealed == command.entropy else ("CONFLICT", 0, 0, False)
            if max(command.epoch, 1) != self.epoch:
                return "EPOCH_CHANGED", 0, 0, False
            self.revealed, self.phase = command.entropy, 3
        return "DONE", 0, 0, False
