"""Collecting the applications of a draw: a ledger of its own kind, at the place ``~draw.ID``.

It takes applications from ``opens_at_ms`` until before ``closes_at_ms``, by the store's time; later nothing of them can
change. Then its capacities are written down and frozen with the digests of both, and only after that the seed is taken,
and only the one that was committed to. From there on the result follows (see ``draw``), whoever works it out.

An applicant has one number for good: that of the applications in which they stand first. So numbers are as many as
people, however often somebody withdraws and applies again. An application is changed only by those who say which
version of it they saw: a command that arrives late, after another has been carried out, changes nothing.
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
]

import enum
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from quota_engine.domain.commands import DAY_MAX
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
"""The most applications, wishes or days that one question is answered with."""
OFFERED_DAYS_MAX: Final = 100_000
DAYS_MAX: Final = 400
VERSION_MAX: Final = 2**31

_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch

Row = tuple[tuple[str, int], ...]
"""The units of an office-day: quota and units, in the order given."""


def address_of(draw: str) -> str:
    """Where the ledger of a draw is. Raises :class:`InvalidRequest` for an id that is none."""
    check_name(draw, "draw")
    return f"{PREFIX}.{draw}"


def check_digest(value: object, where: str) -> None:
    """Raise :class:`InvalidRequest` unless ``value`` is a SHA-256 in hex."""
    if not isinstance(value, str) or _is_digest(value) is None:
        raise InvalidRequest(where, "not a SHA-256", "64 of the digits 0-9 a-f")


class DrawConfig(msgspec.Struct, frozen=True):
    """What is promised when a draw is announced. It can't be changed any more.

    Wishes are for the days from ``first_day`` to ``last_day`` (ordinals). ``entropy_source`` says in words which public
    text will be mixed into the seed ("closing price of the index on 2026-12-01"); empty: none will be.
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
            raise InvalidRequest("draw", "its times are out of order", "opens < closes <= forget")
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
    """Announce a draw."""

    config: DrawConfig


class SubmitApplication(msgspec.Struct, frozen=True, gc=False):
    """Apply as a party, or change what was applied for: the wishes, the best one first, and the others of the party.

    ``version`` is that of the application as the asker saw it; 0: they have none.
    """

    applicants: tuple[str, ...]
    preferences: tuple[Preference, ...]
    expected_version: int = 0

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
        check_integer(self.expected_version, "version", 0, VERSION_MAX)


class WithdrawApplication(msgspec.Struct, frozen=True, gc=False):
    """Take an application back. Any one of the party can, for all of it. ``version`` is what they saw."""

    applicant: str
    expected_version: int

    def __post_init__(self) -> None:
        check_name(self.applicant, "applicant")
        check_integer(self.expected_version, "version", 1, VERSION_MAX)


class CloseDraw(msgspec.Struct, frozen=True, gc=False):
    """Note that the time to apply is over, so that no clock can bring it back."""


class OfferDay(msgspec.Struct, frozen=True):
    """Write down what the draw gives away of an office-day. The first word counts: it is not changed by a second."""

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
    """Fix what the draw is made from, by digests that can be published: from here on the seed may be revealed."""

    applications: int
    applications_digest: str
    capacities_digest: str

    def __post_init__(self) -> None:
        check_integer(self.applications, "applications", 0, APPLICATIONS_MAX)
        check_digest(self.applications_digest, "applications_digest")
        check_digest(self.capacities_digest, "capacities_digest")


class RevealSeed(msgspec.Struct, frozen=True, gc=False):
    """Reveal the seed that was committed to, and the public text that is mixed into it."""

    draw: str
    seed: str
    entropy: str = ""

    def __post_init__(self) -> None:
        check_name(self.draw, "draw")
        check_seed(self.seed)
        check_entropy(self.entropy)

    @property
    def commitment(self) -> str:
        """What was published of this seed, if it is the right one."""
        return commitment_of(self.draw, self.seed)


DrawCommand = CreateDraw | SubmitApplication | WithdrawApplication | CloseDraw | OfferDay | FreezeDraw | RevealSeed

DRAW_CREATING_COMMANDS: Final = frozenset[type]({CreateDraw})


# --- Answers -------------------------------------------------------------------------------------------------------


