"""Oracle of waiting rooms, written from ``docs/rules.md``.

It keeps no counters, and computes everything from lists of past commands. It shares the commands with the library, but
none of its rules.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

from quota_engine.domain.epochs import AdvanceEpoch
from quota_engine.waiting_room.commands import (
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
    """One room.

    ``joins`` lists applicant, time and epoch of each ticket. ``calls`` lists time, called count and places left of each
    call. ``epochs`` lists each epoch with the tickets at its start.
    """

    config: RoomConfig | None = None
    last_change_ms: int = 0
    joins: list[tuple[str, int, int]] = dataclasses.field(default_factory=list)
    seed: str = ""
    entropy: str = ""
    opened_at_ms: int = 0
    closed_at_ms: int = 0
    closing_seed: str = ""
    last_step_ms: int = 0
    pace: int = 0
    tokens: int = 0
    places_left: int = -1
    calls: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    dropped_through_ms: int = -1
    paces: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    epochs: list[tuple[int, int]] = dataclasses.field(default_factory=lambda: [(1, 0)])

    def window(self, at_ms: int) -> int:
        """Return the window at a moment."""
        assert self.config is not None
        window, end_ms = 0, self.config.opens_at_ms
        while end_ms <= at_ms:
            window, end_ms = window + 1, end_ms + self.config.window_ms
        return window

    def ordered(self, at_ms: int) -> int:
        """Return the number of tickets with a position if the room changes at ``at_ms``."""
        if self.closed_at_ms:
            return len(self.joins)
        return sum(self.window(joined_ms) < self.window(at_ms) for _, joined_ms, _ in self.joins)

    def bounds(self) -> tuple[int, int]:
        """Return the bounds of the pace."""
        assert self.config is not None
        return self.paces[-1] if self.paces else (self.config.per_minute_min, self.config.per_minute_max)

    @property
    def called_count(self) -> int:
        """Tickets called so far."""
        return self.calls[-1][1] if self.calls else 0

    def windows(self) -> tuple[tuple[int, int], ...]:
        """Return the windows that have tickets, with the first ticket of each."""
        firsts: dict[int, int] = {}
        for index, (_, joined_ms, _) in enumerate(self.joins):
            firsts.setdefault(self.window(joined_ms), index)
        return tuple(firsts.items())

    def epoch_starts(self) -> tuple[tuple[int, int], ...]:
        """Return the epochs after the first with the tickets at their start, if the room gave a ticket in them."""
        given = {epoch for _, _, epoch in self.joins}
        return tuple(
            (epoch, start) for epoch, start in self.epochs[1:] if epoch in given or epoch == self.epochs[-1][0]
        )

    def apply(self, command: RoomCommand, now_ms: int) -> tuple[str, int, bool, int]:
        """Apply a command. Return status, index, ``replayed`` and ``retry_at_ms``."""
        now_ms = max(now_ms, self.last_change_ms)
        if self.config is not None and self.config.forget_at_ms <= now_ms:
            self.__init__()  # type: ignore[misc]
        config = self.config
        if isinstance(command, CreateRoom):
            if config is not None:
                return ("DONE", -1, True, 0) if config == command.config else ("CONFLICT", -1, False, 0)
            if command.config.opens_at_ms <= now_ms:
                return "ROOM_CLOSED", -1, False, 0
            self.config, self.last_change_ms = command.config, now_ms
            return "DONE", -1, False, 0
        if config is None:
            return "NOT_FOUND", -1, False, 0
        closed = self.closed_at_ms > 0 or config.closes_at_ms <= now_ms
        match command:
            case JoinRoom(applicant, replaces_ticket, replaces_epoch):
                mine = [(index, epoch) for index, (one, _, epoch) in enumerate(self.joins) if one == applicant]
                if mine and mine[-1] != (replaces_ticket, replaces_epoch):
                    return "JOINED", mine[-1][0], True, 0
                if closed:
                    return "ROOM_CLOSED", -1, False, 0
                if now_ms < config.join_opens_at_ms:
                    return "NOT_OPEN", -1, False, config.join_opens_at_ms
                if len(self.joins) >= config.tickets_max:
                    return "FULL", -1, False, 0
                self.joins.append((applicant, now_ms, self.epochs[-1][0]))
                self.last_change_ms = now_ms
                return "JOINED", len(self.joins) - 1, False, 0
            case OpenRoom(seed, entropy, epoch):
                if _sha("commitment", seed) != config.commitment or (entropy == "") != (config.entropy_source == ""):
                    return "CONFLICT", -1, False, 0
                if self.opened_at_ms:
                    return ("DONE", -1, True, 0) if entropy == self.entropy else ("CONFLICT", -1, False, 0)
                if closed:
                    return "ROOM_CLOSED", -1, False, 0
                if now_ms < config.opens_at_ms:
                    return "NOT_OPEN", -1, False, config.opens_at_ms
                if config.entropy_source and max(epoch, 1) != self.epochs[-1][0]:
                    return "EPOCH_CHANGED", -1, False, 0
                self.seed, self.entropy, self.opened_at_ms, self.last_change_ms = seed, entropy, now_ms, now_ms
                self.pace, self.tokens, self.last_step_ms = self.bounds()[1], 0, now_ms - config.step_ms
                return "DONE", -1, False, 0
            case CallTickets(per_minute, tickets_max, places_left):
                if not self.opened_at_ms or closed or now_ms - self.last_step_ms < config.step_ms:
                    return "DONE", -1, False, 0
                low, high = self.bounds()
                burst = max(config.burst, math.ceil(high * config.step_ms / 60_000))
                tokens = min(60_000 * burst, self.tokens + (now_ms - self.last_step_ms) * self.pace)
                moves = min(tokens // 60_000, self.ordered(now_ms) - self.called_count, tickets_max)
                self.tokens = tokens - 60_000 * moves
                self.pace = sorted((low, per_minute, high))[1]
                self.places_left = self.places_left if places_left == -1 else places_left
                if moves:
                    self.calls.append((now_ms, self.called_count + moves, self.places_left))
                self.last_step_ms = self.last_change_ms = now_ms
                self.dropped_through_ms = now_ms - config.turn_ms
                return "DONE", -1, False, 0
            case SetPace(low, high):
                if closed:
                    return "ROOM_CLOSED", -1, False, 0
                if self.bounds() == (low, high):
                    return "DONE", -1, True, 0
                self.paces.append((low, high))
                self.last_change_ms = now_ms
                self.tokens = min(self.tokens, 60_000 * max(config.burst, math.ceil(high * config.step_ms / 60_000)))
                if self.opened_at_ms:
                    self.pace = sorted((low, self.pace, high))[1]
                return "DONE", -1, False, 0
            case AdvanceEpoch(epoch_min):
                self.epochs.append((max(self.epochs[-1][0], epoch_min) + 1, len(self.joins)))
                return "DONE", -1, False, 0
            case CloseRoom(closing_seed):
                if _sha("commitment", _sha("seed", closing_seed)) != config.commitment:
                    return "CONFLICT", -1, False, 0
                if self.closed_at_ms:
                    return "DONE", -1, True, 0
                self.closed_at_ms, self.last_change_ms, self.closing_seed = now_ms, now_ms, closing_seed
                return "DONE", -1, False, 0

    def description(self) -> dict[str, object]:
        """Return the state in the form of ``quota_engine.waiting_room.machine.describe``."""
        if self.config is None:
            return {}
        dropped = [called_count for at_ms, called_count, _ in self.calls if at_ms <= self.dropped_through_ms]
        latest = {applicant: index for index, (applicant, _, _) in enumerate(self.joins)}
        return {
            "now_ms": self.last_change_ms,
            "changed_at_ms": self.last_change_ms,
            "config": self.config,
            "tickets": len(self.joins),
            "windows": self.windows(),
            "seed": self.seed,
            "entropy": self.entropy,
            "opened_at_ms": self.opened_at_ms,
            "called_count": self.called_count,
            "turns_ended": max(dropped, default=0),
            "calls": tuple(call for call in self.calls if call[0] > self.dropped_through_ms),
            "tokens": self.tokens,
            "per_minute": self.pace,
            "last_step_at_ms": self.last_step_ms,
            "places_left": self.places_left,
            "closed_at_ms": self.closed_at_ms,
            "closing_seed": self.closing_seed,
            "pace_min": self.paces[-1][0] if self.paces else 0,
            "pace_max": self.paces[-1][1] if self.paces else 0,
            "epoch": self.epochs[-1][0],
            "epoch_starts": self.epoch_starts(),
            "identities": dict(sorted(latest.items())),
        }
