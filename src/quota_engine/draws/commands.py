"""Commands of a draw, with its settings."""

from __future__ import annotations

__all__ = [
    "DAYS_MAX",
    "DRAW_CREATING_COMMANDS",
    "VERSION_MAX",
    "CloseDraw",
    "CreateDraw",
    "DrawCommand",
    "DrawConfig",
    "FreezeDraw",
    "OfferDay",
    "RevealSeed",
    "Row",
    "SubmitApplication",
    "WithdrawApplication",
    "check_digest",
]

import re
from typing import Final

import msgspec

from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.epochs import EPOCH_MAX, AdvanceEpoch
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import (
    APPLICANTS_MAX,
    CAPACITY_MAX,
    QUOTAS_MAX,
    TIME_MS_MAX,
    check_integer,
    check_name,
)
from quota_engine.draws.lottery import (
    APPLICATIONS_MAX,
    CHOICES_MAX,
    Preference,
    check_entropy,
    check_seed,
    commitment_of,
)

DAYS_MAX: Final = 400
VERSION_MAX: Final = 2**31

_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch

Row = tuple[tuple[str, int], ...]
"""Quotas and units of an office and day, in the order given."""


def check_digest(value: object, where: str) -> None:
    """Reject a value that is not a SHA-256 in lower-case hex.

    Args:
        value: The value.
        where: Name of the value for the error.

    Raises:
        InvalidRequest: The value has another form.
    """
    if not isinstance(value, str) or _is_digest(value) is None:
        raise InvalidRequest(where, "not a SHA-256", "64 of the digits 0-9 a-f")


class DrawConfig(msgspec.Struct, frozen=True):
    """Settings of a draw. They are fixed when the draw is created.

    Moments are in milliseconds since 1970 (UTC).

    Attributes:
        opens_at_ms: Time from which the draw accepts applications.
        closes_at_ms: Time until which the draw accepts applications.
        forget_at_ms: Time at which the store deletes the draw.
        first_day: First day of the preferences (a date's ordinal).
        last_day: Last day of the preferences (a date's ordinal). At most 400 days.
        commitment: Commitment to the seed, in hex.
        entropy_source: Public text that will be mixed into the seed, in words, such as "closing price of the index on
            2026-12-01". ``""``: none.
        party_max: The most applicants of one application (1 to 100).
        choices_max: The most preferences of one application (1 to 50).
        applications_max: The most applications (1 to 10,000,000).

    Raises:
        InvalidRequest: A value is out of its range.
    """

    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    first_day: int
    last_day: int
    commitment: str
    entropy_source: str = ""
    party_max: int = 5
    choices_max: int = 10
    applications_max: int = 1_000_000

    def __post_init__(self) -> None:
        for field in ("opens_at_ms", "closes_at_ms", "forget_at_ms"):
            check_integer(getattr(self, field), field, 0, TIME_MS_MAX)
        if not self.opens_at_ms < self.closes_at_ms <= self.forget_at_ms:
            raise InvalidRequest("draw", "the times are out of order", "opens < closes <= forget")
        check_integer(self.first_day, "first_day", 1, DAY_MAX)
        check_integer(self.last_day, "last_day", 1, DAY_MAX)
        if not 0 <= self.last_day - self.first_day < DAYS_MAX:
            raise InvalidRequest("first_day, last_day", "out of order or too many", f"1 to {DAYS_MAX} days")
        check_digest(self.commitment, "commitment")
        check_entropy(self.entropy_source)
        check_integer(self.party_max, "party_max", 1, APPLICANTS_MAX)
        check_integer(self.choices_max, "choices_max", 1, CHOICES_MAX)
        check_integer(self.applications_max, "applications_max", 1, APPLICATIONS_MAX)


class CreateDraw(msgspec.Struct, frozen=True):
    """Create a draw. Replayed if it exists with the same settings."""

    config: DrawConfig