class DrawStatus(enum.StrEnum):
    """The answer to a command in a word. Members stand in order of precedence: the first that applies is the answer."""

    OVERLOADED = "OVERLOADED"
    """Too many calls wait for the store already: this one was turned away before anything was looked at."""
    UNKNOWN_DRAW = "UNKNOWN_DRAW"
    """There is no draw of this id, or it has been forgotten."""
    DRAW_OVER = "DRAW_OVER"
    """It would be forgotten at once."""
    NOT_OPEN = "NOT_OPEN"
    """Applications are taken from ``retry_at_ms`` on."""
    APPLICATIONS_CLOSED = "APPLICATIONS_CLOSED"
    """The time to apply, or to withdraw, is over."""
    STILL_OPEN = "STILL_OPEN"
    """Applications are taken until ``retry_at_ms``."""
    NOT_CLOSED = "NOT_CLOSED"
    """The draw has to be closed before this."""
    NOT_FROZEN = "NOT_FROZEN"
    """The applications have to be frozen, and published, before the seed is revealed."""
    CONFLICT = "CONFLICT"
    """It has been done already with something else; or it is not what was committed to, or not what is there."""
    FROZEN = "FROZEN"
    """What the draw gives away is fixed."""
    PARTY_TOO_LARGE = "PARTY_TOO_LARGE"
    """More applicants than may apply together."""
    TOO_MANY_CHOICES = "TOO_MANY_CHOICES"
    """More choices than may be ranked."""
    NOT_IN_DRAW = "NOT_IN_DRAW"
    """A day that is not among those of the draw."""
    NOT_FOUND = "NOT_FOUND"
    """This applicant has no application."""
    ALREADY_APPLIED = "ALREADY_APPLIED"
    """An applicant is in another application."""
    STALE = "STALE"
    """The application is not at the version given; the one that it is at comes along."""
    DRAW_FULL = "DRAW_FULL"
    """As many applications, or different choices, as the draw takes."""

    APPLIED = "APPLIED"
    """The application is as asked for, under ``number``, at ``version``."""
    WITHDRAWN = "WITHDRAWN"
    """The application is taken back; its number stays its first applicant's."""
    DONE = "DONE"
    """An operator's step has been carried out."""


class DrawOutcome(msgspec.Struct, frozen=True, gc=False):
    """The answer to a command.

    ``number`` and ``version`` are those of the asker's application. ``replayed`` says that it was so already.
    ``quotas`` is what is written down of the day that ``OfferDay`` asked about. ``tokens`` stand for the applicants in
    what is published; whoever has the key adds them, and no ledger knows them.
    """

    status: DrawStatus
    number: int = 0
    version: int = 0
    replayed: bool = False
    retry_at_ms: int = 0
    quotas: Row = ()
    tokens: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.status in _SUCCESSES


_SUCCESSES: Final = frozenset({DrawStatus.APPLIED, DrawStatus.WITHDRAWN, DrawStatus.DONE})


class DrawPhase(enum.StrEnum):
    """How far a draw has come."""

    ANNOUNCED = "announced"
    OPEN = "open"
    CLOSED = "closed"
    FROZEN = "frozen"
    REVEALED = "revealed"


class FrozenInputs(msgspec.Struct, frozen=True, gc=False):
    """What was fixed before the seed was revealed; see :class:`FreezeDraw`."""

    applications: int
    applications_digest: str
    capacities_digest: str


class DrawView(msgspec.Struct, frozen=True):
    """A draw as it stands. ``applications`` are those that have not been withdrawn; ``last_number`` counts all."""

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


class StoredApplication(msgspec.Struct, frozen=True, gc=False):
    """An application as it stands. ``wishes`` are numbers of the draw's wishes, from 1; none: it has been withdrawn."""

    number: int
    version: int
    applicants: tuple[str, ...]
    preferences: tuple[int, ...]


class FoundApplication(msgspec.Struct, frozen=True, gc=False):
    """An application with its wishes as such, the best one first."""

    application: StoredApplication
    preferences: tuple[Preference, ...]


# --- Questions -----------------------------------------------------------------------------------------------------


class ReadDraw(msgspec.Struct, frozen=True, gc=False):
    """The draw as it stands: a :class:`DrawView`, or ``None``."""


class FindApplication(msgspec.Struct, frozen=True, gc=False):
    """The application that an applicant is in, or what is left of one they withdrew: :class:`Found`, or ``None``."""

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
    """The applications with numbers from ``after + 1`` to ``after + limit`` that have not been withdrawn."""


