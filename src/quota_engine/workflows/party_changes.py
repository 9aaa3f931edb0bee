"""Changes of a party, with the national claims of the applicant who leaves and of the one who comes in."""

from __future__ import annotations

__all__ = ["remove_applicant", "replace_applicant"]

from msgspec.structs import replace

from quota_engine.domain.commands import RemoveApplicant, ReplaceApplicant
from quota_engine.domain.errors import BackendUnavailable
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.generators import Request
from quota_engine.ports import Lookup
from quota_engine.workflows import national_claims
from quota_engine.workflows.generator_drivers import Apply, Workflow
from quota_engine.workflows.request_builder import RequestBuilder


def remove_applicant(
    requests: RequestBuilder, reference: str, applicant: str, owner: str | None, expected_version: int
) -> Workflow[Outcome] | Request[Outcome]:
    """Take an applicant out of a party: one command, unless there is a national limit.

    Arguments as for :meth:`quota_engine.QuotaEngine.remove_applicant`.
    """
    office, reservation_id = requests.parse_reference(reference)
    leaving = requests.owner_hash(applicant, "applicant")
    command = RemoveApplicant(reservation_id, requests.owner_hash(owner), expected_version, leaving)
    if not requests.has_national_limit:
        return Apply(office, command)
    return _remove(requests, office, command)


def _remove(requests: RequestBuilder, office: str, command: RemoveApplicant) -> Workflow[Outcome]:
    outcome: Outcome = yield Apply(office, command)
    if outcome.ok and outcome.reservation is not None:
        yield from national_claims.drop_claim(requests, command.applicant, outcome.reservation)
    return outcome


def replace_applicant(
    requests: RequestBuilder, reference: str, applicant: str, replacement: str, expected_version: int
) -> Workflow[Outcome] | Request[Outcome]:
    """Put another applicant in the place of one of a party: one command, unless there is a national limit.

    Arguments as for :meth:`quota_engine.QuotaEngine.replace_applicant`.
    """
    office, reservation_id = requests.parse_reference(reference)
    leaving = requests.owner_hash(applicant, "applicant")
    newcomer = requests.owner_hash(replacement, "replacement")
    command = ReplaceApplicant(reservation_id, leaving, newcomer, expected_version)
    if not requests.has_national_limit:
        return Apply(office, command)
    return _replace(requests, office, command)


def _replace(requests: RequestBuilder, office: str, command: ReplaceApplicant) -> Workflow[Outcome]:
    """Claim the newcomer's one place first, so that they cannot get another one meanwhile."""
    record: Reservation | None = yield Lookup(office, command.id)
    if record is None:
        return Outcome(Status.NOT_FOUND)
    taken = yield from national_claims.take_claims(requests, (command.replacement,), record.reference, record.day)
    if isinstance(taken, national_claims.ClaimConflict):
        if taken.overloaded:
            return Outcome(Status.OVERLOADED)
        # A replay has precedence over all refusals. This command has expired, so it can return that answer only.
        known: Outcome = yield Apply(office, replace(command, valid_until_ms=1))
        is_limited = known.status is Status.COMMAND_EXPIRED
        return Outcome(Status.IDENTITY_LIMIT, record, retry_at_ms=taken.retry_at_ms) if is_limited else known
    try:
        outcome: Outcome = yield Apply(office, replace(command, valid_until_ms=taken.valid_until_ms))
    except BackendUnavailable:
        yield from national_claims.release_claims(taken.made)
        raise
    if not outcome.ok:
        yield from national_claims.release_claims(taken.made)
    elif outcome.reservation is not None:
        yield from national_claims.drop_claim(requests, command.applicant, outcome.reservation)
    return outcome
