"""Ledger of a draw: a state machine that collects applications, at the address ``~draw.ID``.

Phases. The ledger accepts applications from ``opens_at_ms`` to before ``closes_at_ms``, by the store's time. After
that, no application can change. Then the operator closes the draw, records its capacities, and freezes it with the
digests of applications and capacities. Only a frozen draw accepts the seed, and only the one that it committed to. The
result follows from the seed; see :mod:`quota_engine.draws.lottery`.

Numbers. An applicant keeps one number: that of the applications in which they are named first. So there are at most as
many numbers as applicants, also when applicants withdraw and apply again.

Versions. A change of an application names the version that its sender saw. So a command that arrives after a later one
has been applied changes nothing.

Epochs. A store that takes the draw over after a failover raises its epoch, because the last changes may be lost. Each
application has the epoch of its last change. A receipt names number, version and epoch, so a lost one is recognized
even if another application has its number and version now.
"""

from __future__ import annotations

__all__ = [
    "DRAW_CREATING_COMMANDS",
    "OFFERED_DAYS_MAX",
    "PAGE_MAX",
    "PREFIX",
    "CloseDraw",
    "CreateDraw",
    "DrawCommand",
    "DrawConfig",
    "DrawLedger",
    "DrawOutcome",
    "DrawPhase",
    "DrawQuery",
    "DrawStatus",
    "DrawView",
    "FindApplication",
    "FoundApplication",
    "FreezeDraw",
    "FrozenInputs",
    "OfferDay",
    "ReadApplications",
    "ReadDraw",
    "ReadOfferedDays",
    "ReadPreferences",
    "RevealSeed",
    "StoredApplication",
    "SubmitApplication",
    "WithdrawApplication",
    "address_of",
    "answer_query",
    "apply",
    "describe",
    "is_lost",
    "outcome_of_receipt",
]

import enum
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from quota_engine.domain.commands import DAY_MAX
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX, AdvanceEpoch
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
    PREFERENCES_MAX,
    Preference,
    check_entropy,
    check_seed,
    commitment_of,
)

PREFIX: Final = "~draw"
PAGE_MAX: Final = 2_000
"""The most applications, preferences or days in one response."""
OFFERED_DAYS_MAX: Final = 100_000
DAYS_MAX: Final = 400
VERSION_MAX: Final = 2**31

_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch

Row = tuple[tuple[str, int], ...]
"""Quotas and units of an office and day, in the order given."""


def address_of(draw: str) -> str:
    """Return the address of a draw's ledger.

    Raises:
        InvalidRequest: ``draw`` is not a valid id.
    """
    check_name(draw, "draw")
    return f"{PREFIX}.{draw}"


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


# --- Commands ------------------------------------------------------------------------------------------------------


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


# --- Results -------------------------------------------------------------------------------------------------------


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


# --- Queries -------------------------------------------------------------------------------------------------------


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


# --- State ---------------------------------------------------------------------------------------------------------


class DrawLedger:
    """Mutable state of one draw. ``config`` is ``None`` until the draw is created."""

    __slots__ = (
        "active_applicants",
        "active_applications",
        "application_of",
        "applications",
        "assigned_numbers",
        "closed",
        "config",
        "draw",
        "entropy",
        "epoch",
        "frozen",
        "frozen_epoch",
        "last_number",
        "now_ms",
        "offered_days",
        "preference_numbers",
        "preferences",
        "revealed_epoch",
        "seed",
    )

    def __init__(self, address: str) -> None:
        """Create the empty ledger at ``address``, which contains the draw's id."""
        self.draw = address.partition(".")[2]
        self.clear()

    def clear(self) -> None:
        """Reset everything, as before the draw was created."""
        self.now_ms = 0
        self.config: DrawConfig | None = None
        self.closed = False
        self.frozen: FrozenInputs | None = None
        self.seed = ""
        self.entropy = ""
        self.epoch = EPOCH_FIRST
        self.frozen_epoch = 0
        self.revealed_epoch = 0
        self.last_number = 0
        self.active_applicants = 0
        self.active_applications = 0
        self.applications: dict[int, StoredApplication] = {}
        """Applications by number, including withdrawn ones, which have no applicants."""
        self.assigned_numbers: dict[str, int] = {}
        """Number that an applicant keeps, by applicant."""
        self.application_of: dict[str, int] = {}
        """Number of the application that contains an applicant, by applicant."""
        self.preferences: list[Preference] = []
        self.preference_numbers: dict[Preference, int] = {}
        self.offered_days: dict[tuple[str, int], Row] = {}


