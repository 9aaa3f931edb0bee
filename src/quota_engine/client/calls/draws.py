"""Calls about draws. A URL never contains an applicant's identity; a body may."""

from __future__ import annotations

__all__ = ["DrawCalls"]

import datetime
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from quota_engine.api_schema.draws import AWARDS_MAX, ApplicationBody, AwardBody, DrawBody, DrawOutcomeBody, ProofBody
from quota_engine.api_schema.problems import ProblemBody
from quota_engine.client.call_protocol import CallBase, CallFlow, Retries, ServiceRefused
from quota_engine.client.calls.common import day_text, party_list
from quota_engine.client.decoding import award_of, draw_outcome_of, draw_view_of, preference_of
from quota_engine.client.service_clock import ServiceClock
from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import InvalidRequest, JobTimeout
from quota_engine.domain.outcomes import Status
from quota_engine.domain.validation import check_integer
from quota_engine.draws.commands import DrawConfig
from quota_engine.draws.files import applications_of_lines, capacities_of_json, result_of_lines
from quota_engine.draws.ledger import address_of
from quota_engine.draws.lottery import APPLICATIONS_MAX
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawView
from quota_engine.workflows.arguments import Applicants
from quota_engine.workflows.draws import (
    NOTHING_AWARDED,
    REFUSALS_SHOWN_MAX,
    AwardReport,
    DrawChoice,
    DrawFiles,
    DrawRecord,
    SubmittedApplication,
)

_PART_MS_MIN: Final = 300
"""No part of an award is requested with less time left."""


