"""A second opinion on waiting rooms, written from ``docs/rules.md`` alone: nothing is counted, all is looked up in a
list of what has happened. It shares commands and answers with the library, and none of its rules.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

from quota_engine.waiting_room.machine import (
    CallTickets,
    CloseRoom,
    CreateRoom,
    JoinRoom,
    OpenRoom,
    RoomCommand,
    RoomConfig,
    SetPace,
)


def _sha(word: str, value: str) -> str:
    return hashlib.sha256(f"quota_engine room {word} 1\n{value}\n".encode()).hexdigest()


@dataclasses.dataclass
class Room:
    """One room. ``joins`` are the applicants and times of all tickets ever given, ``steps`` the times, marks, and calls
    of all steps.
    """

    terms: RoomConfig | None = None
    last_change_ms: int = 0
    joins: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    seed: str = ""
    entropy: str = ""
    opened_at_ms: int = 0
    closed_at_ms: int = 0
    closing_seed: str = ""
    last_step_ms: int = 0
    pace: int = 0
    tokens: int = 0
    left: int = -1
    calls: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    dropped_through_ms: int = -1
    paces: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    def window(self, at_ms: int) -> int:
        """The window of a moment."""
        assert self.terms is not None
        window, end_ms = 0, self.terms.opens_at_ms
        while end_ms <= at_ms:
            window, end_ms = window + 1, end_ms + self.terms.window_ms
        return window

    def ordered(self, at_ms: int) -> int:
        """How many tickets have a position, if the room changes at that time."""
        if self.closed_at_ms:
            return len(self.joins)
        return sum(self.window(joined_ms) < self.window(at_ms) for _, joined_ms in self.joins)

    def bounds(self) -> tuple[int, int]:
        """Between which the pace goes."""
        assert self.terms is not None
        return self.paces[-1] if self.paces else (self.terms.per_minute_min, self.terms.per_minute_max)

    @property
    def mark(self) -> int:
        """How many have been called."""
        return self.calls[-1][1] if self.calls else 0

    def windows(self) -> tuple[tuple[int, int], ...]:
        """The windows that have tickets, with the first of each."""
        firsts: dict[int, int] = {}
        for index, (_, joined_ms) in enumerate(self.joins):
            firsts.setdefault(self.window(joined_ms), index)
        return tuple(firsts.items())

    def apply(self, command: RoomCommand, now_ms: int) -> tuple[str, int, bool, int]:
        """Status, index, whether it was so before, and when to come again."""
        now_ms = max(now_ms, self.last_change_ms)
        if self.terms is not None and self.terms.forget_at_ms <= now_ms:
            self.__init__()  # type: ignore[misc]
        terms = self.terms
        if isinstance(command, CreateRoom):
            if terms is not None:
                return ("DONE", -1, True, 0) if terms == command.config else ("CONFLICT", -1, False, 0)
            if command.config.opens_at_ms <= now_ms:
                return "ROOM_CLOSED", -1, False, 0
            self.terms, self.last_change_ms = command.config, now_ms
            return "DONE", -1, False, 0
        if terms is None:
            return "NOT_FOUND", -1, False, 0
        over = self.closed_at_ms > 0 or terms.closes_at_ms <= now_ms
        match command:
            case JoinRoom(applicant, instead_of):
                mine = [index for index, (one, _) in enumerate(self.joins) if one == applicant]
                if mine and mine[-1] != instead_of:
                    return "JOINED", mine[-1], True, 0
                if over:
                    return "ROOM_CLOSED", -1, False, 0
                if now_ms < terms.join_opens_at_ms:
                    return "NOT_OPEN", -1, False, terms.join_opens_at_ms
                if len(self.joins) >= terms.tickets_max:
                    return "FULL", -1, False, 0
                self.joins.append((applicant, now_ms))
                self.last_change_ms = now_ms
                return "JOINED", len(self.joins) - 1, False, 0
            case OpenRoom(seed, entropy):
                if _sha("commitment", seed) != terms.commitment or (entropy == "") != (terms.entropy_source == ""):
                    return "CONFLICT", -1, False, 0
                if self.opened_at_ms:
                    return ("DONE", -1, True, 0) if entropy == self.entropy else ("CONFLICT", -1, False, 0)
                if over:
                    return "ROOM_CLOSED", -1, False, 0
                if now_ms < terms.opens_at_ms:
                    return "NOT_OPEN", -1, False, terms.opens_at_ms
                self.seed, self.entropy, self.opened_at_ms, self.last_change_ms = seed, entropy, now_ms, now_ms
                self.pace, self.tokens, self.last_step_ms = self.bounds()[1], 0, now_ms - terms.step_ms
                return "DONE", -1, False, 0
            case CallTickets(per_minute, call_max, left):
                if not self.opened_at_ms or over or now_ms - self.last_step_ms < terms.step_ms:
                    return "DONE", -1, False, 0
                low, high = self.bounds()
                burst = max(terms.burst, math.ceil(high * terms.step_ms / 60_000))
                tokens = min(60_000 * burst, self.tokens + (now_ms - self.last_step_ms) * self.pace)
                moves = min(tokens // 60_000, self.ordered(now_ms) - self.mark, call_max)
                self.tokens = tokens - 60_000 * moves
                self.pace = sorted((low, per_minute, high))[1]
                self.left = self.left if left == -1 else left
                if moves:
                    self.calls.append((now_ms, self.mark + moves, self.left))
                self.last_step_ms = self.last_change_ms = now_ms
                self.dropped_through_ms = now_ms - terms.turn_ms
                return "DONE", -1, False, 0
            case SetPace(low, high):
                if over:
                    return "ROOM_CLOSED", -1, False, 0
                if self.bounds() == (low, high):
                    return "DONE", -1, True, 0
                self.paces.append((low, high))
                self.last_change_ms = now_ms
                self.tokens = min(self.tokens, 60_000 * max(terms.burst, math.ceil(high * terms.step_ms / 60_000)))
                if self.opened_at_ms:
                    self.pace = sorted((low, self.pace, high))[1]
                return "DONE", -1, False, 0
            case CloseRoom(closing_seed):
                if _sha("commitment", _sha("seed", closing_seed)) != terms.commitment:
                    return "CONFLICT", -1, False, 0
                if self.closed_at_ms:
                    return "DONE", -1, True, 0
                self.closed_at_ms, self.last_change_ms, self.closing_seed = now_ms, now_ms, closing_seed
                return "DONE", -1, False, 0

    def description(self) -> dict[str, object]:
        """What ``quota_engine.waiting_room.machine.describe`` says."""
        if self.terms is None:
            return {}
        dropped = [mark for at_ms, mark, _ in self.calls if at_ms <= self.dropped_through_ms]
        latest = {applicant: index for index, (applicant, _) in enumerate(self.joins)}
        return {
            "now_ms": self.last_change_ms,
            "changed_at_ms": self.last_change_ms,
            "config": self.terms,
            "tickets": len(self.joins),
            "windows": self.windows(),
            "seed": self.seed,
            "entropy": self.entropy,
            "opened_at_ms": self.opened_at_ms,
            "called_count": self.mark,
            "turns_ended": max(dropped, default=0),
            "calls": tuple(call for call in self.calls if call[0] > self.dropped_through_ms),
            "tokens": self.tokens,
            "per_minute": self.pace,
            "last_step_at_ms": self.last_step_ms,
            "places_left": self.left,
            "closed_at_ms": self.closed_at_ms,
            "closing_seed": self.closing_seed,
            "pace_min": self.paces[-1][0] if self.paces else 0,
            "pace_max": self.paces[-1][1] if self.paces else 0,
            "identities": dict(sorted(latest.items())),
        }