# --- Rules ---------------------------------------------------------------------------------------------------------


def apply(ledger: DrawLedger, command: DrawCommand, now_ms: int) -> DrawOutcome:
    """Apply one command, or refuse it without a change.

    Args:
        ledger: The draw. It is changed in place.
        command: The command.
        now_ms: The store's time, in milliseconds since 1970 (UTC). An earlier time than that of the last change counts
            as the time of that change.
    """
    return _HANDLERS[type(command)](ledger, command, max(now_ms, ledger.now_ms))


def _create(ledger: DrawLedger, command: CreateDraw, now_ms: int) -> DrawOutcome:
    if _config(ledger, now_ms) is not None:
        same = ledger.config == command.config
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    if command.config.forget_at_ms <= now_ms:
        return DrawOutcome(DrawStatus.DRAW_OVER)

    # From here on it must succeed.
    ledger.clear()
    ledger.config = command.config
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _config(ledger: DrawLedger, now_ms: int) -> DrawConfig | None:
    """Return the settings of a draw that exists, otherwise ``None``."""
    config = ledger.config
    return None if config is None or config.forget_at_ms <= now_ms else config


def _submit(ledger: DrawLedger, command: SubmitApplication, now_ms: int) -> DrawOutcome:
    config = _config(ledger, now_ms)
    refusal = _refusal_by_time(config, now_ms)
    if refusal is not None:
        return refusal
    assert config is not None
    if len(command.applicants) > config.party_max:
        return DrawOutcome(DrawStatus.PARTY_TOO_LARGE)
    if len(command.preferences) > config.choices_max:
        return DrawOutcome(DrawStatus.TOO_MANY_CHOICES)
    if not all(config.first_day <= preference.day <= config.last_day for preference in command.preferences):
        return DrawOutcome(DrawStatus.NOT_IN_DRAW)
    number = ledger.assigned_numbers.get(command.applicants[0], 0)
    if any(ledger.application_of.get(applicant, number) != number for applicant in command.applicants):
        return DrawOutcome(DrawStatus.ALREADY_APPLIED)
    before = ledger.applications.get(number)
    version = 0 if before is None else before.version
    if before is not None and _is_same(ledger, before, command):
        return _outcome_of(DrawStatus.APPLIED, before, replayed=True)
    refusal = _refusal_by_version(ledger, before, command)
    if refusal is not None:
        return refusal
    new_preferences = sum(preference not in ledger.preference_numbers for preference in command.preferences)
    if not number and ledger.last_number >= config.applications_max:
        return DrawOutcome(DrawStatus.DRAW_FULL)
    if len(ledger.preferences) + new_preferences > PREFERENCES_MAX:
        return DrawOutcome(DrawStatus.DRAW_FULL)

    # From here on it must succeed.
    if not number:
        ledger.last_number += 1
        number = ledger.assigned_numbers[command.applicants[0]] = ledger.last_number
    _remove_applicants(ledger, before)
    for applicant in command.applicants:
        ledger.application_of[applicant] = number
    numbers = tuple(_preference_number(ledger, preference) for preference in command.preferences)
    after = StoredApplication(number, version + 1, command.applicants, numbers, ledger.epoch)
    ledger.applications[number] = after
    ledger.active_applications += 1
    ledger.active_applicants += len(command.applicants)
    ledger.now_ms = now_ms
    return _outcome_of(DrawStatus.APPLIED, after)


def _outcome_of(status: DrawStatus, application: StoredApplication | None, *, replayed: bool = False) -> DrawOutcome:
    if application is None:
        return DrawOutcome(status)
    return DrawOutcome(status, application.number, application.version, replayed, epoch=application.epoch)


