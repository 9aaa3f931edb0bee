"""The kinds of ledgers that a store keeps. The main kind is an office's ledger.

A store keeps each ledger under an **address**, which has its own slot in a cluster. The address of an office is its
id. The other addresses begin with ``~`` and their kind, such as ``~room.jakarta-2026-12``, so that no office can have
them.
"""

from __future__ import annotations

__all__ = ["BUCKETS", "DRAW", "KINDS", "OFFICE", "REGISTRY", "ROOM", "LedgerKind", "check_address", "kind_of"]

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from quota_engine.admission import guarded_command, token_bucket
from quota_engine.domain import cross_office_registry
from quota_engine.domain.commands import Publish, SetRules
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.ledger import describe
from quota_engine.domain.validation import check_name
from quota_engine.draws import ledger
from quota_engine.draws.commands import DRAW_CREATING_COMMANDS
from quota_engine.waiting_room import machine
from quota_engine.waiting_room.commands import CreateRoom


class LedgerKind(NamedTuple):
    """A kind of ledger: a pure state, and the functions that change and read it.

    Args:
        prefix: start of its addresses; ``""`` for offices.
        new: creates the empty state of an address.
        apply: applies a command to a state at a time, and returns the outcome.
        ask: answers a question about a state at a time, and changes nothing.
        describe: returns the whole state, for comparisons.
        creating_commands: commands that may create a ledger. Any other command to an unknown address leaves nothing.
    """

    prefix: str
    new: Callable[[str], Any]
    apply: Callable[[Any, Any, int], Any]
    ask: Callable[[Any, Any, int], Any]
    describe: Callable[[Any], dict[str, Any]]
    creating_commands: frozenset[type]


def _no_questions(state: object, question: object, now_ms: int) -> object:
    raise TypeError(f"this kind of ledger answers no {type(question).__name__}")


OFFICE: Final = LedgerKind(
    "", guarded_command.GuardedLedger, guarded_command.apply, _no_questions, describe, frozenset({Publish, SetRules})
)

ROOM: Final = LedgerKind(
    "~room", machine.RoomState, machine.apply, machine.answer_query, machine.describe, frozenset({CreateRoom})
)

DRAW: Final = LedgerKind(
    ledger.PREFIX,
    ledger.DrawLedger,
    ledger.apply,
    ledger.answer_query,
    ledger.describe,
    DRAW_CREATING_COMMANDS,
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


def kind_of(address: str) -> LedgerKind:
    """Return the kind of the ledger at ``address``.

    Raises:
        KeyError: no kind has this prefix.
    """
    return KINDS[address.partition(".")[0]] if address.startswith("~") else OFFICE


def check_address(address: str, where: str) -> None:
    """Check that a text is the address of a ledger: an office's id, or ``~room.december`` and the like.

    Args:
        address: The text.
        where: Its name in the error.

    Raises:
        InvalidRequest: It is not.
    """
    if not isinstance(address, str) or not address.startswith("~"):
        check_name(address, where)
        return
    prefix, _, rest = address.partition(".")
    if not prefix or prefix not in KINDS:
        known = ", ".join(f"{one}.…" for one in KINDS if one)
        raise InvalidRequest(where, "not the address of a ledger", f"an office's id, or one of {known}")
    check_name(rest, where)