class SubmitApplication(msgspec.Struct, frozen=True, gc=False):
    """Submit or change an application.

    Attributes:
        applicants: Keyed hashes of the applicants. The first one owns the application's number.
        preferences: Preferences, the best one first.
        expected_version: Version of the application that the sender saw. 0: they have none.
        expected_epoch: Epoch of that version. 0: it is not known.
    """

    applicants: tuple[str, ...]
    preferences: tuple[Preference, ...]
    expected_version: int = 0
    expected_epoch: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.applicants) <= APPLICANTS_MAX:
            raise InvalidRequest("applicants", f"{len(self.applicants)} applicants", f"1 to {APPLICANTS_MAX}")
        for applicant in self.applicants:
            check_name(applicant, "applicants")
        if len(set(self.applicants)) != len(self.applicants):
            raise InvalidRequest("applicants", "one applicant twice", "each applicant once")
        if not 1 <= len(self.preferences) <= CHOICES_MAX:
            raise InvalidRequest("choices", f"{len(self.preferences)} choices", f"1 to {CHOICES_MAX}")
        if len(set(self.preferences)) != len(self.preferences):
            raise InvalidRequest("choices", "one choice twice", "each choice once")
        check_integer(self.expected_version, "expected_version", 0, VERSION_MAX)
        check_integer(self.expected_epoch, "expected_epoch", 0, EPOCH_MAX)


class WithdrawApplication(msgspec.Struct, frozen=True, gc=False):
    """Withdraw an application. Each of its applicants can withdraw it.

    Attributes:
        applicant: Keyed hash of the applicant.
        expected_version: Version of the application that the sender saw.
        expected_epoch: Epoch of that version. 0: it is not known.
    """

    applicant: str
    expected_version: int
    expected_epoch: int = 0

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        check_integer(self.expected_version, "expected_version", 1, VERSION_MAX)
        check_integer(self.expected_epoch, "expected_epoch", 0, EPOCH_MAX)


class CloseDraw(msgspec.Struct, frozen=True, gc=False):
    """Close the draw after its closing time, so that no clock that is set back can reopen it."""


class OfferDay(msgspec.Struct, frozen=True):
    """Record the units that the draw allots of an office and day. They cannot be changed.

    Attributes:
        office: Id of the office.
        day: The day (a date's ordinal).
        quotas: Quotas and units.
    """

    office: str
    day: int
    quotas: Row

    def __post_init__(self) -> None:
        check_name(self.office, "office")
        check_integer(self.day, "day", 1, DAY_MAX)
        if len(self.quotas) > QUOTAS_MAX or len(dict(self.quotas)) != len(self.quotas):
            raise InvalidRequest("quotas", f"{len(self.quotas)} quotas", f"up to {QUOTAS_MAX}, each once")
        for quota, units in self.quotas:
            check_name(quota, "quotas")
            check_integer(units, "units", 0, CAPACITY_MAX)


class FreezeDraw(msgspec.Struct, frozen=True, gc=False):
    """Freeze the inputs of the draw. The seed can be revealed after it.

    Attributes:
        applications: Applications of the draw.
        applications_digest: Digest of the applications' canonical form, in hex.
        capacities_digest: Digest of the capacities' canonical form, in hex.
        epoch: Epoch of the draw that the sender has seen. 0: the first one.
    """

    applications: int
    applications_digest: str
    capacities_digest: str
    epoch: int = 0

    def __post_init__(self) -> None:
        check_integer(self.applications, "applications", 0, APPLICATIONS_MAX)
        check_digest(self.applications_digest, "applications_digest")
        check_digest(self.capacities_digest, "capacities_digest")
        check_integer(self.epoch, "epoch", 0, EPOCH_MAX)


class RevealSeed(msgspec.Struct, frozen=True, gc=False):
    """Reveal the seed.

    Attributes:
        draw: Id of the draw.
        seed: The seed, in hex.
        entropy: Public text from the entropy source, or ``""``.
        epoch: Epoch of the draw that the sender has seen. 0: the first one.
    """

    draw: str
    seed: str
    entropy: str = ""
    epoch: int = 0

    def __post_init__(self) -> None:
        check_name(self.draw, "draw")
        check_integer(self.epoch, "epoch", 0, EPOCH_MAX)
        check_seed(self.seed)
        check_entropy(self.entropy)

    @property
    def commitment(self) -> str:
        """Commitment to this seed, in hex."""
        return commitment_of(self.draw, self.seed)


DrawCommand = (
    CreateDraw | SubmitApplication | WithdrawApplication | CloseDraw | OfferDay | FreezeDraw | RevealSeed | AdvanceEpoch
)

DRAW_CREATING_COMMANDS: Final = frozenset[type]({CreateDraw})