def _refusal_by_version(
    ledger: DrawLedger, before: StoredApplication | None, command: SubmitApplication | WithdrawApplication
) -> DrawOutcome | None:
    """Return the refusal of a command that expects another version, or ``None``."""
    version, epoch = (0, 0) if before is None else (before.version, before.epoch)
    if is_lost(version, epoch, command.expected_version, command.expected_epoch, ledger.epoch):
        return _outcome_of(DrawStatus.APPLICATION_LOST, before)
    return None if command.expected_version == version else _outcome_of(DrawStatus.STALE, before)


def is_lost(version: int, epoch: int, expected_version: int, expected_epoch: int, draw_epoch: int) -> bool:
    """Return True if a draw has lost the version of an application that a sender saw.

    Args:
        version: Version that the draw has, or 0.
        epoch: Epoch of that version, or 0.
        expected_version: Version that the sender saw, or 0.
        expected_epoch: Epoch of that version, or 0 if it is not known.
        draw_epoch: Epoch of the draw. It has lost nothing of this epoch.
    """
    if not expected_epoch or not expected_version:
        return False
    if expected_version == version:
        return expected_epoch != epoch
    return expected_version > version and expected_epoch != draw_epoch


def _refusal_by_time(config: DrawConfig | None, now_ms: int) -> DrawOutcome | None:
    """Return the refusal of an application or withdrawal at this time, or ``None``."""
    if config is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if now_ms < config.opens_at_ms:
        return DrawOutcome(DrawStatus.NOT_OPEN, retry_at_ms=config.opens_at_ms)
    if now_ms >= config.closes_at_ms:
        return DrawOutcome(DrawStatus.APPLICATIONS_CLOSED)
    return None


def _is_same(ledger: DrawLedger, before: StoredApplication, command: SubmitApplication) -> bool:
    numbers = tuple(ledger.preference_numbers.get(preference, 0) for preference in command.preferences)
    return before.applicants == command.applicants and before.preferences == numbers


def _preference_number(ledger: DrawLedger, preference: Preference) -> int:
    """Return the number of a preference, which is assigned if it is new."""
    number = ledger.preference_numbers.get(preference)
    if number is None:
        ledger.preferences.append(preference)
        number = ledger.preference_numbers[preference] = len(ledger.preferences)
    return number


def _remove_applicants(ledger: DrawLedger, before: StoredApplication | None) -> None:
    """Remove the applicants of an application that is changed or withdrawn."""
    if before is not None and before.applicants:
        ledger.active_applications -= 1
        ledger.active_applicants -= len(before.applicants)
        for applicant in before.applicants:
            del ledger.application_of[applicant]


def _withdraw(ledger: DrawLedger, command: WithdrawApplication, now_ms: int) -> DrawOutcome:
    refusal = _refusal_by_time(_config(ledger, now_ms), now_ms)
    if refusal is not None:
        return refusal
    number = ledger.application_of.get(command.applicant)
    if number is None:
        before = ledger.applications.get(ledger.assigned_numbers.get(command.applicant, 0))
        # A repeated command finds the application as its first copy left it. Only the owner of the number can get this
        # outcome, because the ledger does not remember the other applicants of a withdrawn application.
        if before is not None and not before.applicants and before.version == command.expected_version + 1:
            return _outcome_of(DrawStatus.WITHDRAWN, before, replayed=True)
        if is_lost(0, 0, command.expected_version, command.expected_epoch, ledger.epoch):
            return DrawOutcome(DrawStatus.APPLICATION_LOST)
        return DrawOutcome(DrawStatus.NOT_FOUND)
    before = ledger.applications[number]
    refusal = _refusal_by_version(ledger, before, command)
    if refusal is not None:
        return refusal

    # From here on it must succeed.
    _remove_applicants(ledger, before)
    after = StoredApplication(number, before.version + 1, (), (), ledger.epoch)
    ledger.applications[number] = after
    ledger.now_ms = now_ms
    return _outcome_of(DrawStatus.WITHDRAWN, after)


