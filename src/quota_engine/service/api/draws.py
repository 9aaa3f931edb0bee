"""Endpoints for draws: create, apply, close, run, publish, and hold the winners' places.

A draw may cover several offices, so a token that is limited to some offices is not valid for draws. Applicants are
named in bodies only, never in a path.
"""

from __future__ import annotations

__all__ = ["DRAWS"]

import asyncio
from typing import Annotated, Any, Final

from msgspec import Meta

from quota_engine.api_schema.draws import (
    ApplicationBody,
    ApplicationResultBody,
    ApplyBody,
    AwardBody,
    AwardedBody,
    AwardRequestBody,
    CloseDrawBody,
    CreateDrawBody,
    DrawBody,
    DrawOutcomeBody,
    FindApplicationBody,
    ReceiptBody,
    RefusedBody,
    RunDrawBody,
    WithdrawBody,
    choice_body,
    draw_body,
    draw_outcome_body,
)
from quota_engine.domain.errors import InvalidRequest
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import DrawPhase, DrawView
from quota_engine.service.api.common import OPERATORS, SERVICES, QueryParameters, get, post, put
from quota_engine.service.background.draw_publication import (
    APPLICATIONS,
    CAPACITIES,
    PROOF,
    RESULT,
    PublishedDraw,
    file_names,
)
from quota_engine.service.context import ServiceContext
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.file_response import FileResponse
from quota_engine.service.http.problems import DRAW_STATUS_PROBLEMS, Problem
from quota_engine.service.http.request import ApiRequest
from quota_engine.service.http.responses import ApiResponse
from quota_engine.workflows.draws import DrawChoice

S = DrawStatus
_DRAW: Final = "/v1/draws/{draw}"
_NUMBER_DIGITS_MAX: Final = 8


class ResultQuery(QueryParameters, frozen=True, kw_only=True):
    """``token``: a token of the receipt. Another application's result is then a problem, not a response."""

    token: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | None = None


def _outcome_response(context: ServiceContext, outcome: DrawOutcome, *, created: bool = False) -> ApiResponse:
    """Return a draw's outcome, with 201 if it created something.

    Raises:
        Problem: the outcome is a refusal.
    """
    context.metrics.record_draw_outcome(outcome.status)
    if not outcome.ok:
        raise Problem.from_draw_outcome(outcome, context.now_ms())
    return ApiResponse(201 if created and not outcome.replayed else 200, draw_outcome_body(outcome))


