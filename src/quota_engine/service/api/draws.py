"""Draws: announcing, applying, closing, drawing, what is published of it, and the winners' holds.

A draw can be for days of several offices, so a token that is good for some offices only is not good for draws.
Applicants are named in bodies only, never in an address.
"""

from __future__ import annotations

__all__ = ["DRAWS"]

import asyncio
from typing import TYPE_CHECKING, Any, Final

from quota_engine.api_schema import draws as wire
from quota_engine.domain.errors import InvalidRequest
from quota_engine.draws.ledger import DrawConfig, DrawOutcome, DrawPhase, DrawStatus, DrawView
from quota_engine.service.api.common import OPERATORS, SERVICES, get, post, put
from quota_engine.service.auth import Role
from quota_engine.service.background.draw_publication import (
    APPLICATIONS,
    CAPACITIES,
    PROOF,
    RESULT,
    Published,
    file_names,
)
from quota_engine.service.http.endpoint import Call, Reply
from quota_engine.service.http.file_response import Download
from quota_engine.service.http.problems import OF_DRAW_STATUS, Problem
from quota_engine.workflows.draws import DrawChoice

if TYPE_CHECKING:
    from quota_engine.service.app import Service

S = DrawStatus
_DRAW: Final = "/v1/draws/{draw}"
_NUMBER_DIGITS_MAX: Final = 8


def _reply(service: Service, outcome: DrawOutcome, *, made: bool = False) -> Reply:
    service.metrics.drawn(outcome.status)
    if not outcome.ok:
        raise Problem.of_draw(outcome, service.now_ms())
    return Reply(201 if made and not outcome.replayed else 200, wire.draw_outcome_body(outcome))


async def create(service: Service, call: Call) -> Reply:
    body: wire.CreateDrawBody = call.body
    terms = DrawConfig(
        opens_at_ms=body.opens_at_ms,
        closes_at_ms=body.closes_at_ms,
        forget_at_ms=body.forget_at_ms,
        first_day=body.first_day.toordinal(),
        last_day=body.last_day.toordinal(),
        commitment=body.commitment,
        entropy_source=body.entropy_source,
        party_max=body.party_max,
        choices_max=body.choices_max,
        applications_max=body.applications_max,
    )
    return _reply(service, await service.engine.draw(call.path["draw"]).create(terms), made=True)


async def _view(service: Service, call: Call) -> DrawView:
    view = await service.engine.draw(call.path["draw"]).view()
    if view is None:
        raise Problem.of_draw(DrawOutcome(S.UNKNOWN_DRAW), service.now_ms())
    return view


async def draw(service: Service, call: Call) -> Reply:
    view = await _view(service, call)
    files = {name: f"/v1/draws/{view.draw}/files/{name}" for name in file_names(view.phase)}
    return Reply(200, wire.draw_body(view, files))


async def apply(service: Service, call: Call) -> Reply:
    body: wire.ApplyBody = call.body
    choices = [
        DrawChoice(one.office, one.day, one.service, one.service_unit, one.session, one.channel, one.group)
        for one in body.choices
    ]
    applied = await service.engine.draw(call.path["draw"]).apply(
        body.applicants, choices, expected_version=body.expected_version
    )
    return _reply(service, applied, made=applied.version == 1)


async def find(service: Service, call: Call) -> Reply:
    found = await service.engine.draw(call.path["draw"]).find(call.body.applicant)
    if found is None:
        raise Problem.of_draw(DrawOutcome(S.NOT_FOUND), service.now_ms())
    return Reply(
        200,
        wire.ApplicationBody(
            number=found.number,
            version=found.version,
            tokens=list(found.tokens),
            choices=[wire.choice_body(wish) for wish in found.choices],
        ),
    )


async def withdraw(service: Service, call: Call) -> Reply:
    body: wire.WithdrawBody = call.body
    return _reply(
        service,
        await service.engine.draw(call.path["draw"]).withdraw(body.applicant, expected_version=body.expected_version),
    )


async def close(service: Service, call: Call) -> Reply:
    return _reply(service, await service.engine.draw(call.path["draw"]).close())


async def run(service: Service, call: Call) -> Reply:
    body: wire.RevealBody = call.body
    return _reply(service, await service.engine.draw(call.path["draw"]).run(body.seed, body.entropy))


async def award(service: Service, call: Call) -> Reply:
    view = await _view(service, call)
    if view.phase is not DrawPhase.REVEALED:
        raise Problem("draw-not-run", "run it first")
    body: wire.HoldTimeBody = call.body
    report = await service.engine.draw(view.draw).award(hold_ttl_ms=body.hold_ttl_ms, skip=body.skip, limit=body.limit)
    seen_to = body.skip + body.limit
    references = [
        wire.AwardedBody(number=number, reference=reference) for number, reference in sorted(report.references.items())
    ]
    return Reply(
        200,
        wire.AwardBody(
            ok=report.ok,
            winners=report.winners,
            next_skip=seen_to if seen_to < report.winners else None,
            references=references,
            refusals={str(status): count for status, count in report.refusals.items()},
            refused=[wire.RefusedBody(number=number, status=status) for number, status in report.refused],
            findings=list(report.findings),
        ),
    )


