"""The kinds of ledgers that a store keeps. An office's is the main one; others have places of their own beside it.

A **place** is where one ledger lives, and is a slot of its own in a cluster. An office's place is its name. The others
begin with ``~`` and their kind, so that no office can have their names: ``~room.jakarta-2026-12``.
"""

from __future__ import annotations

__all__ = ["BUCKETS", "DRAW", "KINDS", "OFFICE", "REGISTRY", "ROOM", "LedgerKind", "kind_of"]

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from quota_engine.admission import guarded_reserve, token_bucket
from quota_engine.domain import cross_office_registry
from quota_engine.domain.commands import Publish, SetRules
from quota_engine.domain.ledger import describe
from quota_engine.draws import ledger
from quota_engine.waiting_room import machine


class LedgerKind(NamedTuple):
    """What a kind of ledger is: a pure state, the rules that change it, and how it is looked at.

    ``new(place)`` makes an empty state. ``apply(state, command, now_ms)`` changes it and returns the answer.
    ``ask(state, question, now_ms)`` answers a question and changes nothing. ``describe(state)`` tells all of it, for
    comparisons. ``founders`` are the commands that may be a ledger's first: any other one, sent to a place where
    nothing is, is answered and leaves nothing behind.
    """

    prefix: str
    new: Callable[[str], Any]
    apply: Callable[[Any, Any, int], Any]
    ask: Callable[[Any, Any, int], Any]
    describe: Callable[[Any], dict[str, Any]]
    creating_commands: frozenset[type]


def _no_questions(state: object, question: object, now_ms: int) -> object:
    raise TypeError(f"no answer to a {type(question).__name__}")


OFFICE: Final = LedgerKind(
    "", guarded_reserve.GuardedLedger, guarded_reserve.apply, _no_questions, describe, frozenset({Publish, SetRules})
)

ROOM: Final = LedgerKind(
    "~room", machine.RoomState, machine.apply, machine.answer_query, machine.describe, frozenset({machine.CreateRoom})
)

DRAW: Final = LedgerKind(
    ledger.PREFIX,
    ledger.DrawLedger,
    ledger.apply,
    ledger.answer_query,
    ledger.describe,
    ledger.DRAW_CREATING_COMMANDS,
)

BUCKETS: Final = LedgerKind(
    "~buckets",
    lambda _: token_bucket.Buckets(),
    token_bucket.apply,
    token_bucket.answer_query,
    token_bucket.describe,
    frozenset({token_bucket.TakeTokens}),
)

REGISTRY: Final = LedgerKind(
    cross_office_registry.PREFIX,
    cross_office_registry.Registry,
    cross_office_registry.apply,
    cross_office_registry.ask,
    cross_office_registry.describe,
    frozenset({cross_office_registry.Claim, cross_office_registry.OpenMove}),
)

KINDS: Final = {kind.prefix: kind for kind in (OFFICE, ROOM, DRAW, BUCKETS, REGISTRY)}


def kind_of(place: str) -> LedgerKind:
    """The kind of the ledger at ``place``. Raises ``KeyError`` if there is no such kind."""
    return KINDS[place.partition(".")[0]] if place.startswith("~") else OFFICE
