"""Workflows of a draw, from its announcement to the holds of the winners. Each may be repeated after any crash.

The draw's ledger keeps the order of the steps. Applications end by the store's time. :func:`close` records the offered
places and freezes both. :func:`run` reveals the seed, which decides the draw. From then on, :func:`read` and
:func:`drawn` compute the result whenever it is needed. :func:`award` reserves for the winners, under ids that follow
from the draw and the number, so that a repeated award changes nothing.
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
    "award_draw",
    "award_id",
    "check_receipt",
    "close",
    "create",
    "drawn",
    "enter",
    "files_of",
    "find",
    "read",
    "run",
    "withdraw",
]

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from quota_engine.catalog import Selection
from quota_engine.domain.commands import ReleaseParked, Reserve
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.outcomes import DayView, Outcome, Status
from quota_engine.domain.validation import DURATION_MS_MAX, check_integer
from quota_engine.draws import lottery
from quota_engine.draws.commands import (
    VERSION_MAX,
    CloseDraw,
    CreateDraw,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    Row,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.files import (
    ResultHead,
    digest_of,
    json_of_capacities,
    line_of_application,
    lines_of_result,
    pseudonym_of,
    result_head,
)
from quota_engine.draws.ledger import address_of, outcome_of_receipt
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
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import (
    PAGE_MAX,
    DrawQuery,
    DrawView,
    FindApplication,
    FoundApplication,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    StoredApplication,
)
from quota_engine.ports import ApplyMany, Query, View
from quota_engine.workflows.arguments import Applicants, Day
from quota_engine.workflows.generator_drivers import Apply, Compute, Workflow
from quota_engine.workflows.jobs import Checkpoint
from quota_engine.workflows.national_claims import reserve_all
from quota_engine.workflows.request_builder import RequestBuilder

REFUSALS_SHOWN_MAX: Final = 1_000
_RESERVES_PER_CALL: Final = 1_024
_WINNERS_PER_STEP: Final = 4_096
_NEEDS_TIME: Final = "give it more time"
_DAYS_PER_VIEW: Final = 128
_TOKENS, _AWARDS = "draw tokens", "draw awards"
"""Purposes of the secrets that the engine derives from the identity key."""


class DrawChoice(msgspec.Struct, frozen=True):
    """One choice of an application, with the arguments of :meth:`quota_engine.QuotaEngine.reserve`."""

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
    """An application and its receipt.

    Args:
        number: number of the application; its line of the published list has it.
        version: version that a change must name.
        tokens: pseudonyms of the applicants in the published files, and nowhere else.
        choices: the choices in order of preference; empty if the application was withdrawn.
        epoch: epoch of the draw in which the application got this version.
    """

    number: int
    version: int
    tokens: tuple[str, ...]
    choices: tuple[Preference, ...]
    epoch: int = EPOCH_FIRST


class DrawRecord(msgspec.Struct, frozen=True):
    """Everything that the result of a draw follows from. ``parties`` has the applicants' keyed hashes by number."""

    view: DrawView
    capacities: Capacities
    parties: Mapping[int, tuple[str, ...]]
    applications: Mapping[int, lottery.Application]
    """By number, as they are published, with a token for each applicant."""
    applications_digest: str


class DrawFiles(msgspec.Struct, frozen=True):
    """The published files of a draw in their canonical form.

    Args:
        record: everything that the result follows from.
        head: head of the result; ``None`` before the seed is revealed.
        lots: the result of each application; empty before the seed is revealed.
        findings: differences from the frozen state. A finding means that the store was changed, or that another
            identity key is in use.
    """

    record: DrawRecord
    head: ResultHead | None
    lots: Sequence[Lot]
    findings: tuple[str, ...]

    @property
    def capacities_json(self) -> bytes:
        """The content of ``capacities.json``."""
        return json_of_capacities(self.record.capacities)

    def application_lines(self) -> Iterator[bytes]:
        """Return the lines of ``applications.jsonl``."""
        applications = self.record.applications
        return (line_of_application(applications[number]) for number in sorted(applications))

    def result_lines(self) -> Iterator[bytes]:
        """Return the lines of ``result.jsonl``; none before the seed is revealed."""
        return iter(()) if self.head is None else lines_of_result(self.head, self.lots, self.record.applications)


