"""Outcomes of a draw's commands."""

from __future__ import annotations

__all__ = ["DrawOutcome", "DrawStatus"]

import enum
from typing import Final

import msgspec

from quota_engine.draws.commands import Row


class DrawStatus(enum.StrEnum):
    """Status of a command, in order of precedence: the first that applies."""

    OVERLOADED = "OVERLOADED"
    """The queue of calls for the store is full. The draw was not read."""
    UNKNOWN_DRAW = "UNKNOWN_DRAW"
    """The draw does not exist, or the store has deleted it."""
    DRAW_OVER = "DRAW_OVER"
    """The draw would be deleted at once."""
    NOT_OPEN = "NOT_OPEN"
    """Applications are accepted from ``retry_at_ms``."""
    APPLICATIONS_CLOSED = "APPLICATIONS_CLOSED"
    """The time to apply or withdraw is over."""
    STILL_OPEN = "STILL_OPEN"
    """Applications are accepted until ``retry_at_ms``."""
    NOT_CLOSED = "NOT_CLOSED"
    """The draw must be closed first."""
    NOT_FROZEN = "NOT_FROZEN"
    """The draw must be frozen before the seed is revealed."""
    CONFLICT = "CONFLICT"
    """An earlier command had other arguments, or the arguments do not match the commitment or the applications."""
    EPOCH_CHANGED = "EPOCH_CHANGED"
    """The draw's store has failed over, so an earlier close or run may be lost. The outcome has the epoch to name."""
    FROZEN = "FROZEN"
    """The draw is frozen, so its capacities cannot change."""
    PARTY_TOO_LARGE = "PARTY_TOO_LARGE"
    """The party has more applicants than ``party_max``."""
    TOO_MANY_CHOICES = "TOO_MANY_CHOICES"
    """The application has more preferences than ``choices_max``."""
    NOT_IN_DRAW = "NOT_IN_DRAW"
    """The day is not among those of the draw."""
    NOT_FOUND = "NOT_FOUND"
    """The applicant has no application."""
    ALREADY_APPLIED = "ALREADY_APPLIED"
    """An applicant is in another application."""
    APPLICATION_LOST = "APPLICATION_LOST"
    """The draw lost the expected version in a failover of its store. The outcome contains what the draw has."""
    STALE = "STALE"
    """The application has another version than the expected one. The outcome contains its version."""
    DRAW_FULL = "DRAW_FULL"
    """The draw has its most applications, or its most different preferences."""

    APPLIED = "APPLIED"
    """The application is stored under ``number`` and ``version``."""
    WITHDRAWN = "WITHDRAWN"
    """The application is withdrawn. Its number still belongs to its first applicant."""
    DONE = "DONE"
    """The operator's command was applied."""


class DrawOutcome(msgspec.Struct, frozen=True, gc=False):
    """Outcome of a command.

    Attributes:
        status: The status.
        number: Number of the application, or 0.
        version: Version of the application, or 0.
        replayed: True if an earlier command had the same effect.
        retry_at_ms: Time from which the command is possible, in milliseconds since 1970 (UTC), for ``NOT_OPEN`` and
            ``STILL_OPEN``.
        quotas: Quotas and units of the day that ``OfferDay`` names, as they are recorded.
        tokens: Pseudonyms of the applicants in published files. The workflow adds them; the ledger does not know their
            key.
        epoch: Epoch of the draw in which the application got this version; for ``EPOCH_CHANGED`` the present epoch of
            the draw; otherwise 0.
    """

    status: DrawStatus
    number: int = 0
    version: int = 0
    replayed: bool = False
    retry_at_ms: int = 0
    quotas: Row = ()
    tokens: tuple[str, ...] = ()
    epoch: int = 0

    @property
    def ok(self) -> bool:
        """True if the command succeeded."""
        return self.status in _SUCCESSES


_SUCCESSES: Final = frozenset({DrawStatus.APPLIED, DrawStatus.WITHDRAWN, DrawStatus.DONE})
