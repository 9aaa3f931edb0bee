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
    "OFFERED_DAYS_MAX",
    "PREFIX",
    "DrawLedger",
    "address_of",
    "answer_query",
    "apply",
    "describe",
    "is_lost",
    "outcome_of_receipt",
]

from collections.abc import Callable
from typing import Any, Final

from quota_engine.domain.epochs import EPOCH_FIRST, AdvanceEpoch
from quota_engine.domain.validation import check_name
from quota_engine.draws.commands import (
    CloseDraw,
    CreateDraw,
    DrawCommand,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    Row,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.lottery import PREFERENCES_MAX, Preference
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import (
    DrawPhase,
    DrawQuery,
    DrawView,
    FindApplication,
    FoundApplication,
    FrozenInputs,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    StoredApplication,
)

PREFIX: Final = "~draw"
OFFERED_DAYS_MAX: Final = 100_000


def address_of(draw: str) -> str:
    """Return the address of a draw's ledger.

    Raises:
        InvalidRequest: ``draw`` is not a valid id.
    """
    check_name(draw, "draw")
    return f"{PREFIX}.{draw}"


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