def _close(ledger: DrawLedger, command: CloseDraw, now_ms: int) -> DrawOutcome:
    config = _config(ledger, now_ms)
    if config is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if now_ms < config.closes_at_ms:
        return DrawOutcome(DrawStatus.STILL_OPEN, retry_at_ms=config.closes_at_ms)
    if ledger.closed:
        return DrawOutcome(DrawStatus.DONE, replayed=True)

    # From here on it must succeed.
    ledger.closed = True
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _offer_day(ledger: DrawLedger, command: OfferDay, now_ms: int) -> DrawOutcome:
    config = _config(ledger, now_ms)
    if config is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if not ledger.closed:
        return DrawOutcome(DrawStatus.NOT_CLOSED)
    quotas = ledger.offered_days.get((command.office, command.day))
    if quotas is not None:
        return DrawOutcome(DrawStatus.DONE, replayed=True, quotas=quotas)
    if ledger.frozen is not None:
        return DrawOutcome(DrawStatus.FROZEN)
    if not config.first_day <= command.day <= config.last_day:
        return DrawOutcome(DrawStatus.NOT_IN_DRAW)
    if len(ledger.offered_days) >= OFFERED_DAYS_MAX:
        return DrawOutcome(DrawStatus.DRAW_FULL)

    # From here on it must succeed.
    ledger.offered_days[command.office, command.day] = command.quotas
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE, quotas=command.quotas)


def _freeze(ledger: DrawLedger, command: FreezeDraw, now_ms: int) -> DrawOutcome:
    if _config(ledger, now_ms) is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if not ledger.closed:
        return DrawOutcome(DrawStatus.NOT_CLOSED)
    frozen = FrozenInputs(command.applications, command.applications_digest, command.capacities_digest)
    if ledger.frozen is not None:
        same = ledger.frozen == frozen
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    if command.applications != ledger.active_applications:
        return DrawOutcome(DrawStatus.CONFLICT)
    if ledger.epoch != (command.epoch or EPOCH_FIRST):
        return DrawOutcome(DrawStatus.EPOCH_CHANGED, epoch=ledger.epoch)

    # From here on it must succeed.
    ledger.frozen, ledger.frozen_epoch = frozen, ledger.epoch
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _reveal(ledger: DrawLedger, command: RevealSeed, now_ms: int) -> DrawOutcome:
    config = _config(ledger, now_ms)
    if config is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if ledger.frozen is None:
        return DrawOutcome(DrawStatus.NOT_FROZEN)
    if command.commitment != config.commitment or bool(command.entropy) != bool(config.entropy_source):
        return DrawOutcome(DrawStatus.CONFLICT)
    if ledger.seed:
        same = ledger.entropy == command.entropy
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    if ledger.epoch != (command.epoch or EPOCH_FIRST):
        return DrawOutcome(DrawStatus.EPOCH_CHANGED, epoch=ledger.epoch)

    # From here on it must succeed.
    ledger.seed, ledger.entropy = command.seed, command.entropy
    ledger.revealed_epoch = ledger.epoch
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _advance_epoch(ledger: DrawLedger, command: AdvanceEpoch, now_ms: int) -> DrawOutcome:
    if _config(ledger, now_ms) is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    ledger.epoch = max(ledger.epoch, command.epoch_min) + 1
    return DrawOutcome(DrawStatus.DONE)


_HANDLERS: Final[dict[type, Callable[[DrawLedger, Any, int], DrawOutcome]]] = {
    CreateDraw: _create,
    SubmitApplication: _submit,
    WithdrawApplication: _withdraw,
    CloseDraw: _close,
    OfferDay: _offer_day,
    FreezeDraw: _freeze,
    RevealSeed: _reveal,
    AdvanceEpoch: _advance_epoch,
}


def outcome_of_receipt(
    application: StoredApplication | None, draw_epoch: int, number: int, version: int, epoch: int
) -> DrawOutcome:
    """Return what a draw knows of a receipt.

    Args:
        application: Application that the draw has of the applicant, or ``None``.
        draw_epoch: Epoch of the draw.
        number: Number on the receipt.
        version: Version on the receipt.
        epoch: Epoch on the receipt.

    Returns:
        ``APPLIED`` or ``WITHDRAWN`` if the draw has the receipt's version. ``STALE`` if the application was changed
        after it. ``APPLICATION_LOST`` if a failover has lost it. ``NOT_FOUND`` if there is no application although
        nothing was lost since the receipt. The outcome shows the application that the draw has.
    """
    if application is None or application.number != number:
        lost = epoch != draw_epoch
        return _outcome_of(DrawStatus.APPLICATION_LOST if lost else DrawStatus.NOT_FOUND, application)
    if is_lost(application.version, application.epoch, version, epoch, draw_epoch):
        return _outcome_of(DrawStatus.APPLICATION_LOST, application)
    if application.version != version:
        return _outcome_of(DrawStatus.STALE, application)
    return _outcome_of(DrawStatus.APPLIED if application.applicants else DrawStatus.WITHDRAWN, application)


