"""Draws over the wire."""

from __future__ import annotations

__all__ = [
    "ApplicationBody",
    "ApplyBody",
    "AwardBody",
    "AwardedBody",
    "CreateDrawBody",
    "DrawBody",
    "DrawChoiceBody",
    "DrawOutcomeBody",
    "DrawnBody",
    "FindApplicationBody",
    "FrozenBody",
    "HoldTimeBody",
    "ProofBody",
    "RefusedBody",
    "RevealBody",
    "TotalsBody",
    "WithdrawBody",
    "choice_body",
    "draw_body",
    "draw_outcome_body",
]

import datetime
from typing import Annotated

from msgspec import Meta

from quota_engine.api_schema.base import Id, Identity, MaybeId, Millis, Moment, RequestBody, ResponseBody
from quota_engine.domain.outcomes import Status
from quota_engine.domain.validation import APPLICANTS_MAX
from quota_engine.draws.ledger import DrawOutcome, DrawPhase, DrawStatus, DrawView
from quota_engine.draws.lottery import APPLICATIONS_MAX, CHOICES_MAX, Preference

AWARDS_MAX = 10_000
"""So many winners at a time: an answer of some 700 kB."""
Version = Annotated[int, Meta(ge=0, le=2**31)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="64 hex digits.")]
Entropy = Annotated[str, Meta(pattern="^[ -~]{0,256}$", description="Up to 256 printable ASCII characters.")]

_SUCCESSES = frozenset({DrawStatus.APPLIED, DrawStatus.WITHDRAWN, DrawStatus.DONE})


# --- Requests ------------------------------------------------------------------------------------------------------


class CreateDrawBody(RequestBody, frozen=True, kw_only=True):
    """What is promised when a draw is announced. It can not be changed any more."""

    opens_at_ms: Moment
    closes_at_ms: Moment
    forget_at_ms: Moment
    first_day: datetime.date
    last_day: datetime.date
    commitment: Sha256
    entropy_source: Entropy = ""
    party_max: Annotated[int, Meta(ge=1, le=APPLICANTS_MAX)] = 5
    choices_max: Annotated[int, Meta(ge=1, le=CHOICES_MAX)] = 10
    applications_max: Annotated[int, Meta(ge=1, le=APPLICATIONS_MAX)] = 1_000_000


class DrawChoiceBody(RequestBody, frozen=True, kw_only=True):
    """One of the things that somebody applies for."""

    office: Id
    day: datetime.date
    service: MaybeId = ""
    service_unit: MaybeId = ""
    session: MaybeId = ""
    channel: Id = "online"
    group: MaybeId = ""


class ApplyBody(RequestBody, frozen=True, kw_only=True):
    """Who applies, and for what: the best choice first. ``version``: 0, or the one that is to be changed."""

    applicants: Annotated[list[Identity], Meta(min_length=1, max_length=APPLICANTS_MAX)]
    choices: Annotated[list[DrawChoiceBody], Meta(min_length=1, max_length=CHOICES_MAX)]
    expected_version: Version = 0


class FindApplicationBody(RequestBody, frozen=True, kw_only=True):
    """Whose application is looked for."""

    applicant: Identity


class WithdrawBody(RequestBody, frozen=True, kw_only=True):
    """Whose application is taken back, and which version of it was seen."""

    applicant: Identity
    expected_version: Annotated[int, Meta(ge=1, le=2**31)]


class RevealBody(RequestBody, frozen=True, kw_only=True):
    """The seed that was committed to, and the public text that was announced, if one was."""

    seed: Sha256
    entropy: Entropy = ""


class HoldTimeBody(RequestBody, frozen=True, kw_only=True):
    """How long the winners' places are held (0: as the office's rules say), and of which winners, in the order of the
    draw: ``limit`` of them, after the first ``skip``.
    """

    hold_ttl_ms: Millis = 0
    skip: Annotated[int, Meta(ge=0, le=APPLICATIONS_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=AWARDS_MAX)] = AWARDS_MAX


# --- Answers -------------------------------------------------------------------------------------------------------


