"""The reservation rules: one command in, one outcome out, and the events that carry it out.

Theory of operation
===================

**State.** A :class:`~quota_engine.domain.ledger.Ledger` holds all state of one office. Only
:func:`~quota_engine.domain.event_handlers.evolve` changes its reservations and counters, one event at a time. Replaying
the events therefore rebuilds the ledger.

**Commands.** :func:`apply` looks up the handler of the command's type in :data:`HANDLERS`. Each handler works in two
phases, like a transaction:

1. It checks everything, in the order of :data:`~quota_engine.domain.outcomes.PRECEDENCE`. The first check that fails
   decides the status, and the handler returns a refusal. ``docs/rules.md`` lists the same checks in the same order.
2. After the line "From here on it must succeed" it only builds events and hands them to ``evolve``. Nothing after this
   line may refuse or raise.

**Transitions.** :data:`~quota_engine.domain.lifecycle.TRANSITIONS` lists every permitted step of a reservation. The
steps on one reservation and day (confirm, release, cancel, check-in, no-show and their undo, move-out, undo-move) share
one handler, :func:`~quota_engine.domain.reservation_steps.step`. They differ only in the data of :data:`HANDLERS`.

**Time.** Time is an argument and never runs backwards: a time before the ledger's last event counts as that event's
time. Deadlines decide, not the sweeper. A handler first *settles* the day it works on: it expires overdue holds,
releases cooled units, reallocates unused units and serves the wait list
(:mod:`~quota_engine.domain.inventory`). Settling is bounded, and no result depends on how far it came: a handler that
meets an overdue hold treats it as expired.

**Purity.** The same ledger, command and time give the same outcome and the same events. There is no I/O, no clock and
no randomness, so the Lua scripts and the SQL stores can be compared with this module step by step.
"""

from __future__ import annotations

__all__ = ["HANDLERS", "Handler", "apply", "apply_batch", "make_apply"]

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from quota_engine.domain.checks import (
    not_closed,
    not_over,
    not_over_unless_closed,
    session_not_over,
    started,
    undo_in_time,
)
from quota_engine.domain.commands import (
    Cancel,
    CheckIn,
    CloseDay,
    Command,
    Confirm,
    Decline,
    Expire,
    Extend,
    MarkNoShow,
    MoveIn,
    MoveOut,
    OpenDay,
    PrepareMove,
    Publish,
    ReallocateUnused,
    Release,
    ReleaseParked,
    RemoveApplicant,
    ReplaceApplicant,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
    Stay,
    UndoAttendance,
    UndoMove,
)
from quota_engine.domain.events import DayClosed, DayOpened
from quota_engine.domain.extension import extend
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.lifecycle import State, Verb
from quota_engine.domain.moves import move_in, prepare_move, reschedule, stay
from quota_engine.domain.operator_commands import (
    expire_day,
    reallocate_unused,
    release_parked,
    set_capacity,
    set_closed,
    set_rules,
    with_quota,
)
from quota_engine.domain.outcomes import Outcome
from quota_engine.domain.party_changes import remove_applicant, replace_applicant
from quota_engine.domain.publication import publish
from quota_engine.domain.reservation_steps import step
from quota_engine.domain.reserve_command import reserve
from quota_engine.domain.retention import forget_days

Handler = Callable[[Ledger, Any, int], Any]
"""Applies a command of one type. Its last argument is a time that is not before the ledger's last event."""

HANDLERS: Final[dict[type, Handler]] = {
    Reserve: reserve,
    Extend: extend,
    RemoveApplicant: remove_applicant,
    ReplaceApplicant: replace_applicant,
    Confirm: step(Verb.CONFIRM, State.CONFIRMED, not_closed, not_over, session_not_over),
    Release: step(Verb.RELEASE, State.RELEASED),
    Decline: step(Verb.DECLINE, State.WAITING, not_closed, not_over, session_not_over),
    Cancel: step(Verb.CANCEL, State.CANCELLED, not_over_unless_closed),
    CheckIn: step(Verb.CHECK_IN, State.ATTENDED, not_over, started),
    MarkNoShow: step(Verb.MARK_NO_SHOW, State.NO_SHOW, not_closed, started),
    UndoAttendance: step(Verb.UNDO_ATTENDANCE, State.CONFIRMED, undo_in_time),
    Reschedule: reschedule,
    Stay: stay,
    PrepareMove: prepare_move,
    MoveIn: move_in,
    MoveOut: step(Verb.MOVE_OUT, State.MOVED),
    UndoMove: step(Verb.UNDO_MOVE, State.RELEASED),
    Expire: expire_day,
    SetRules: set_rules,
    Publish: publish,
    SetCapacity: with_quota(set_capacity),
    CloseDay: set_closed(DayClosed),
    OpenDay: set_closed(DayOpened),
    ReallocateUnused: with_quota(reallocate_unused),
    ReleaseParked: with_quota(release_parked),
}
"""The handler of each command type."""


def make_apply(handlers: Mapping[type, Handler]) -> Handler:
    """Return an :func:`apply` for ``handlers``.

    Args:
        handlers: handler by command type. Higher layers pass :data:`HANDLERS` with their own commands added.
    """

    def apply(ledger: Ledger, command: Any, now_ms: int) -> Any:
        """Apply one command and return its outcome.

        A refusal is an outcome, not an exception. A refused command changes nothing except what is due by time alone
        (see :func:`~quota_engine.domain.inventory.settle`).

        Args:
            ledger: the office's ledger; changed in place.
            command: one of :data:`~quota_engine.domain.commands.Command`.
            now_ms: milliseconds since 1970, UTC. A time before the ledger's last event counts as that event's time.
                That event's time makes no day forgotten, because it may be wrong.

        Returns:
            The outcome. Its status is the first that applies in :data:`~quota_engine.domain.outcomes.PRECEDENCE`.

        Raises:
            KeyError: no handler for the command's type.
        """
        clock_ms = now_ms
        if now_ms < ledger.now_ms:
            now_ms = ledger.now_ms
        if clock_ms >= ledger.next_forget_ms:
            forget_days(ledger, clock_ms, now_ms)
        return handlers[type(command)](ledger, command, now_ms)

    return apply


apply: Final[Callable[[Ledger, Command, int], Outcome]] = make_apply(HANDLERS)


def apply_batch(ledger: Ledger, commands: Iterable[Command], now_ms: int) -> list[Outcome]:
    """Apply several commands at the same time and return their outcomes in order.

    Equal to calling :func:`apply` for one after the other.

    Args:
        ledger: the office's ledger; changed in place.
        commands: the commands, in the order in which they take effect.
        now_ms: milliseconds since 1970, UTC, for all of them.
    """
    return [apply(ledger, command, now_ms) for command in commands]