class AwardReport(msgspec.Struct, frozen=True):
    """Result of an award.

    A place that a winner could not get stays free, and goes to the next draw.

    Args:
        winners: number of winners of the draw.
        references: references of the winners' reservations by number of application. A reservation may have changed
            since it was held.
        refusals: number of winners that the office refused, by status.
        refused: the first :data:`REFUSALS_SHOWN_MAX` of them, as pairs of number and status.
        findings: differences from the frozen state.
    """

    winners: int
    references: Mapping[int, str]
    refusals: Mapping[Status, int]
    refused: tuple[tuple[int, Status], ...]
    findings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every winner has, or had, a hold."""
        return not self.refusals and not self.findings


NOTHING_AWARDED: Final = AwardReport(0, {}, {}, (), ("there is no such draw",))


# --- Steps of one command


def create(draw_id: str, config: DrawConfig) -> Workflow[DrawOutcome]:
    """Announce a draw: :meth:`quota_engine.Draw.create`."""
    outcome: DrawOutcome = yield Apply(address_of(draw_id), CreateDraw(config))
    return outcome


def enter(
    requests: RequestBuilder,
    draw_id: str,
    applicants: Applicants,
    choices: Sequence[DrawChoice],
    expected_version: int,
    expected_epoch: int,
) -> Workflow[DrawOutcome]:
    """Apply, or change an application: :meth:`quota_engine.Draw.apply`."""
    if not isinstance(choices, list | tuple) or not all(isinstance(one, DrawChoice) for one in choices):
        raise InvalidRequest("choices", "not a list of choices", "DrawChoice(office, day, ...), the best one first")
    preferences = []
    for one in choices:
        day, choice = requests.plan(one.office, one.day, one.selection)
        preferences.append(Preference(one.office, day, choice))
    command = SubmitApplication(requests.party_hashes(applicants), tuple(preferences), expected_version, expected_epoch)
    outcome: DrawOutcome = yield Apply(address_of(draw_id), command)
    if not outcome.ok:
        return outcome
    tokens = _tokens(requests.secret_for(_TOKENS), draw_id, command.applicants)
    return msgspec.structs.replace(outcome, tokens=tokens)


def withdraw(
    requests: RequestBuilder, draw_id: str, applicant: str, expected_version: int, expected_epoch: int
) -> Workflow[DrawOutcome]:
    """Withdraw an application: :meth:`quota_engine.Draw.withdraw`."""
    outcome: DrawOutcome = yield Apply(
        address_of(draw_id),
        WithdrawApplication(requests.owner_hash(applicant, "applicant"), expected_version, expected_epoch),
    )
    return outcome


def check_receipt(
    requests: RequestBuilder, draw_id: str, applicant: str, number: int, version: int, epoch: int
) -> Workflow[DrawOutcome]:
    """Return what the draw knows of a receipt: :meth:`quota_engine.Draw.check_receipt`."""
    check_integer(number, "number", 1, APPLICATIONS_MAX)
    check_integer(version, "version", 1, VERSION_MAX)
    check_integer(epoch, "epoch", EPOCH_FIRST, EPOCH_MAX)
    address, hashed = address_of(draw_id), requests.owner_hash(applicant, "applicant")
    view: DrawView | None = yield Query(address, ReadDraw())
    if view is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    found: FoundApplication | None = yield Query(address, FindApplication(hashed))
    outcome = outcome_of_receipt(None if found is None else found.application, view.epoch, number, version, epoch)
    if found is None or not outcome.ok:
        return outcome
    tokens = _tokens(requests.secret_for(_TOKENS), draw_id, found.application.applicants)
    return msgspec.structs.replace(outcome, tokens=tokens)


def find(requests: RequestBuilder, draw_id: str, applicant: str) -> Workflow[SubmittedApplication | None]:
    """Return an applicant's application: :meth:`quota_engine.Draw.find`."""
    found: FoundApplication | None = yield Query(
        address_of(draw_id), FindApplication(requests.owner_hash(applicant, "applicant"))
    )
    if found is None:
        return None
    applied = found.application
    tokens = _tokens(requests.secret_for(_TOKENS), draw_id, applied.applicants)
    return SubmittedApplication(applied.number, applied.version, tokens, found.preferences, applied.epoch)