# --- Answers to queries --------------------------------------------------------------------------------------------


def answer_query(ledger: DrawLedger, query: DrawQuery, now_ms: int) -> Any:
    """Answer a query without a change. A draw that does not exist is empty.

    Args:
        ledger: The draw.
        query: The query. Its class states what is returned.
        now_ms: The store's time; see :func:`apply`.
    """
    now_ms = max(now_ms, ledger.now_ms)
    config = _config(ledger, now_ms)
    match query:
        case ReadDraw():
            return None if config is None else _view(ledger, config, now_ms)
        case FindApplication(applicant):
            return None if config is None else _find(ledger, applicant)
        case ReadApplications(after, limit):
            stored = {} if config is None else ledger.applications
            page = (stored.get(number) for number in range(after + 1, min(after + limit, ledger.last_number) + 1))
            return [application for application in page if application is not None and application.applicants]
        case ReadPreferences(after, limit):
            return [] if config is None else ledger.preferences[after : after + limit]
        case ReadOfferedDays(after, limit):
            days = [] if config is None else list(ledger.offered_days.items())[after : after + limit]
            return [OfferDay(office, day, quotas) for (office, day), quotas in days]


def _find(ledger: DrawLedger, applicant: str) -> FoundApplication | None:
    number = ledger.application_of.get(applicant) or ledger.assigned_numbers.get(applicant, 0)
    application = ledger.applications.get(number)
    if application is None:
        return None
    return FoundApplication(application, tuple(ledger.preferences[one - 1] for one in application.preferences))


def _view(ledger: DrawLedger, config: DrawConfig, now_ms: int) -> DrawView:
    return DrawView(
        ledger.draw,
        phase_of(config, ledger.frozen is not None, bool(ledger.seed), now_ms),
        config,
        ledger.active_applications,
        ledger.active_applicants,
        ledger.last_number,
        len(ledger.preferences),
        len(ledger.offered_days),
        ledger.frozen,
        ledger.seed,
        ledger.entropy,
        ledger.epoch,
        ledger.frozen_epoch,
        ledger.revealed_epoch,
    )


def phase_of(config: DrawConfig, is_frozen: bool, is_revealed: bool, now_ms: int) -> DrawPhase:
    """Return the phase of a draw.

    Args:
        config: Settings of the draw.
        is_frozen: True if the draw is frozen.
        is_revealed: True if the seed is revealed.
        now_ms: The store's time, in milliseconds since 1970 (UTC).
    """
    if is_revealed:
        return DrawPhase.REVEALED
    if is_frozen:
        return DrawPhase.FROZEN
    if now_ms >= config.closes_at_ms:
        return DrawPhase.CLOSED
    return DrawPhase.OPEN if now_ms >= config.opens_at_ms else DrawPhase.ANNOUNCED


def describe(ledger: DrawLedger) -> dict[str, Any]:
    """Return the whole state as a dictionary, to compare stores."""
    return {
        "now_ms": ledger.now_ms,
        "config": ledger.config,
        "closed": ledger.closed,
        "frozen": ledger.frozen,
        "seed": ledger.seed,
        "entropy": ledger.entropy,
        "epoch": ledger.epoch,
        "frozen_epoch": ledger.frozen_epoch,
        "revealed_epoch": ledger.revealed_epoch,
        "last_number": ledger.last_number,
        "active_applications": ledger.active_applications,
        "active_applicants": ledger.active_applicants,
        "applications": dict(sorted(ledger.applications.items())),
        "assigned_numbers": dict(sorted(ledger.assigned_numbers.items())),
        "application_of": dict(sorted(ledger.application_of.items())),
        "preferences": list(ledger.preferences),
        "offered_days": list(ledger.offered_days.items()),
    }