async def create_draw(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: CreateDrawBody = request.body
    outcome = await context.engine.draw(request.path["draw"]).create(body.to_config())
    if outcome.ok:
        await _view(context, request)
    return _outcome_response(context, outcome, created=True)


async def _view(context: ServiceContext, request: ApiRequest) -> DrawView:
    view = await context.engine.draw(request.path["draw"]).view()
    if view is None:
        raise Problem.from_draw_outcome(DrawOutcome(S.UNKNOWN_DRAW), context.now_ms())
    context.publications.check_draw(view)
    return view


async def get_draw(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    view = await _view(context, request)
    files = {name: f"/v1/draws/{view.draw}/files/{name}" for name in file_names(view.phase)}
    return ApiResponse(200, draw_body(view, files))


async def apply(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ApplyBody = request.body
    choices = [DrawChoice(choice.office, choice.day, **choice.selection()) for choice in body.choices]
    outcome = await context.engine.draw(request.path["draw"]).apply(
        body.applicants, choices, expected_version=body.expected_version, expected_epoch=body.expected_epoch
    )
    return _outcome_response(context, outcome, created=outcome.version == 1)


async def find_application(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: FindApplicationBody = request.body
    application = await context.engine.draw(request.path["draw"]).find(body.applicant)
    if application is None:
        raise Problem.from_draw_outcome(DrawOutcome(S.NOT_FOUND), context.now_ms())
    return ApiResponse(
        200,
        ApplicationBody(
            number=application.number,
            version=application.version,
            epoch=application.epoch,
            tokens=list(application.tokens),
            choices=[choice_body(preference) for preference in application.choices],
        ),
    )


async def withdraw(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: WithdrawBody = request.body
    outcome = await context.engine.draw(request.path["draw"]).withdraw(
        body.applicant, expected_version=body.expected_version, expected_epoch=body.expected_epoch
    )
    return _outcome_response(context, outcome)


async def check_receipt(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: ReceiptBody = request.body
    outcome = await context.engine.draw(request.path["draw"]).check_receipt(
        body.applicant, number=body.number, version=body.version, epoch=body.epoch
    )
    return _outcome_response(context, outcome)


async def close_draw(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    outcome = await context.engine.draw(request.path["draw"]).close(epoch=request.body.epoch)
    if outcome.ok:
        await _view(context, request)
    return _outcome_response(context, outcome)


async def run_draw(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    body: RunDrawBody = request.body
    view = await _view(context, request)
    if context.publications.is_other_entropy("draw", view.draw, view.config.commitment, body.entropy):
        return _outcome_response(context, DrawOutcome(S.CONFLICT))  # the result with another text is public
    outcome = await context.engine.draw(view.draw).run(body.seed, body.entropy, epoch=body.epoch)
    if outcome.ok:
        await _view(context, request)
    return _outcome_response(context, outcome)


async def award(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    view = await _view(context, request)
    if view.phase is not DrawPhase.REVEALED:
        raise Problem("draw-not-run", "run the draw first")
    body: AwardRequestBody = request.body
    report = await context.engine.draw(view.draw).award(hold_ttl_ms=body.hold_ttl_ms, skip=body.skip, limit=body.limit)
    next_skip = body.skip + body.limit
    return ApiResponse(
        200,
        AwardBody(
            ok=report.ok,
            winners=report.winners,
            next_skip=next_skip if next_skip < report.winners else None,
            references=[
                AwardedBody(number=number, reference=reference)
                for number, reference in sorted(report.references.items())
            ],
            refusals={str(status): count for status, count in report.refusals.items()},
            refused=[RefusedBody(number=number, status=status) for number, status in report.refused],
            findings=list(report.findings),
        ),
    )


async def _published(context: ServiceContext, request: ApiRequest, *, needs_result: bool) -> PublishedDraw:
    view = await _view(context, request)
    if view.frozen is None:
        raise Problem.from_draw_outcome(DrawOutcome(S.NOT_FROZEN), context.now_ms())
    if needs_result and not view.seed:
        raise Problem("draw-not-run", "the seed has not been revealed")
    contradictions = context.publications.check_draw(view)
    return await context.draw_files.get(context.engine.draw(view.draw), view, contradictions)


async def download_file(context: ServiceContext, request: ApiRequest) -> FileResponse:
    name = request.path["file"]
    if name not in (APPLICATIONS, CAPACITIES, RESULT, PROOF):
        raise InvalidRequest("file", "a draw has no such file", f"{APPLICATIONS}, {CAPACITIES}, {RESULT} or {PROOF}")
    published = await _published(context, request, needs_result=name == RESULT)
    response = await context.draw_files.download(published, name, request.headers.get(b"if-none-match", b""))
    if response is None:
        raise Problem("overloaded", "too many downloads are in progress", retry_after_s=5)
    return response


async def get_result(context: ServiceContext, request: ApiRequest) -> ApiResponse:
    number = request.path["number"]
    if not (number.isascii() and number.isdigit() and len(number) <= _NUMBER_DIGITS_MAX):
        raise InvalidRequest("number", "not the number of an application", f"1 to {_NUMBER_DIGITS_MAX} digits")
    published = await _published(context, request, needs_result=True)
    result = await asyncio.to_thread(published.find_result, int(number))
    token = request.query.token
    if token and (result is None or token not in result.tokens):
        # The caller has a receipt with this number, and the draw has given the number to another application or none.
        raise Problem.from_draw_outcome(DrawOutcome(S.APPLICATION_LOST), context.now_ms())
    if result is None:
        raise Problem("draw-not-found", "no application has this number")
    return ApiResponse(200, result)


def _problems(*statuses: DrawStatus, others: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("overloaded", *(DRAW_STATUS_PROBLEMS[status].name for status in statuses), *others)


_APPLY_PROBLEMS: Final = _problems(
    S.UNKNOWN_DRAW, S.NOT_OPEN, S.APPLICATIONS_CLOSED, S.PARTY_TOO_LARGE, S.TOO_MANY_CHOICES, S.NOT_IN_DRAW,
    S.ALREADY_APPLIED, S.APPLICATION_LOST, S.STALE, S.DRAW_FULL, others=("unknown-name",),
)  # fmt: skip
_NOT_RUN: Final = ("draw-not-run",)
_TIMEOUT: Final = ("job-timeout",)


def _post(
    path: str, name: str, summary: str, handler: Any, roles: frozenset[Role], response_type: Any = DrawOutcomeBody,
    **options: Any,
) -> Endpoint:  # fmt: skip
    return post(f"{_DRAW}/{path}", name, summary, handler, response_type, roles=roles, **options)


DRAWS: Final = (
    put(
        _DRAW, "create-draw", "Create a draw with the commitment to its seed.", create_draw, DrawOutcomeBody,
        status=201, other_statuses=(200,), roles=OPERATORS, body_type=CreateDrawBody,
        problems=_problems(S.DRAW_OVER, S.CONFLICT),
    ),
    get(
        _DRAW, "draw", "Get the state of a draw: its rules, its applications, and what is frozen.", get_draw, DrawBody,
        problems=_problems(S.UNKNOWN_DRAW),
    ),
    _post(
        "applications", "apply", "Apply, or change an application. The response is the receipt.", apply, SERVICES,
        status=201, other_statuses=(200,), body_type=ApplyBody, problems=_APPLY_PROBLEMS,
    ),
    _post(
        "applications/find", "find-application", "Find the application of an applicant.", find_application, SERVICES,
        ApplicationBody, body_type=FindApplicationBody, is_write=False, problems=_problems(S.NOT_FOUND),
    ),
    _post(
        "applications/withdraw", "withdraw", "Withdraw an application for all of its party.", withdraw, SERVICES,
        body_type=WithdrawBody,
        problems=_problems(
            S.UNKNOWN_DRAW, S.NOT_OPEN, S.APPLICATIONS_CLOSED, S.NOT_FOUND, S.APPLICATION_LOST, S.STALE
        ),
    ),
    _post(
        "applications/check", "check-receipt", "Check if the draw has the application of a receipt.", check_receipt,
        SERVICES, body_type=ReceiptBody, is_write=False,
        problems=_problems(S.UNKNOWN_DRAW, S.NOT_FOUND, S.APPLICATION_LOST, S.STALE),
    ),
    get(
        _DRAW + "/applications/{number}", "application-result", "Get the result of an application by its number.",
        get_result, ApplicationResultBody, query_type=ResultQuery,
        problems=_problems(
            S.UNKNOWN_DRAW, S.NOT_FROZEN, S.NOT_FOUND, S.APPLICATION_LOST, others=(*_NOT_RUN, *_TIMEOUT)
        ),
    ),
    _post(
        "close", "close-draw", "Freeze the capacities and the applications, after the closing time.", close_draw,
        OPERATORS, body_type=CloseDrawBody,
        problems=_problems(S.UNKNOWN_DRAW, S.STILL_OPEN, S.CONFLICT, S.EPOCH_CHANGED, others=_TIMEOUT),
    ),
    _post(
        "run", "run-draw", "Reveal the seed and the public entropy, which decide the draw.", run_draw, OPERATORS,
        body_type=RunDrawBody, problems=_problems(S.UNKNOWN_DRAW, S.NOT_FROZEN, S.CONFLICT, S.EPOCH_CHANGED),
    ),
    _post(
        "award", "award", "Hold the winners' places, a page of winners at a time. Safe to repeat.", award, OPERATORS,
        AwardBody, body_type=AwardRequestBody, problems=_problems(S.UNKNOWN_DRAW, others=(*_NOT_RUN, *_TIMEOUT)),
    ),
    get(
        _DRAW + "/files/{file}", "draw-file", "Download a published file, to verify the draw.", download_file, bytes,
        has_etag=True, problems=_problems(S.UNKNOWN_DRAW, S.NOT_FROZEN, others=(*_NOT_RUN, *_TIMEOUT)),
    ),
)  # fmt: skip