class ReadPreferences(_Page, frozen=True, gc=False):
    """The wishes with numbers from ``after + 1`` to ``after + limit``."""


class ReadOfferedDays(_Page, frozen=True, gc=False):
    """The office-days that have been written down, without the first ``after`` of them: :class:`OfferDay`."""


DrawQuery = ReadDraw | FindApplication | ReadApplications | ReadPreferences | ReadOfferedDays


# --- The ledger ----------------------------------------------------------------------------------------------------


class DrawLedger:
    """All that is known about one draw."""

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
        "frozen",
        "last_number",
        "now_ms",
        "offered_days",
        "preference_numbers",
        "preferences",
        "seed",
    )

    def __init__(self, place: str) -> None:
        self.draw = place.partition(".")[2]
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.now_ms = 0
        self.config: DrawConfig | None = None
        self.closed = False
        self.frozen: FrozenInputs | None = None
        self.seed = ""
        self.entropy = ""
        self.last_number = 0
        self.active_applicants = 0
        self.active_applications = 0
        self.applications: dict[int, StoredApplication] = {}
        """By number, withdrawn ones too, which have nobody in them."""
        self.assigned_numbers: dict[str, int] = {}
        """By applicant, the number that is theirs for good."""
        self.application_of: dict[str, int] = {}
        """By applicant, the application that they are in."""
        self.preferences: list[Preference] = []
        self.preference_numbers: dict[Preference, int] = {}
        self.offered_days: dict[tuple[str, int], Row] = {}


def apply(ledger: DrawLedger, command: DrawCommand, now_ms: int) -> DrawOutcome:
    """Carry out one command, or refuse it; a refusal changes nothing."""
    return _HANDLERS[type(command)](ledger, command, max(now_ms, ledger.now_ms))


def _create(ledger: DrawLedger, command: CreateDraw, now_ms: int) -> DrawOutcome:
    if _known(ledger, now_ms) is not None:
        same = ledger.config == command.config
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    if command.config.forget_at_ms <= now_ms:
        return DrawOutcome(DrawStatus.DRAW_OVER)
    ledger.clear()
    ledger.config = command.config
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _known(ledger: DrawLedger, now_ms: int) -> DrawConfig | None:
    terms = ledger.config
    return None if terms is None or terms.forget_at_ms <= now_ms else terms


def _apply(ledger: DrawLedger, command: SubmitApplication, now_ms: int) -> DrawOutcome:
    terms = _known(ledger, now_ms)
    refusal = _refusal_by_time(ledger, terms, now_ms)
    if refusal is not None:
        return refusal
    assert terms is not None
    if len(command.applicants) > terms.party_max:
        return DrawOutcome(DrawStatus.PARTY_TOO_LARGE)
    if len(command.preferences) > terms.choices_max:
        return DrawOutcome(DrawStatus.TOO_MANY_CHOICES)
    if not all(terms.first_day <= wish.day <= terms.last_day for wish in command.preferences):
        return DrawOutcome(DrawStatus.NOT_IN_DRAW)
    number = ledger.assigned_numbers.get(command.applicants[0], 0)
    if any(ledger.application_of.get(applicant, number) != number for applicant in command.applicants):
        return DrawOutcome(DrawStatus.ALREADY_APPLIED)
    before = ledger.applications.get(number)
    version = 0 if before is None else before.version
    if before is not None and _same(ledger, before, command):
        return DrawOutcome(DrawStatus.APPLIED, number, version, replayed=True)
    if command.expected_version != version:
        return DrawOutcome(DrawStatus.STALE, number, version)
    new_wishes = sum(wish not in ledger.preference_numbers for wish in command.preferences)
    if (not number and ledger.last_number >= terms.applications_max) or len(
        ledger.preferences
    ) + new_wishes > PREFERENCES_MAX:
        return DrawOutcome(DrawStatus.DRAW_FULL)
    # From here on nothing can fail.
    if not number:
        ledger.last_number += 1
        number = ledger.assigned_numbers[command.applicants[0]] = ledger.last_number
    _leave(ledger, before)
    for applicant in command.applicants:
        ledger.application_of[applicant] = number
    numbers = tuple(_number_of(ledger, wish) for wish in command.preferences)
    ledger.applications[number] = StoredApplication(number, version + 1, command.applicants, numbers)
    ledger.active_applications += 1
    ledger.active_applicants += len(command.applicants)
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.APPLIED, number, version + 1)


