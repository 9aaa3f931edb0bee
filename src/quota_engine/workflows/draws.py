"""Draws, from the announcement to the holds of the winners: each step a flow, which may be repeated after any crash.

The order of the steps is held by the draw's ledger: applications end with the store's time; then :func:`close` writes
down what is given away and freezes both; then :func:`run` reveals the seed. From there on everything follows:
:func:`read` and :func:`drawn` work the result out anew whenever somebody asks, and :func:`award` makes the winners'
reserves under ids that follow from the draw and the number, so that doing it twice does it once.
"""

from __future__ import annotations

__all__ = [
    "NOTHING_AWARDED",
    "REFUSALS_SHOWN_MAX",
    "AwardReport",
    "DrawChoice",
    "DrawFiles",
    "DrawRecord",
    "SubmittedApplication",
    "award",
    "award_id",
    "close",
    "create",
    "drawn",
    "enter",
    "find",
    "read",
    "run",
    "withdraw",
]

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from quota_engine.catalog import Selection
from quota_engine.domain.commands import ReleaseParked, Reserve
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.outcomes import DayView, Status
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer
from quota_engine.draws import lottery
from quota_engine.draws.files import (
    ResultHead,
    digest_of,
    json_of_capacities,
    line_of_application,
    lines_of_result,
    pseudonym_of,
    result_head,
)
from quota_engine.draws.ledger import (
    PAGE_MAX,
    CloseDraw,
    CreateDraw,
    DrawConfig,
    DrawOutcome,
    DrawQuery,
    DrawStatus,
    DrawView,
    FindApplication,
    FoundApplication,
    FreezeDraw,
    OfferDay,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    RevealSeed,
    Row,
    StoredApplication,
    SubmitApplication,
    WithdrawApplication,
    address_of,
)
from quota_engine.draws.lottery import (
    APPLICATIONS_MAX,
    Capacities,
    Lot,
    Preference,
    allot,
    commitment_of,
    key_of,
    totals_of,
)
from quota_engine.ports import ApplyMany, Query, View
from quota_engine.workflows.arguments import Applicants, Day
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.national_claims import reserve_all
from quota_engine.workflows.request_builder import RequestBuilder

REFUSALS_SHOWN_MAX: Final = 1_000
_RESERVES_PER_CALL: Final = 1_024
_DAYS_PER_VIEW: Final = 128
_TOKENS, _AWARDS = "draw tokens", "draw awards"
"""What the secrets are for that follow from the identity key."""


class DrawChoice(msgspec.Struct, frozen=True):
    """One of the things that somebody applies for: as the arguments of :meth:`quota_engine.QuotaEngine.reserve`."""

    office: str
    day: Day
    service: str = ""
    service_unit: str = ""
    session: str = ""
    channel: str = "online"
    group: str = ""

    @property
    def selection(self) -> Selection:
        """The five ids as one value."""
        return Selection(self.service, self.service_unit, self.session, self.channel, self.group)


class SubmittedApplication(msgspec.Struct, frozen=True):
    """An application as it stands. ``number`` and ``tokens`` are its receipt: the published list has them in its line.

    ``version`` is what a change has to name. Without ``choices`` it has been withdrawn. ``tokens`` stand for the
    applicants in what is published, and for nothing anywhere else.
    """

    number: int
    version: int
    tokens: tuple[str, ...]
    choices: tuple[Preference, ...]


class DrawRecord(msgspec.Struct, frozen=True):
    """All of a draw that its result follows from. ``parties`` are the keyed hashes of the applicants, by number."""

    view: DrawView
    capacities: Capacities
    parties: Mapping[int, tuple[str, ...]]
    applications: Mapping[int, lottery.Application]
    """By number, as they are published: with a token for each applicant."""
    applications_digest: str