class DrawCalls(CallBase):
    """Calls of one draw."""

    def __init__(self, retries: Retries, draw: str, clock: ServiceClock | None = None) -> None:
        super().__init__(retries, clock)
        address_of(draw)
        self._path = f"/v1/draws/{draw}"

    def create(self, config: DrawConfig) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.create`."""
        if not isinstance(config, DrawConfig):
            raise InvalidRequest("terms", f"a {type(config).__name__}", "DrawConfig(...)")
        days = {name: datetime.date.fromordinal(getattr(config, name)) for name in ("first_day", "last_day")}
        return self._draw_command("PUT", "", {**msgspec.structs.asdict(config), **days})

    def view(self) -> CallFlow[DrawView | None]:
        """See :meth:`quota_engine.Draw.view`."""
        found = yield from self._request_or_problem("GET", self._path, DrawBody, DrawStatus)
        return None if isinstance(found, ProblemBody) else draw_view_of(found)

    def apply(
        self,
        applicants: Applicants,
        choices: Sequence[DrawChoice],
        *,
        expected_version: int = 0,
        expected_epoch: int = 0,
    ) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.apply`."""
        if not isinstance(choices, list | tuple) or not all(isinstance(one, DrawChoice) for one in choices):
            raise InvalidRequest("choices", "not a list of choices", "DrawChoice(office, day, ...), the best one first")
        wishes = [{**msgspec.structs.asdict(one), "day": day_text(one.day)} for one in choices]
        body = {
            "applicants": party_list(applicants),
            "choices": wishes,
            "expected_version": expected_version,
            "expected_epoch": expected_epoch,
        }
        return self._draw_command("POST", "/applications", body)

    def withdraw(self, applicant: str, *, expected_version: int, expected_epoch: int = 0) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.withdraw`."""
        body = {"applicant": applicant, "expected_version": expected_version, "expected_epoch": expected_epoch}
        return self._draw_command("POST", "/applications/withdraw", body)

    def check_receipt(self, applicant: str, *, number: int, version: int, epoch: int) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.check_receipt`."""
        body = {"applicant": applicant, "number": number, "version": version, "epoch": epoch}
        return self._draw_command("POST", "/applications/check", body)

    def find(self, applicant: str) -> CallFlow[SubmittedApplication | None]:
        """See :meth:`quota_engine.Draw.find`."""
        path, body = f"{self._path}/applications/find", {"applicant": applicant}
        found = yield from self._request_or_problem("POST", path, ApplicationBody, DrawStatus, body=body)
        if isinstance(found, ProblemBody):
            return None
        wishes = tuple(preference_of(one) for one in found.choices)
        return SubmittedApplication(found.number, found.version, tuple(found.tokens), wishes, found.epoch)

    def close(self, *, epoch: int = 0, timeout_ms: int | None = None) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.close`."""
        return self._draw_command("POST", "/close", {"epoch": epoch}, is_long=True, timeout_ms=timeout_ms)

    def run(self, seed: str, entropy: str = "", *, epoch: int = 0) -> CallFlow[DrawOutcome]:
        """See :meth:`quota_engine.Draw.run`."""
        return self._draw_command("POST", "/run", {"seed": seed, "entropy": entropy, "epoch": epoch})

    def files(self, *, timeout_ms: int | None = None) -> CallFlow[DrawFiles | None]:
        """See :meth:`quota_engine.Draw.files`. Each file has the time of ``timeout_ms``.

        A service publishes the files after the close, and raises :class:`ServiceRefused` before. It does not disclose
        the hashes of applicants: ``record.parties`` is empty.
        """
        view = yield from self.view()
        if view is None:
            return None
        applications = yield from self._file(f"{self._path}/files/applications.jsonl", timeout_ms)
        capacities = yield from self._file(f"{self._path}/files/capacities.json", timeout_ms)
        proof = yield from self._request("GET", f"{self._path}/files/proof.json", ProofBody, timeout_ms=timeout_ms)
        record = DrawRecord(
            view,
            capacities_of_json(capacities, "capacities.json"),
            {},
            {one.number: one for one in applications_of_lines(applications.splitlines(), "applications.jsonl")},
            hashlib.sha256(applications).hexdigest(),
        )
        if not view.seed:
            return DrawFiles(record, None, (), tuple(proof.findings))
        result = yield from self._file(f"{self._path}/files/result.jsonl", timeout_ms)
        head, lots = result_of_lines(result.splitlines(), "result.jsonl")
        return DrawFiles(record, head, [lot for lot, _ in lots], tuple(proof.findings))

    def award(
        self, *, hold_ttl_ms: int = 0, skip: int = 0, limit: int = 0, timeout_ms: int | None = None
    ) -> CallFlow[AwardReport]:
        """See :meth:`quota_engine.Draw.award`. All winners take several requests, which share ``timeout_ms``."""
        ends_at_ms = None if timeout_ms is None else monotonic_ms() + timeout_ms
        check_integer(skip, "skip", 0, APPLICATIONS_MAX)
        check_integer(limit, "limit", 0, APPLICATIONS_MAX)
        end = skip + limit if limit else APPLICATIONS_MAX + 1
        parts: list[AwardReport] = []
        after: int | None = skip
        while after is not None and (after < end or not parts):
            left_ms = None if ends_at_ms is None else int(ends_at_ms - monotonic_ms())
            if parts and left_ms is not None and left_ms < _PART_MS_MIN:
                raise _award_timeout(timeout_ms or 0, parts, skip, after, limit)
            body = {"hold_ttl_ms": hold_ttl_ms, "skip": after, "limit": min(AWARDS_MAX, end - after)}
            try:
                found = yield from self._request_or_problem(
                    "POST", f"{self._path}/award", AwardBody, DrawStatus, body=body, is_long=True, timeout_ms=left_ms
                )
            except JobTimeout as error:
                reached = error.resume_with.get("skip", after)
                raise _award_timeout(error.timeout_ms, parts, skip, reached, limit) from error
            except ServiceRefused as error:
                if error.kind != "draw-not-run":
                    raise
                return AwardReport(0, {}, {}, (), ("the seed has not been revealed",))
            if isinstance(found, ProblemBody):
                return NOTHING_AWARDED
            parts.append(award_of(found))
            after = found.next_skip
        return _merged(parts)

    def _draw_command(
        self,
        method: str,
        rest: str,
        body: dict[str, object] | None,
        *,
        is_long: bool = False,
        timeout_ms: int | None = None,
    ) -> CallFlow[DrawOutcome]:
        found = yield from self._request_or_problem(
            method, self._path + rest, DrawOutcomeBody, DrawStatus, body=body, is_long=is_long, timeout_ms=timeout_ms
        )
        return draw_outcome_of(found)


def _award_timeout(timeout_ms: int, parts: Sequence[AwardReport], skip: int, reached: int, limit: int) -> JobTimeout:
    """Return the error of an award that has used up its time before the winner ``reached``."""
    left = {"skip": reached, **({"limit": skip + limit - reached} if limit else {})} if reached > skip else {}
    report = _merged(parts) if parts else None
    return JobTimeout("award", timeout_ms, reached - skip, limit, "winners", resume_with=left, report=report)


def _merged(parts: Sequence[AwardReport]) -> AwardReport:
    """Return one report for the winners of all parts."""
    refusals: Counter[Status] = Counter()
    for part in parts:
        refusals.update(part.refusals)
    return AwardReport(
        winners=parts[0].winners,
        references={number: reference for part in parts for number, reference in part.references.items()},
        refusals=dict(refusals),
        refused=tuple(one for part in parts for one in part.refused)[:REFUSALS_SHOWN_MAX],
        findings=parts[0].findings,
    )