class DrawOutcomeBody(ResponseBody, frozen=True, kw_only=True):
    """What a command came to. ``number`` and ``tokens`` are the receipt: the published list has them in its line."""

    status: DrawStatus
    replayed: bool = False
    number: int = 0
    version: int = 0
    retry_at_ms: int = 0
    tokens: list[str] = []

    @property
    def ok(self) -> bool:
        """Whether the asker has what they asked for."""
        return self.status in _SUCCESSES


class ApplicationBody(ResponseBody, frozen=True, kw_only=True):
    """An application as it stands. Without ``choices`` it has been withdrawn."""

    number: int
    version: int
    tokens: list[str]
    choices: list[DrawChoiceBody]


class FrozenBody(ResponseBody, frozen=True, kw_only=True):
    """What was fixed before the seed was revealed. Digests are SHA-256, in hex."""

    applications: int
    applications_digest: str
    capacities_digest: str


class DrawBody(ResponseBody, frozen=True, kw_only=True):
    """A draw as it stands: what was promised, how many have applied, and what has been published of it.

    ``applications`` are those that have not been withdrawn, ``last_number`` counts all; ``wishes`` are the different
    choices, and ``offered_days`` the office-days that it gives something away of. ``files`` are the addresses of what
    can be had now, by name.
    """

    draw: str
    phase: DrawPhase
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
    """A draw in figures. ``by_preference`` counts who got nothing, their first choice, their second …"""

    applications: int
    applicants: int
    winners: int
    places: int
    by_preference: list[int]


class ProofBody(ResponseBody, frozen=True, kw_only=True):
    """What the result follows from, and how to check it. The file ``proof.json``.

    ``findings`` say what is not as it was frozen. ``files`` has the SHA-256 of each of the others.
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


class DrawnBody(ResponseBody, frozen=True, kw_only=True):
    """What became of one application. ``preference``: which of its choices it got, from 1; 0: none.

    The lot is the SHA-256 of ``order_key``, a space and the number; the smallest comes first.
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
    """A winner whom the office refused."""

    number: int
    status: Status


class AwardBody(ResponseBody, frozen=True, kw_only=True):
    """What became of the winners that were asked for. ``refused`` has the first thousand of those that ``refusals``
    counts. ``winners`` are all of the draw; ``next_skip`` is what to ask for next, if these were not the last.
    """

    ok: bool
    winners: int
    next_skip: int | None
    references: list[AwardedBody]
    refusals: dict[str, int]
    refused: list[RefusedBody]
    findings: list[str]


def draw_outcome_body(outcome: DrawOutcome) -> DrawOutcomeBody:
    """An outcome that is a success."""
    return DrawOutcomeBody(
        status=outcome.status,
        replayed=outcome.replayed,
        number=outcome.number,
        version=outcome.version,
        tokens=list(outcome.tokens),
    )


def choice_body(wish: Preference) -> DrawChoiceBody:
    """What was wished for, by the catalog's names."""
    choice = wish.choice
    return DrawChoiceBody(
        office=wish.office,
        day=datetime.date.fromordinal(wish.day),
        service=choice.service,
        service_unit=choice.service_unit,
        session=choice.session,
        channel=choice.channel,
        group=choice.group,
    )


def draw_body(view: DrawView, files: dict[str, str]) -> DrawBody:
    """A draw, for everybody."""
    terms, frozen = view.config, view.frozen
    return DrawBody(
        draw=view.draw,
        phase=view.phase,
        opens_at_ms=terms.opens_at_ms,
        closes_at_ms=terms.closes_at_ms,
        forget_at_ms=terms.forget_at_ms,
        first_day=datetime.date.fromordinal(terms.first_day),
        last_day=datetime.date.fromordinal(terms.last_day),
        commitment=terms.commitment,
        entropy_source=terms.entropy_source,
        party_max=terms.party_max,
        choices_max=terms.choices_max,
        applications_max=terms.applications_max,
        applications=view.applications,
        applicants=view.applicants,
        last_number=view.last_number,
        preferences=view.preferences,
        offered_days=view.offered_days,
        frozen=None
        if frozen is None
        else FrozenBody(
            applications=frozen.applications,
            applications_digest=frozen.applications_digest,
            capacities_digest=frozen.capacities_digest,
        ),
        seed=view.seed,
        entropy=view.entropy,
        files=files,
    )
