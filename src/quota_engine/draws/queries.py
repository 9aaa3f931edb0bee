"""Queries to a draw, and the values that answer them."""

from __future__ import annotations

__all__ = [
    "PAGE_MAX",
    "DrawPhase",
    "DrawQuery",
    "DrawView",
    "FindApplication",
    "FoundApplication",
    "FrozenInputs",
    "ReadApplications",
    "ReadDraw",
    "ReadOfferedDays",
    "ReadPreferences",
    "StoredApplication",
]

import enum
from typing import Final

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST
from quota_engine.domain.validation import check_integer, check_name
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.lottery import APPLICATIONS_MAX, Preference

PAGE_MAX: Final = 2_000
"""The most applications, preferences or days in one response."""


class DrawPhase(enum.StrEnum):
    """Phase of a draw, in order of time."""

    ANNOUNCED = "announced"
    """The draw accepts applications later."""
    OPEN = "open"
    """The draw accepts applications."""
    CLOSED = "closed"
    """The time to apply is over."""
    FROZEN = "frozen"
    """Applications and capacities are fixed. The seed is secret."""
    REVEALED = "revealed"
    """The seed is public."""


class FrozenInputs(msgspec.Struct, frozen=True, gc=False):
    """Inputs of a frozen draw; see :class:`FreezeDraw`."""

    applications: int
    applications_digest: str
    capacities_digest: str


class DrawView(msgspec.Struct, frozen=True):
    """State of a draw at one moment.

    Attributes:
        draw: Id of the draw.
        phase: Phase of the draw.
        config: Settings of the draw.
        applications: Applications that are not withdrawn.
        applicants: Applicants of these applications.
        last_number: Highest number of an application.
        preferences: Different preferences of all applications.
        offered_days: Offices and days whose capacities are recorded.
        frozen: Inputs of the draw, once it is frozen.
        seed: The seed in hex, once it is revealed.
        entropy: The public entropy, once the seed is revealed.
        epoch: Epoch of the draw, from 1. It grows when the draw may have lost its last changes.
        frozen_epoch: Epoch in which the draw was frozen, or 0.
        revealed_epoch: Epoch in which the seed was revealed, or 0.
    """

    draw: str
    phase: DrawPhase
    config: DrawConfig
    applications: int
    applicants: int
    last_number: int
    preferences: int
    offered_days: int
    frozen: FrozenInputs | None = None
    seed: str = ""
    entropy: str = ""
    epoch: int = EPOCH_FIRST
    frozen_epoch: int = 0
    revealed_epoch: int = 0


class StoredApplication(msgspec.Struct, frozen=True, gc=False):
    """An application as the ledger stores it.

    Attributes:
        number: Number of the application.
        version: Version of the application, from 1.
        applicants: Keyed hashes of the applicants. Empty if it is withdrawn.
        preferences: Numbers of the draw's preferences, from 1, the best one first. Empty if it is withdrawn.
        epoch: Epoch of the draw in which the application got this version.
    """

    number: int
    version: int
    applicants: tuple[str, ...]
    preferences: tuple[int, ...]
    epoch: int = EPOCH_FIRST


class FoundApplication(msgspec.Struct, frozen=True, gc=False):
    """An application with its preferences, the best one first."""

    application: StoredApplication
    preferences: tuple[Preference, ...]


class ReadDraw(msgspec.Struct, frozen=True, gc=False):
    """Query the draw. Returns a :class:`DrawView`, or ``None`` if it does not exist."""


class FindApplication(msgspec.Struct, frozen=True, gc=False):
    """Query the application of an applicant, or the one that they withdrew.

    Returns a :class:`FoundApplication`, or ``None``.
    """

    applicant: str

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")


class _Page(msgspec.Struct, frozen=True, gc=False):
    after: int
    limit: int = PAGE_MAX

    def __post_init__(self) -> None:
        check_integer(self.after, "after", 0, APPLICATIONS_MAX)
        check_integer(self.limit, "limit", 1, PAGE_MAX)


class ReadApplications(_Page, frozen=True, gc=False):
    """Query the applications with the numbers ``after + 1`` to ``after + limit`` that are not withdrawn.

    Returns a list of :class:`StoredApplication`.
    """


class ReadPreferences(_Page, frozen=True, gc=False):
    """Query the preferences with the numbers ``after + 1`` to ``after + limit``.

    Returns a list of :class:`Preference`.
    """


class ReadOfferedDays(_Page, frozen=True, gc=False):
    """Query up to ``limit`` recorded capacities, without the first ``after`` of them.

    Returns a list of :class:`OfferDay`.
    """


DrawQuery = ReadDraw | FindApplication | ReadApplications | ReadPreferences | ReadOfferedDays