class DrawFiles(msgspec.Struct, frozen=True):
    """What is published of a draw, each file in its canonical form.

    ``head`` and ``lots`` are there when the seed has been revealed. ``findings`` says what is not as it was frozen, a
    sentence each: then the store has been tampered with, or another identity key is in use.
    """

    record: DrawRecord
    head: ResultHead | None
    lots: Sequence[Lot]
    findings: tuple[str, ...]

    @property
    def capacities_json(self) -> bytes:
        """The file ``capacities.json``."""
        return json_of_capacities(self.record.capacities)

    def application_lines(self) -> Iterator[bytes]:
        """The lines of the file ``applications.jsonl``."""
        applications = self.record.applications
        return (line_of_application(applications[number]) for number in sorted(applications))

    def result_lines(self) -> Iterator[bytes]:
        """The lines of the file ``result.jsonl``; none before the seed has been revealed."""
        return iter(()) if self.head is None else lines_of_result(self.head, self.lots, self.record.applications)


class AwardReport(msgspec.Struct, frozen=True):
    """What became of the winners.

    ``references`` are those of the winners' reservations, by number of application: held now, or whatever they have
    become since they were. ``refusals`` counts by status those that the office refused, and ``refused`` has the first
    :data:`REFUSALS_SHOWN_MAX` of them: a place that a winner could not be given stays free, and goes to the next draw.
    """

    winners: int
    references: Mapping[int, str]
    refusals: Mapping[Status, int]
    refused: tuple[tuple[int, Status], ...]
    findings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every winner has, or had, a hold."""
        return not self.refusals and not self.findings


NOTHING_AWARDED: Final = AwardReport(0, {}, {}, (), ("there is no such draw",))


# --- Steps of one command ------------------------------------------------------------------------------------------


def create(draw_id: str, config: DrawConfig) -> Workflow[DrawOutcome]:
    """Announce a draw."""
    outcome: DrawOutcome = yield Apply(address_of(draw_id), CreateDraw(config))
    return outcome


def enter(
    requests: RequestBuilder, draw_id: str, applicants: Applicants, choices: Sequence[DrawChoice], expected_version: int
) -> Workflow[DrawOutcome]:
    """Apply, or change an application."""
    if not isinstance(choices, list | tuple) or not all(isinstance(one, DrawChoice) for one in choices):
        raise InvalidRequest("choices", "not a list of choices", "DrawChoice(office, day, ...), the best one first")
    wishes = []
    for one in choices:
        day, choice = requests.plan(one.office, one.day, one.selection)
        wishes.append(Preference(one.office, day, choice))
    command = SubmitApplication(requests.party_hashes(applicants), tuple(wishes), expected_version)
    outcome: DrawOutcome = yield Apply(address_of(draw_id), command)
    if not outcome.ok:
        return outcome
    tokens = _tokens(requests.secret_for(_TOKENS), draw_id, command.applicants)
    return msgspec.structs.replace(outcome, tokens=tokens)


def withdraw(requests: RequestBuilder, draw_id: str, applicant: str, expected_version: int) -> Workflow[DrawOutcome]:
    """Take an application back."""
    outcome: DrawOutcome = yield Apply(
        address_of(draw_id), WithdrawApplication(requests.owner_hash(applicant, "applicant"), expected_version)
    )
    return outcome


def find(requests: RequestBuilder, draw_id: str, applicant: str) -> Workflow[SubmittedApplication | None]:
    """The application that somebody is in."""
    found: FoundApplication | None = yield Query(
        address_of(draw_id), FindApplication(requests.owner_hash(applicant, "applicant"))
    )
    if found is None:
        return None
    applied = found.application
    tokens = _tokens(requests.secret_for(_TOKENS), draw_id, applied.applicants)
    return SubmittedApplication(applied.number, applied.version, tokens, found.preferences)


def _tokens(key: bytes, draw_id: str, applicants: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([pseudonym_of(applicant, draw_id, key) for applicant in applicants])


# --- Closing -------------------------------------------------------------------------------------------------------


def close(requests: RequestBuilder, draw_id: str) -> Workflow[DrawOutcome]:
    """Close a draw, write down what it gives away, and freeze both. Repeated, it goes on where it ended."""
    place = address_of(draw_id)
    outcome: DrawOutcome = yield Apply(place, CloseDraw())
    view: DrawView | None = yield Query(place, ReadDraw())
    if not outcome.ok or view is None or view.frozen is not None:
        return outcome
    wishes: list[Preference] = yield from _pages(place, ReadPreferences, view.preferences)
    yield from _write_capacities(place, wishes)
    record = yield from read(requests, draw_id)
    if record is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    outcome = yield Apply(
        place,
        FreezeDraw(
            len(record.applications),
            record.applications_digest,
            digest_of([json_of_capacities(record.capacities)]),
        ),
    )
    return outcome


def _write_capacities(place: str, wishes: Sequence[Preference]) -> Workflow[None]:
    """What is available now of all that somebody wishes for, and what has been parked for this draw."""
    quotas_of: dict[str, dict[int, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for wish in wishes:
        for option in wish.choice.options:
            quotas_of[wish.office][wish.day].update(dict.fromkeys(option))
    view: DrawView | None = yield Query(place, ReadDraw())
    written: list[OfferDay] = yield from _pages(place, ReadOfferedDays, 0 if view is None else view.offered_days)
    known = {(one.office, one.day) for one in written}
    for office, days in sorted(quotas_of.items()):
        missing = sorted(day for day in days if (office, day) not in known)
        for start in range(0, len(missing), _DAYS_PER_VIEW):
            part = tuple(missing[start : start + _DAYS_PER_VIEW])
            # The time of the draw has come for what waited for it.
            views: list[DayView] = yield View(office, part)
            parked = tuple(
                ReleaseParked(one.day, quota)
                for one in views
                for quota in sorted(days[one.day])
                if quota in one.quotas and one.quotas[quota].parked
            )
            if parked:
                yield ApplyMany(office, parked)
                views = yield View(office, part)
            by_day = {one.day: one for one in views}
            for day in part:
                row = _row(by_day.get(day), sorted(days[day]))
                yield Apply(place, OfferDay(office, day, row))


def _row(view: DayView | None, quotas: Sequence[str]) -> Row:
    """The units of these quotas; a day or a quota that is not known has none."""
    known = {} if view is None or view.closed else view.quotas
    return tuple((quota, known[quota].available if quota in known else 0) for quota in quotas)


# --- The result ----------------------------------------------------------------------------------------------------


def run(draw_id: str, seed: str, entropy: str) -> Workflow[DrawOutcome]:
    """Reveal the seed. From here on the draw is decided."""
    outcome: DrawOutcome = yield Apply(address_of(draw_id), RevealSeed(draw_id, seed, entropy))
    return outcome


def _pages(
    place: str, question: type[ReadApplications | ReadPreferences | ReadOfferedDays], count: int
) -> Workflow[list[Any]]:
    """All rows there are, page by page."""
    rows: list[Any] = []
    for after in range(0, count, PAGE_MAX):
        asked: DrawQuery = question(after, PAGE_MAX)
        rows += yield Query(place, asked)
    return rows


def read(requests: RequestBuilder, draw_id: str) -> Workflow[DrawRecord | None]:
    """All of a draw, once it is closed; ``None`` for one that is not known."""
    place = address_of(draw_id)
    view: DrawView | None = yield Query(place, ReadDraw())
    if view is None:
        return None
    wishes: list[Preference] = yield from _pages(place, ReadPreferences, view.preferences)
    days: list[OfferDay] = yield from _pages(place, ReadOfferedDays, view.offered_days)
    capacities = Capacities(
        draw_id,
        {(one.office, one.day): dict(one.quotas) for one in days},
        {f"c{number}": wish for number, wish in enumerate(wishes, 1)},
    )
    names = [f"c{number}" for number in range(len(wishes) + 1)]
    key = requests.secret_for(_TOKENS)
    digest = hashlib.sha256()
    parties: dict[int, tuple[str, ...]] = {}
    applications: dict[int, lottery.Application] = {}
    for after in range(0, view.last_number, PAGE_MAX):
        page: list[StoredApplication] = yield Query(place, ReadApplications(after, PAGE_MAX))
        for one in page:
            parties[one.number] = one.applicants
            application = lottery.Application(
                one.number,
                _tokens(key, draw_id, one.applicants),
                tuple([names[number] for number in one.preferences]),
            )
            applications[one.number] = application
            digest.update(line_of_application(application))  # page by page, so that nobody waits long for the loop
    return DrawRecord(view, capacities, parties, applications, digest.hexdigest())


def drawn(record: DrawRecord) -> DrawFiles:
    """Carry the draw out, if its seed has been revealed. Pure work, and much of it: seconds for a million."""
    view = record.view
    capacities_digest = digest_of([json_of_capacities(record.capacities)])
    findings: list[str] = []
    if view.frozen is not None:
        if record.applications_digest != view.frozen.applications_digest:
            findings.append("the applications are not those that were frozen")
        if capacities_digest != view.frozen.capacities_digest:
            findings.append("the capacities are not those that were frozen")
    if not view.seed:
        return DrawFiles(record, None, (), tuple(findings))
    if commitment_of(view.draw, view.seed) != view.config.commitment:
        findings.append("the seed is not the one that was committed to")
    lots = allot(record.capacities, key_of(view.draw, view.seed, view.entropy), record.applications.values())
    head = result_head(
        record.capacities,
        view.config.commitment,
        view.seed,
        view.entropy,
        capacities_digest,
        record.applications_digest,
        totals_of(record.applications, lots),
    )
    return DrawFiles(record, head, lots, tuple(findings))


def award_id(requests: RequestBuilder, draw_id: str, number: int) -> str:
    """The id of the reservation of a winner: the same whenever it is made, and for nobody else to guess."""
    key = requests.secret_for(_AWARDS)
    return hashlib.blake2b(f"{draw_id} {number}".encode(), key=key, digest_size=16).hexdigest()


def award(requests: RequestBuilder, files: DrawFiles, hold_ttl_ms: int, skip: int, limit: int) -> Workflow[AwardReport]:
    """Make the winners' places holds, in the order of the draw, office by office; repeated, it makes what is missing.
    ``skip`` winners have been seen to, and ``limit`` are next (0: all others).

    A winner who has let the hold end, or has given the place back, gets no second one: the id has been used.
    """
    check_integer(hold_ttl_ms, "hold_ttl_ms", 0, DURATION_MS_MAX)
    check_integer(skip, "skip", 0, APPLICATIONS_MAX)
    check_integer(limit, "limit", 0, APPLICATIONS_MAX)
    record = files.record
    winners = [lot for lot in files.lots if lot.preference]
    if files.head is None:
        return AwardReport(0, {}, {}, (), (*files.findings, "the seed has not been revealed"))
    if files.findings:
        return AwardReport(len(winners), {}, {}, (), files.findings)
    by_office: dict[str, list[tuple[int, Reserve]]] = defaultdict(list)
    for lot in winners[skip : skip + limit if limit else None]:
        wish = record.capacities.preferences[record.applications[lot.number].choices[lot.preference - 1]]
        reservation_id = award_id(requests, files.record.view.draw, lot.number)
        party = record.parties[lot.number]
        reserve = Reserve(reservation_id, wish.day, party, wish.choice, hold_ttl_ms=hold_ttl_ms)
        by_office[wish.office].append((lot.number, reserve))
    references: dict[int, str] = {}
    refusals: dict[Status, int] = defaultdict(int)
    refused: list[tuple[int, Status]] = []
    for office, reserves in sorted(by_office.items()):
        for start in range(0, len(reserves), _RESERVES_PER_CALL):
            part = reserves[start : start + _RESERVES_PER_CALL]
            outcomes = yield from reserve_all(requests, office, [reserve for _, reserve in part])
            for (number, _), outcome in zip(part, outcomes, strict=True):
                if outcome.ok or outcome.status is Status.RESERVATION_ENDED:
                    references[number] = outcome.reference
                else:
                    refusals[outcome.status] += 1
                    if len(refused) < REFUSALS_SHOWN_MAX:
                        refused.append((number, outcome.status))
    return AwardReport(len(winners), references, dict(refusals), tuple(refused))