def _tokens(key: bytes, draw_id: str, applicants: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([pseudonym_of(applicant, draw_id, key) for applicant in applicants])


# --- Closing


def close(requests: RequestBuilder, draw_id: str, epoch: int) -> Workflow[DrawOutcome]:
    """Close a draw, record its offered places, and freeze both. A repeated call continues where the last one ended."""
    address = address_of(draw_id)
    outcome: DrawOutcome = yield Apply(address, CloseDraw())
    view: DrawView | None = yield Query(address, ReadDraw())
    if not outcome.ok or view is None or view.frozen is not None:
        return outcome
    preferences: list[Preference] = yield from _pages(address, ReadPreferences, view.preferences)
    yield from _write_capacities(address, preferences)
    record = yield from read(requests, draw_id)
    if record is None:
        return DrawOutcome(DrawStatus.UNKNOWN_DRAW)
    outcome = yield Apply(
        address,
        FreezeDraw(
            len(record.applications),
            record.applications_digest,
            digest_of([json_of_capacities(record.capacities)]),
            epoch,
        ),
    )
    return outcome


def _write_capacities(address: str, preferences: Sequence[Preference]) -> Workflow[None]:
    """Record the available units of all preferred quotas, and the units parked for this draw."""
    quotas_of: dict[str, dict[int, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for preference in preferences:
        for option in preference.choice.options:
            quotas_of[preference.office][preference.day].update(dict.fromkeys(option))
    view: DrawView | None = yield Query(address, ReadDraw())
    written: list[OfferDay] = yield from _pages(address, ReadOfferedDays, 0 if view is None else view.offered_days)
    known = {(one.office, one.day) for one in written}
    done, total = len(known), sum(map(len, quotas_of.values()))
    for office, days in sorted(quotas_of.items()):
        missing = sorted(day for day in days if (office, day) not in known)
        for start in range(0, len(missing), _DAYS_PER_VIEW):
            part = tuple(missing[start : start + _DAYS_PER_VIEW])
            yield Checkpoint(done, total, "office-days")
            done += len(part)
            # The parked units have waited for this draw.
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
                yield Apply(address, OfferDay(office, day, row))


def _row(view: DayView | None, quotas: Sequence[str]) -> Row:
    """Return the units of these quotas; an unknown day or quota has none."""
    known = {} if view is None or view.closed else view.quotas
    return tuple((quota, known[quota].bookable if quota in known else 0) for quota in quotas)


# --- The result


def run(requests: RequestBuilder, draw_id: str, seed: str, entropy: str, epoch: int) -> Workflow[DrawOutcome]:
    """Reveal the seed, which decides the draw.

    A draw that this engine has seen with one entropy is not run with another, even if the store has lost the run.
    """
    command = RevealSeed(draw_id, seed, entropy, epoch)
    if requests.revealed_entropies.get(draw_id, command.commitment) not in (None, entropy):
        return DrawOutcome(DrawStatus.CONFLICT)
    outcome: DrawOutcome = yield Apply(address_of(draw_id), command)
    if outcome.ok:
        requests.revealed_entropies.add(draw_id, command.commitment, entropy)
    return outcome


def _pages(
    address: str, question: type[ReadApplications | ReadPreferences | ReadOfferedDays], count: int
) -> Workflow[list[Any]]:
    """Return all rows, read page by page."""
    rows: list[Any] = []
    for after in range(0, count, PAGE_MAX):
        yield Checkpoint(after, count, "rows", remedy=_NEEDS_TIME)
        asked: DrawQuery = question(after, PAGE_MAX)
        rows += yield Query(address, asked)
    return rows


def read(requests: RequestBuilder, draw_id: str) -> Workflow[DrawRecord | None]:
    """Return everything that the result of a closed draw follows from; ``None`` for an unknown draw."""
    address = address_of(draw_id)
    view: DrawView | None = yield Query(address, ReadDraw())
    if view is None:
        return None
    if view.seed:
        requests.revealed_entropies.add(draw_id, view.config.commitment, view.entropy)
    preferences: list[Preference] = yield from _pages(address, ReadPreferences, view.preferences)
    days: list[OfferDay] = yield from _pages(address, ReadOfferedDays, view.offered_days)
    capacities = Capacities(
        draw_id,
        {(one.office, one.day): dict(one.quotas) for one in days},
        {f"c{number}": preference for number, preference in enumerate(preferences, 1)},
    )
    names = [f"c{number}" for number in range(len(preferences) + 1)]
    key = requests.secret_for(_TOKENS)
    digest = hashlib.sha256()
    parties: dict[int, tuple[str, ...]] = {}
    applications: dict[int, lottery.Application] = {}
    for after in range(0, view.last_number, PAGE_MAX):
        yield Checkpoint(after, view.last_number, "applications", remedy=_NEEDS_TIME)
        page: list[StoredApplication] = yield Query(address, ReadApplications(after, PAGE_MAX))
        for one in page:
            parties[one.number] = one.applicants
            application = lottery.Application(
                one.number,
                _tokens(key, draw_id, one.applicants),
                tuple([names[number] for number in one.preferences]),
            )
            applications[one.number] = application
            digest.update(
                line_of_application(application)
            )  # page by page, so that an event loop is never blocked for long
    return DrawRecord(view, capacities, parties, applications, digest.hexdigest())


def drawn(record: DrawRecord) -> DrawFiles:
    """Compute the files, with the result if the seed is revealed. Pure; takes seconds for a million applications."""
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
        view.revealed_epoch,
    )
    return DrawFiles(record, head, lots, tuple(findings))


def files_of(requests: RequestBuilder, draw_id: str) -> Workflow[DrawFiles | None]:
    """Return the files of a draw: :meth:`quota_engine.Draw.files`."""
    record = yield from read(requests, draw_id)
    if record is None:
        return None
    files: DrawFiles = yield Compute(functools.partial(drawn, record))
    return files


def award_id(secrets: RequestBuilder | Pseudonyms, draw_id: str, number: int) -> str:
    """Return the id of a winner's reservation: always the same, and hard to guess."""
    key = secrets.secret_for(_AWARDS)
    return hashlib.blake2b(f"{draw_id} {number}".encode(), key=key, digest_size=16).hexdigest()


def award_draw(
    requests: RequestBuilder, draw_id: str, hold_ttl_ms: int, skip: int, limit: int
) -> Workflow[AwardReport]:
    """Hold the winners' places: :meth:`quota_engine.Draw.award`."""
    files = yield from files_of(requests, draw_id)
    if files is None:
        return NOTHING_AWARDED
    return (yield from award(requests, files, hold_ttl_ms, skip, limit))


def award(requests: RequestBuilder, files: DrawFiles, hold_ttl_ms: int, skip: int, limit: int) -> Workflow[AwardReport]:
    """Hold the winners' places in the order of the draw. A repeated call holds the missing ones.

    A step takes a part of the winners, office by office. A winner whose hold expired or was released gets no second
    one, because the id has been used.

    Args:
        requests: the engine's request builder.
        files: the result of the draw.
        hold_ttl_ms: length of the holds; 0 for the office's rule.
        skip: number of winners to skip.
        limit: number of winners to award; 0 for all others.
    """
    check_integer(hold_ttl_ms, "hold_ttl_ms", 0, DURATION_MS_MAX)
    check_integer(skip, "skip", 0, APPLICATIONS_MAX)
    check_integer(limit, "limit", 0, APPLICATIONS_MAX)
    winners = [lot for lot in files.lots if lot.preference]
    if files.head is None:
        return AwardReport(0, {}, {}, (), (*files.findings, "the seed has not been revealed"))
    if files.findings:
        return AwardReport(len(winners), {}, {}, (), files.findings)
    awarded = _Awarded(len(winners))
    chosen = winners[skip : skip + limit if limit else None]
    for start in range(0, len(chosen), _WINNERS_PER_STEP):
        left = {"skip": skip + start, **({"limit": limit - start} if limit else {})} if start else {}
        yield Checkpoint(start, len(chosen), "winners", left, awarded.report())
        yield from _award(requests, files.record, chosen[start : start + _WINNERS_PER_STEP], hold_ttl_ms, awarded)
    return awarded.report()


class _Awarded:
    """The winners that an award has looked at."""

    def __init__(self, winners: int) -> None:
        self._winners = winners
        self._references: dict[int, str] = {}
        self._refusals: dict[Status, int] = defaultdict(int)
        self._refused: list[tuple[int, Status]] = []

    def add(self, number: int, outcome: Outcome) -> None:
        """Note the outcome of a winner's reserve."""
        if outcome.ok or outcome.status is Status.RESERVATION_ENDED:
            self._references[number] = outcome.reference
            return
        self._refusals[outcome.status] += 1
        if len(self._refused) < REFUSALS_SHOWN_MAX:
            self._refused.append((number, outcome.status))

    def report(self) -> AwardReport:
        """Return the report about these winners."""
        return AwardReport(self._winners, self._references, dict(self._refusals), tuple(self._refused))


def _award(
    requests: RequestBuilder, record: DrawRecord, lots: Sequence[Lot], hold_ttl_ms: int, awarded: _Awarded
) -> Workflow[None]:
    """Hold the places of some winners, office by office."""
    by_office: dict[str, list[tuple[int, Reserve]]] = defaultdict(list)
    for lot in lots:
        preference = record.capacities.preferences[record.applications[lot.number].choices[lot.preference - 1]]
        reservation_id = award_id(requests, record.view.draw, lot.number)
        party = record.parties[lot.number]
        reserve = Reserve(reservation_id, preference.day, party, preference.choice, hold_ttl_ms=hold_ttl_ms)
        by_office[preference.office].append((lot.number, reserve))
    for office, reserves in sorted(by_office.items()):
        for start in range(0, len(reserves), _RESERVES_PER_CALL):
            part = reserves[start : start + _RESERVES_PER_CALL]
            outcomes = yield from reserve_all(requests, office, [reserve for _, reserve in part])
            for (number, _), outcome in zip(part, outcomes, strict=True):
                awarded.add(number, outcome)
