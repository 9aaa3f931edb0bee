"""The kinds of ledgers that a store keeps. An office's is the main one; others have places of their own beside it.

A **place** is where one ledger lives, and is a slot of its own in a cluster. An office's place is its name. The others
begin with ``~`` and their kind, so that no office can have their names: ``~room.jakarta-2026-12``.
"""

from __future__ import annotations

__all__ = ["BUCKETS", "DRAW", "KINDS", "OFFICE", "REGISTRY", "ROOM", "Kind", "kind_of"]

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from quota_engine.admission import draw_ledger, guarded, room, token_bucket
from quota_engine.domain import registry
from quota_engine.domain.commands import Publish, SetRules
from quota_engine.domain.ledger import describe


class Kind(NamedTuple):
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
    founders: frozenset[type]


def _no_questions(state: object, question: object, now_ms: int) -> object:
    raise TypeError(f"no answer to a {type(question).__name__}")


OFFICE: Final = Kind("", guarded.GatedLedger, guarded.apply, _no_questions, describe, frozenset({Publish, SetRules}))

ROOM: Final = Kind("~room", room.RoomState, room.apply, room.ask, room.describe, frozenset({room.CreateRoom}))

DRAW: Final = Kind(
    draw_ledger.PREFIX,
    draw_ledger.DrawLedger,
    draw_ledger.apply,
    draw_ledger.ask,
    draw_ledger.describe,
    draw_ledger.DRAW_FOUNDERS,
)

BUCKETS: Final = Kind(
    "~buckets",
    lambda _: token_bucket.Buckets(),
    token_bucket.apply,
    token_bucket.ask,
    token_bucket.describe,
    frozenset({token_bucket.TakeTokens}),
)

REGISTRY: Final = Kind(
    registry.PREFIX,
    registry.Registry,
    registry.apply,
    registry.ask,
    registry.describe,
    frozenset({registry.Claim, registry.OpenMove}),
)

KINDS: Final = {kind.prefix: kind for kind in (OFFICE, ROOM, DRAW, BUCKETS, REGISTRY)}


def kind_of(place: str) -> Kind:
    """The kind of the ledger at ``place``. Raises ``KeyError`` if there is no such kind."""
    return KINDS[place.partition(".")[0]] if place.startswith("~") else OFFICE