def _refusal_by_time(ledger: DrawLedger, terms: DrawConfig | None, now_ms: int) -> DrawOutcome | None:
    """Why nobody can apply or withdraw now, or ``None``."""
    if terms is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if now_ms < terms.opens_at_ms:
        return DrawOutcome(DrawStatus.NOT_OPEN, retry_at_ms=terms.opens_at_ms)
    if now_ms >= terms.closes_at_ms:
        return DrawOutcome(DrawStatus.APPLICATIONS_CLOSED)
    return None


def _same(ledger: DrawLedger, before: StoredApplication, command: SubmitApplication) -> bool:
    wishes = tuple(ledger.preference_numbers.get(wish, 0) for wish in command.preferences)
    return before.applicants == command.applicants and before.preferences == wishes


def _number_of(ledger: DrawLedger, wish: Preference) -> int:
    number = ledger.preference_numbers.get(wish)
    if number is None:
        ledger.preferences.append(wish)
        number = ledger.preference_numbers[wish] = len(ledger.preferences)
    return number


def _leave(ledger: DrawLedger, before: StoredApplication | None) -> None:
    """Nobody is in this application any more."""
    if before is not None and before.applicants:
        ledger.active_applications -= 1
        ledger.active_applicants -= len(before.applicants)
        for applicant in before.applicants:
            del ledger.application_of[applicant]


def _withdraw(ledger: DrawLedger, command: WithdrawApplication, now_ms: int) -> DrawOutcome:
    refusal = _refusal_by_time(ledger, _known(ledger, now_ms), now_ms)
    if refusal is not None:
        return refusal
    number = ledger.application_of.get(command.applicant)
    if number is None:
        before = ledger.applications.get(ledger.assigned_numbers.get(command.applicant, 0))
        # Sent again: it is as withdrawn as the first time left it. Only who has the number can be told so.
        if before is not None and not before.applicants and before.version == command.expected_version + 1:
            return DrawOutcome(DrawStatus.WITHDRAWN, before.number, before.version, replayed=True)
        return DrawOutcome(DrawStatus.NOT_FOUND)
    before = ledger.applications[number]
    if before.version != command.expected_version:
        return DrawOutcome(DrawStatus.STALE, number, before.version)
    _leave(ledger, before)
    ledger.applications[number] = StoredApplication(number, before.version + 1, (), ())
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.WITHDRAWN, number, before.version + 1)


def _close(ledger: DrawLedger, command: CloseDraw, now_ms: int) -> DrawOutcome:
    terms = _known(ledger, now_ms)
    if terms is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if now_ms < terms.closes_at_ms:
        return DrawOutcome(DrawStatus.STILL_OPEN, retry_at_ms=terms.closes_at_ms)
    if ledger.closed:
        return DrawOutcome(DrawStatus.DONE, replayed=True)
    ledger.closed = True
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _offer_day(ledger: DrawLedger, command: OfferDay, now_ms: int) -> DrawOutcome:
    terms = _known(ledger, now_ms)
    if terms is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if not ledger.closed:
        return DrawOutcome(DrawStatus.NOT_CLOSED)
    known = ledger.offered_days.get((command.office, command.day))
    if known is not None:
        return DrawOutcome(DrawStatus.DONE, replayed=True, quotas=known)
    if ledger.frozen is not None:
        return DrawOutcome(DrawStatus.FROZEN)
    if not terms.first_day <= command.day <= terms.last_day:
        return DrawOutcome(DrawStatus.NOT_IN_DRAW)
    if len(ledger.offered_days) >= OFFERED_DAYS_MAX:
        return DrawOutcome(DrawStatus.DRAW_FULL)
    ledger.offered_days[command.office, command.day] = command.quotas
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE, quotas=command.quotas)


def _freeze(ledger: DrawLedger, command: FreezeDraw, now_ms: int) -> DrawOutcome:
    if _known(ledger, now_ms) is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if not ledger.closed:
        return DrawOutcome(DrawStatus.NOT_CLOSED)
    frozen = FrozenInputs(command.applications, command.applications_digest, command.capacities_digest)
    if ledger.frozen is not None:
        same = ledger.frozen == frozen
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    if command.applications != ledger.active_applications:
        return DrawOutcome(DrawStatus.CONFLICT)
    ledger.frozen = frozen
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