async def _published(service: Service, call: Call, *, needs_result: bool) -> Published:
    view = await _view(service, call)
    if view.frozen is None:
        raise Problem.of_draw(DrawOutcome(S.NOT_FROZEN), service.now_ms())
    if needs_result and not view.seed:
        raise Problem("draw-not-run", "the seed has not been revealed")
    return await service.published_draws.of(service.engine.draw(view.draw), view)


async def file(service: Service, call: Call) -> Download:
    name = call.path["file"]
    if name not in (APPLICATIONS, CAPACITIES, RESULT, PROOF):
        raise InvalidRequest("file", "no file of a draw", f"{APPLICATIONS}, {CAPACITIES}, {RESULT} or {PROOF}")
    published = await _published(service, call, needs_result=name == RESULT)
    found = await service.published_draws.download(published, name, call.headers.get(b"if-none-match", b""))
    if found is None:
        raise Problem("overloaded", "too many downloads are under way", retry_after_s=5)
    return found


async def drawn(service: Service, call: Call) -> Reply:
    text = call.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX):
        raise InvalidRequest("number", "not the number of an application", f"1 to {_NUMBER_DIGITS_MAX} digits")
    published = await _published(service, call, needs_result=True)
    found = await asyncio.to_thread(published.drawn, int(text))
    if found is None:
        raise Problem("draw-not-found", "the list has no application of this number")
    return Reply(200, found)


def _kinds(*statuses: DrawStatus, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    return ("overloaded", *(OF_DRAW_STATUS[status].type for status in statuses), *also)


_OF_APPLY: Final = _kinds(
    S.UNKNOWN_DRAW, S.NOT_OPEN, S.APPLICATIONS_CLOSED, S.PARTY_TOO_LARGE, S.TOO_MANY_CHOICES, S.NOT_IN_DRAW, S.ALREADY_APPLIED,  # noqa: E501
    S.STALE, S.DRAW_FULL, also=("unknown-name",),
)  # fmt: skip
_NOT_RUN: Final = ("draw-not-run",)


def _post(name: str, call_name: str, summary: str, handler: Any, roles: frozenset[Role], **more: Any) -> Any:
    answer = more.pop("answer", wire.DrawOutcomeBody)
    return post(f"{_DRAW}/{name}", call_name, summary, handler, answer, roles=roles, **more)


DRAWS: Final = (
    put(_DRAW, "create-draw", "Announce a draw, with the commitment to its seed.", create, wire.DrawOutcomeBody,
        http=201, also_http=(200,), roles=OPERATORS, body=wire.CreateDrawBody, problems=_kinds(S.DRAW_OVER, S.CONFLICT)),  # noqa: E501
    get(_DRAW, "draw", "A draw as it stands: its terms, how many have applied, what was frozen.", draw, wire.DrawBody,
        problems=_kinds(S.UNKNOWN_DRAW)),
    _post("applications", "apply", "Apply, or change what was applied for; answers with the receipt.", apply, SERVICES,
          http=201, also_http=(200,), body=wire.ApplyBody, problems=_OF_APPLY),
    _post("applications/find", "find-application", "The application that somebody is in.", find, SERVICES,
          answer=wire.ApplicationBody, body=wire.FindApplicationBody, changes=False, problems=_kinds(S.NOT_FOUND)),
    _post("applications/withdraw", "withdraw", "Take an application back, for all of its party.", withdraw, SERVICES,
          body=wire.WithdrawBody,
          problems=_kinds(S.UNKNOWN_DRAW, S.NOT_OPEN, S.APPLICATIONS_CLOSED, S.NOT_FOUND, S.STALE)),
    get(_DRAW + "/applications/{number}", "drawn", "What became of an application, by its number.", drawn,
        wire.DrawnBody, problems=_kinds(S.UNKNOWN_DRAW, S.NOT_FROZEN, S.NOT_FOUND, also=_NOT_RUN)),
    _post("close", "close-draw", "After the closing time: freeze what is given away, and the applications.", close,
          OPERATORS, problems=_kinds(S.UNKNOWN_DRAW, S.STILL_OPEN, S.CONFLICT)),
    _post("run", "run-draw", "Reveal the seed, and the public text that was announced: it decides the draw.", run,
          OPERATORS, body=wire.RevealBody, problems=_kinds(S.UNKNOWN_DRAW, S.NOT_FROZEN, S.CONFLICT)),
    _post("award", "award", "Hold the winners' places, so many at a time. Safe to repeat.", award, OPERATORS,
          answer=wire.AwardBody, body=wire.HoldTimeBody, problems=_kinds(S.UNKNOWN_DRAW, also=_NOT_RUN)),
    get(_DRAW + "/files/{file}", "draw-file", "A file to publish and to check the draw with.", file, bytes,
        is_tagged=True, problems=_kinds(S.UNKNOWN_DRAW, S.NOT_FROZEN, also=_NOT_RUN)),
)  # fmt: skip
