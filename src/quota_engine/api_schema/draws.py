"""Bodies of draws."""

from __future__ import annotations

__all__ = [
    "ApplicationBody",
    "ApplicationResultBody",
    "ApplyBody",
    "AwardBody",
    "AwardRequestBody",
    "AwardedBody",
    "CloseDrawBody",
    "CreateDrawBody",
    "DrawBody",
    "DrawChoiceBody",
    "DrawOutcomeBody",
    "FindApplicationBody",
    "FrozenBody",
    "ProofBody",
    "ReceiptBody",
    "RefusedBody",
    "RunDrawBody",
    "TotalsBody",
    "WithdrawBody",
    "choice_body",
    "draw_body",
    "draw_outcome_body",
]

import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from quota_engine.api_schema.base import (
    Id,
    Identity,
    NonNegativeInt,
    RequestBody,
    ResponseBody,
    SelectionBody,
    TimeMs,
    Version,
    selection_fields,
)
from quota_engine.domain.epochs import EPOCH_MAX
from quota_engine.domain.outcomes import Status
from quota_engine.domain.validation import APPLICANTS_MAX
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.lottery import APPLICATIONS_MAX, CHOICES_MAX, Preference
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawPhase, DrawView

AWARDS_MAX = 10_000
"""Most winners in one call; the response has about 700 kB."""
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="64 hex digits.")]
Epoch = Annotated[int, Meta(ge=0, le=EPOCH_MAX, description="Epoch on a receipt; 0 if it is not known.")]
PresentEpoch = Annotated[int, Meta(ge=0, le=EPOCH_MAX, description="Present epoch; 0 for the first one.")]
Entropy = Annotated[str, Meta(pattern="^[ -~]{0,256}$", description="Up to 256 printable ASCII characters.")]

_SUCCESSES = frozenset({DrawStatus.APPLIED, DrawStatus.WITHDRAWN, DrawStatus.DONE})


class CreateDrawBody(RequestBody, frozen=True, kw_only=True):
    """The rules of a draw, which cannot change after its creation."""

    opens_at_ms: TimeMs
    closes_at_ms: TimeMs
    forget_at_ms: TimeMs
    first_day: datetime.date
    last_day: datetime.date
    commitment: Sha256
    entropy_source: Entropy = ""
    party_max: Annotated[int, Meta(ge=1, le=APPLICANTS_MAX)] = 5
    choices_max: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] = 10
    applications_max: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)] = 1_000_000

    def to_config(self) -> DrawConfig:
        """Return the engine's configuration of a draw."""
        days = {"first_day": self.first_day.toordinal(), "last_day": self.last_day.toordinal()}
        return DrawConfig(**{**msgspec.structs.asdict(self), **days})


class DrawChoiceBody(SelectionBody, frozen=True, kw_only=True):
    """One choice of an application: an office, a day, and a selection."""

    office: Id
    day: datetime.date


class ApplyBody(RequestBody, frozen=True, kw_only=True):
    """The applicants of a party and their choices, the best one first.

    ``expected_version`` is 0 for a new application, otherwise the version of the application to change, with its
    ``expected_epoch`` from the receipt.
    """

    applicants: Annotated[list[Identity], Meta(min_length=1, max_length=APPLICANTS_MAX)]
    choices: Annotated[list[DrawChoiceBody], Meta(min_length=1, max_length=CHOICES_MAX)]
    expected_version: Version = 0
    expected_epoch: Epoch = 0


class FindApplicationBody(RequestBody, frozen=True, kw_only=True):
    """An applicant whose application to find."""

    applicant: Identity


class ReceiptBody(RequestBody, frozen=True, kw_only=True):
    """A receipt of an application, and one of its applicants."""

    applicant: Identity
    number: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)]
    version: Annotated[int, Meta(ge=1, le=2**31)]
    epoch: Annotated[int, Meta(ge=1, le=EPOCH_MAX)]


class WithdrawBody(RequestBody, frozen=True, kw_only=True):
    """An applicant whose application to withdraw, and the version that the caller has seen, with its epoch."""

    applicant: Identity
    expected_version: Annotated[int, Meta(ge=1, le=2**31)]
    expected_epoch: Epoch = 0


class CloseDrawBody(RequestBody, frozen=True, kw_only=True):
    """``epoch``: the draw's present epoch, after a failover of its store."""

    epoch: PresentEpoch = 0


class RunDrawBody(RequestBody, frozen=True, kw_only=True):
    """The committed seed, the text of the public entropy source if the draw has one, and the epoch as for a close."""

    seed: Sha256
    entropy: Entropy = ""
    epoch: PresentEpoch = 0


class AwardRequestBody(RequestBody, frozen=True, kw_only=True):
    """The duration of the winners' holds (0: the office's default), and a page of winners in the draw's order.

    The page has ``limit`` winners after the first ``skip``.
    """

    hold_ttl_ms: NonNegativeInt = 0
    skip: Annotated[int, Meta(ge=0, le=APPLICATIONS_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=AWARDS_MAX)] = AWARDS_MAX


class DrawOutcomeBody(ResponseBody, frozen=True, kw_only=True):
    """The outcome of a command. ``number``, ``version``, ``epoch`` and ``tokens`` are the receipt.

    The published list has number and tokens, too.
    """

    status: DrawStatus
    replayed: bool = False
    number: int = 0
    version: int = 0
    epoch: int = 0
    retry_at_ms: int = 0
    tokens: list[str] = []

    @property
    def ok(self) -> bool:
        """True if the command succeeded."""
        return self.status in _SUCCESSES