def _reveal(ledger: DrawLedger, command: RevealSeed, now_ms: int) -> DrawOutcome:
    terms = _known(ledger, now_ms)
    if terms is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    if ledger.frozen is None:
        return DrawOutcome(DrawStatus.NOT_FROZEN)
    if command.commitment != terms.commitment or bool(command.entropy) != bool(terms.entropy_source):
        return DrawOutcome(DrawStatus.CONFLICT)
    if ledger.seed:
        same = ledger.entropy == command.entropy
        return DrawOutcome(DrawStatus.DONE, replayed=True) if same else DrawOutcome(DrawStatus.CONFLICT)
    ledger.seed, ledger.entropy = command.seed, command.entropy
    ledger.now_ms = now_ms
    return DrawOutcome(DrawStatus.DONE)


_HANDLERS: Final[dict[type, Callable[[DrawLedger, Any, int], DrawOutcome]]] = {
    CreateDraw: _create,
    SubmitApplication: _apply,
    WithdrawApplication: _withdraw,
    CloseDraw: _close,
    OfferDay: _offer_day,
    FreezeDraw: _freeze,
    RevealSeed: _reveal,
}


# --- Looking at it -------------------------------------------------------------------------------------------------


def answer_query(ledger: DrawLedger, question: DrawQuery, now_ms: int) -> Any:
    """Answer a question, and change nothing. A draw that is not known has nothing in it."""
    now_ms = max(now_ms, ledger.now_ms)
    terms = _known(ledger, now_ms)
    match question:
        case ReadDraw():
            return None if terms is None else _view(ledger, terms, now_ms)
        case FindApplication(applicant):
            number = ledger.application_of.get(applicant) or ledger.assigned_numbers.get(applicant, 0)
            applied = None if terms is None else ledger.applications.get(number)
            return applied and FoundApplication(
                applied, tuple(ledger.preferences[one - 1] for one in applied.preferences)
            )
        case ReadApplications(after, limit):
            known = {} if terms is None else ledger.applications
            found = (known.get(number) for number in range(after + 1, min(after + limit, ledger.last_number) + 1))
            return [one for one in found if one is not None and one.applicants]
        case ReadPreferences(after, limit):
            return [] if terms is None else ledger.preferences[after : after + limit]
        case ReadOfferedDays(after, limit):
            days = [] if terms is None else list(ledger.offered_days.items())[after : after + limit]
            return [OfferDay(office, day, quotas) for (office, day), quotas in days]


def _view(ledger: DrawLedger, terms: DrawConfig, now_ms: int) -> DrawView:
    return DrawView(
        ledger.draw,
        phase_of(terms, ledger.frozen is not None, bool(ledger.seed), now_ms),
        terms,
        ledger.active_applications,
        ledger.active_applicants,
        ledger.last_number,
        len(ledger.preferences),
        len(ledger.offered_days),
        ledger.frozen,
        ledger.seed,
        ledger.entropy,
    )


def phase_of(terms: DrawConfig, is_frozen: bool, is_revealed: bool, now_ms: int) -> DrawPhase:
    """How far a draw has come at ``now_ms``."""
    if is_revealed:
        return DrawPhase.REVEALED
    if is_frozen:
        return DrawPhase.FROZEN
    if now_ms >= terms.closes_at_ms:
        return DrawPhase.CLOSED
    return DrawPhase.OPEN if now_ms >= terms.opens_at_ms else DrawPhase.ANNOUNCED


def describe(ledger: DrawLedger) -> dict[str, Any]:
    """The whole state, for comparisons."""
    return {
        "now_ms": ledger.now_ms,
        "config": ledger.config,
        "closed": ledger.closed,
        "frozen": ledger.frozen,
        "seed": ledger.seed,
        "entropy": ledger.entropy,
        "last_number": ledger.last_number,
        "active_applications": ledger.active_applications,
        "active_applicants": ledger.active_applicants,
        "applications": dict(sorted(ledger.applications.items())),
        "assigned_numbers": dict(sorted(ledger.assigned_numbers.items())),
        "application_of": dict(sorted(ledger.application_of.items())),
        "preferences": list(ledger.preferences),
        "offered_days": list(ledger.offered_days.items()),
    }