class ApplicationBody(ResponseBody, frozen=True, kw_only=True):
    """An application. A withdrawn one has no choices. ``epoch`` is the epoch of its ``version``."""

    number: int
    version: int
    epoch: int
    tokens: list[str]
    choices: list[DrawChoiceBody]


class FrozenBody(ResponseBody, frozen=True, kw_only=True):
    """Values frozen before the seed was revealed, in the epoch ``epoch`` of the draw. Digests are SHA-256 in hex."""

    epoch: int
    applications: int
    applications_digest: str
    capacities_digest: str


class DrawBody(ResponseBody, frozen=True, kw_only=True):
    """The rules and the state of a draw.

    ``epoch`` grows with each failover of the draw's store, and ``revealed_epoch`` is the one in which the seed was
    revealed, or 0. ``applications`` counts those not withdrawn, and ``last_number`` all of them. ``preferences``
    counts the different choices, and ``offered_days`` the office-days with places in the draw. ``files`` has the paths
    of the published files by name.
    """

    draw: str
    phase: DrawPhase
    epoch: int
    revealed_epoch: int
    opens_at_ms: int
    closes_at_ms: int
    forget_at_ms: int
    first_day: datetime.date
    last_day: datetime.date
    commitment: str
    entropy_source: str
    party_max: int
    choices_max: int
    applications_max: int
    applications: int
    applicants: int
    last_number: int
    preferences: int
    offered_days: int
    frozen: FrozenBody | None
    seed: str
    entropy: str
    files: dict[str, str]


class TotalsBody(ResponseBody, frozen=True, kw_only=True):
    """Totals of a draw. ``by_preference`` counts the applications that got nothing, their first choice, and so on."""

    applications: int
    applicants: int
    winners: int
    places: int
    by_preference: list[int]


class ProofBody(ResponseBody, frozen=True, kw_only=True):
    """The inputs of a draw and the command that verifies it: the file ``proof.json``.

    ``findings`` lists differences from the frozen values. ``files`` has the SHA-256 of each of the other files.
    """

    draw: str
    commitment: str
    entropy_source: str
    applications_digest: str
    capacities_digest: str
    seed: str
    entropy: str
    order_key: str
    totals: TotalsBody | None
    files: dict[str, str]
    findings: list[str]
    check: str


class ApplicationResultBody(ResponseBody, frozen=True, kw_only=True):
    """The result of an application. ``preference`` is the choice that it got, from 1; 0 for none.

    ``lot`` is the SHA-256 of ``order_key``, a space and the number. The smallest lot has rank 1 of ``of``.
    """

    draw: str
    number: int
    tokens: list[str]
    choices: list[DrawChoiceBody]
    order_key: str
    lot: str
    rank: int
    of: int
    preference: int


class AwardedBody(ResponseBody, frozen=True, kw_only=True):
    """The reservation of a winner."""

    number: int
    reference: str


class RefusedBody(ResponseBody, frozen=True, kw_only=True):
    """A winner whose reservation the office refused."""

    number: int
    status: Status


class AwardBody(ResponseBody, frozen=True, kw_only=True):
    """The holds of a page of winners.

    ``winners`` counts all winners of the draw; ``next_skip`` starts the next page, and is null on the last one.
    ``refusals`` counts the refused winners by status, and ``refused`` lists the first thousand of them.
    """

    ok: bool
    winners: int
    next_skip: int | None
    references: list[AwardedBody]
    refusals: dict[str, int]
    refused: list[RefusedBody]
    findings: list[str]


def draw_outcome_body(outcome: DrawOutcome) -> DrawOutcomeBody:
    """Return the body of an outcome that is a success."""
    return DrawOutcomeBody(
        status=outcome.status,
        replayed=outcome.replayed,
        number=outcome.number,
        version=outcome.version,
        epoch=outcome.epoch,
        tokens=list(outcome.tokens),
    )


def choice_body(preference: Preference) -> DrawChoiceBody:
    """Return the body of a preference."""
    day = datetime.date.fromordinal(preference.day)
    return DrawChoiceBody(office=preference.office, day=day, **selection_fields(preference.choice))


def draw_body(view: DrawView, files: dict[str, str]) -> DrawBody:
    """Return the body of a draw. ``files`` has the paths of its published files by name."""
    config, frozen = view.config, view.frozen
    return DrawBody(
        draw=view.draw,
        phase=view.phase,
        epoch=view.epoch,
        revealed_epoch=view.revealed_epoch,
        opens_at_ms=config.opens_at_ms,
        closes_at_ms=config.closes_at_ms,
        forget_at_ms=config.forget_at_ms,
        first_day=datetime.date.fromordinal(config.first_day),
        last_day=datetime.date.fromordinal(config.last_day),
        commitment=config.commitment,
        entropy_source=config.entropy_source,
        party_max=config.party_max,
        choices_max=config.choices_max,
        applications_max=config.applications_max,
        applications=view.applications,
        applicants=view.applicants,
        last_number=view.last_number,
        preferences=view.preferences,
        offered_days=view.offered_days,
        frozen=None
        if frozen is None
        else FrozenBody(
            epoch=view.frozen_epoch,
            applications=frozen.applications,
            applications_digest=frozen.applications_digest,
            capacities_digest=frozen.capacities_digest,
        ),
        seed=view.seed,
        entropy=view.entropy,
        files=files,
    )
