"""Requests that schemathesis generates from the served OpenAPI document, with all its checks.

Importing this module imports schemathesis and builds the document, which takes about a second of processor time, so
tests import it only when they run. Each endpoint gets a separate service on the memory store, with a manual clock.
"""

from __future__ import annotations

__all__ = ["STAGE", "check_endpoint", "check_sequences", "list_operations"]

import datetime
import os
import re
import zlib
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import schemathesis
from hypothesis import settings
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.openapi.checks import RejectedPositiveData
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.python._constants.orchestrator import make_constants_value_source
from schemathesis.python.asgi import ASGIClient
from starlette.types import Receive, Scope, Send

from quota_engine.api_schema.headers import REQUEST_TIMEOUT_HEADER, REQUEST_TIMEOUT_PATTERN
from quota_engine.catalog import day_terms, load_catalog
from quota_engine.clocks import ManualClock
from quota_engine.draws.commands import DrawConfig
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.service.api import ENDPOINTS
from quota_engine.service.app import ServiceApp, create_app
from quota_engine.service.http.auth import Role
from quota_engine.service.http.endpoint import Endpoint
from quota_engine.service.http.problems import PROBLEM_TYPES, TYPE_PREFIX
from tests.support.effort import PROFILE, examples
from tests.support.identities import nik
from tests.support.in_process_service import DAY, TOKENS, configuration

_TERMS = day_terms(load_catalog("surabaya"), "surabaya", DAY)
assert _TERMS is not None
OPENS_AT_MS = _TERMS.opens_at_ms
EXAMPLES_MAX = int(os.environ.get("QUOTA_ENGINE_EXAMPLES", "0")) or examples(8, 20)
OPERATOR = {"Authorization": f"Bearer {TOKENS[Role.OPERATOR]}"}
REFUSALS_MAX = 10 if PROFILE == "gate" else 1_000
"""Requests to an endpoint that are sent again with tokens that may not call it."""
BY_OPERATION = {(one.method, one.path): one for one in ENDPOINTS}

TICKETS: list[str] = []
"""The tickets of the current service."""
THERE: dict[str, Sequence[str]] = {
    "office": ("surabaya",),
    "day": tuple(str(DAY + datetime.timedelta(days=number)) for number in range(5)),
    "quota": ("online", "morning"),
    "reference": ("surabaya~held", "surabaya~confirmed"),
    "room": ("spring",),
    "ticket": TICKETS,
    "draw": ("lottery",),
}
"""Existing values of path parameters."""
MEANT = {"service": "new", "service_unit": "", "session": "morning", "channel": "online", "group": ""}
"""A valid selection."""
AGAINST_MEANING = {
    "first_day, last_day": "a range that ends before it begins, or is too long",
    "day": "a year outside the schedules",
    "service": "required only because the office has more than one",
    "session": "the same",
    "service_unit": "the same",
    "applicants": "an applicant twice, or text that does not fit the form of identities",
    "owner": "text that does not fit the form of identities",
    "applicant": "text that does not fit the form of identities",
    "identity": "text that does not fit the form of identities",
    "admission_pass": "given where no policy checks passes",
    "ticket": "not an issued ticket",
    "replaces_ticket": "a ticket that has not missed its turn",
    "settings.pass_grace_ms": "a pass that would end before the office's holds do",
    **dict.fromkeys(
        ("last_day", "join_opens_at_ms", "opens_at_ms", "closes_at_ms", "forget_at_ms", "window_ms", "turn_ms"),
        "a time that contradicts the room's other times",
    ),
    **dict.fromkeys(("per_minute_max", "burst"), "a pace that contradicts the room's other values"),
    "bounds_ms": "bounds that do not ascend, or exceed ten years",
    "draw": "times in the wrong order",
    "consumer_group, consumer": "one of them without the other",
    "after": "given with a consumer group, which has its own position",
}
"""Parts of a request that can be invalid although they match their schema."""


async def furnish(engine: AsyncQuotaEngine) -> None:
    """Create two reservations, a room with a ticket, and a draw."""
    for number, key in enumerate(("held", "confirmed")):
        held = await engine.reserve("surabaya", DAY, nik(number), service="new", session="morning", idempotency_key=key)
        assert held.ok
    assert (await engine.confirm("surabaya~confirmed")).ok
    now_ms = OPENS_AT_MS
    room = engine.room("spring")
    await room.create("surabaya", DAY, opens_at=now_ms + 600_000, join_opens_at=now_ms - 1_000)
    TICKETS[:] = [(await room.join(nik(3))).ticket]
    terms = DrawConfig(
        opens_at_ms=now_ms - 1_000,
        closes_at_ms=now_ms + 3_600_000,
        forget_at_ms=now_ms + 7_200_000,
        first_day=DAY.toordinal(),
        last_day=DAY.toordinal(),
        commitment="0" * 64,
    )
    assert (await engine.draw("lottery").create(terms)).ok


class Stage:
    """The application under schemathesis.

    Each test starts a new service with its first request, in the loop that serves it.
    """

    def __init__(self) -> None:
        self._application: ServiceApp | None = None
        self.refusals = 0

    def clear(self) -> None:
        """Drop the application and its store."""
        self._application = None
        self.refusals = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and refuse the lifespan."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if self._application is None:
            self._application = await opened()
        await self._application(scope, receive, send)


async def opened() -> ServiceApp:
    """Return a service whose week has just opened."""
    chosen = configuration(publish_days=30)
    app = create_app(chosen, clock=ManualClock(OPENS_AT_MS))
    await app.context.start()
    await furnish(app.context.engine)
    return app


STAGE = Stage()
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", STAGE)
SCHEMA.config.max_stream_events = 1  # a stream does not end by itself


class Caller(ASGIClient):
    """The session of all requests. A new one for each would search the environment for proxies a fifth of the time."""

    def __init__(self) -> None:
        super().__init__(cast("Any", STAGE), max_stream_events=1)
        self.trust_env = False

    def request(self, *arguments: Any, **keywords: Any) -> Any:
        """Send a request without cookies of earlier ones."""
        self.cookies.clear()
        return super().request(*arguments, **keywords)


CALLER = Caller()


@SCHEMA.hook
def filter_failure(context: Any, failure: Failure, case: schemathesis.Case[Any], response: Response) -> bool:
    """Accept a refusal by the rules: a problem with an outcome, or with an unprocessable meaning.

    Also accept that an invalid body is refused for its size, which schemathesis does not expect.
    """
    if isinstance(failure, AcceptedNegativeData):
        return response.status_code != 413
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = msgspec.json.decode(response.content)
    if "outcome" in problem:
        return PROBLEM_TYPES[problem["type"].removeprefix(TYPE_PREFIX)].status != response.status_code
    errors = problem.get("errors", ())
    parts = [one["where"].partition("[")[0] for one in errors if "openapi" not in one["expected"]]
    return not errors or not set(parts) <= set(AGAINST_MEANING) or len(parts) < len(errors)


def without_points(value: Any) -> Any:
    """Return the value with integral floats as integers."""
    if isinstance(value, dict):
        return {name: without_points(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_points(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def aim(case: schemathesis.Case[Any]) -> None:
    """Point three of four valid requests at existing objects, chosen by their content.

    Random names would hit nothing. JSON Schema allows ``1.0`` as an integer, the service does not, so it is written as
    ``1``. A valid ``Request-Timeout`` becomes a minute: a busy machine answers a shorter one with 503, as documented.
    """
    if re.fullmatch(REQUEST_TIMEOUT_PATTERN, str(case.headers.get(REQUEST_TIMEOUT_HEADER, ""))):
        case.headers[REQUEST_TIMEOUT_HEADER] = "60"
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    chance = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    for fields in (case.query, case.body):
        if isinstance(fields, dict):
            for name, value in fields.items():
                fields[name] = MEANT[name] if name in MEANT and chance % 4 else without_points(value)
    if chance % 4:
        for name in case.path_parameters:
            if name in THERE:
                case.path_parameters[name] = THERE[name][chance // 4 % len(THERE[name])]


def with_role(role: Role) -> dict[str, str]:
    """Return the header with the token of a role."""
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def refuses_other_roles(case: schemathesis.Case[Any], endpoint: Endpoint, chance: int) -> None:
    """Check that a role that may not call gets 403, and a caller without a token 401, with any request."""
    others = sorted(set(Role) - (endpoint.roles or set(Role)) - {Role.OPERATOR})
    # Some parts are checked before the token, and an invalid request may lack its token.
    malformed = {400, 401, 404, 405, 431}
    is_valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if others:
        refused = case.call(session=CALLER, headers=with_role(others[chance % len(others)]))
        assert refused.status_code == 403 or (not is_valid and refused.status_code in malformed), refused.status_code
    if endpoint.roles is not None:
        refused = case.call(session=CALLER, headers={"Authorization": "Bearer of no token"})
        assert refused.status_code == 401 or (not is_valid and refused.status_code in malformed), refused.status_code


@settings(max_examples=EXAMPLES_MAX, derandomize=True, database=None, deadline=None)
def _matches_the_document(case: schemathesis.Case[Any]) -> None:
    """Send each request with the token of a role that may call; first, one of four with tokens that may not."""
    aim(case)
    endpoint = BY_OPERATION[case.operation.method.upper(), case.operation.path]
    chance = zlib.crc32(repr((case.body, case.query, case.path_parameters)).encode())
    if chance % 4 == 0 and STAGE.refusals < REFUSALS_MAX:
        STAGE.refusals += 1
        refuses_other_roles(case, endpoint, chance // 4)
    roles = sorted((endpoint.roles or set(Role)) | {Role.OPERATOR})
    case.call_and_validate(session=CALLER, headers=with_role(roles[chance // 16 % len(roles)]))


class Sequences(SCHEMA.as_state_machine()):  # type: ignore[misc]
    """Sequences of requests that use values of earlier responses."""

    def setup(self) -> None:
        """Start each sequence with a new service."""
        STAGE.clear()

    def before_call(self, case: schemathesis.Case[Any]) -> None:
        """See :func:`aim`."""
        aim(case)

    def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
        """Return the arguments of a call, with the session and an operator's token."""
        return {"headers": OPERATOR, "session": CALLER}


def list_operations() -> list[tuple[str, str]]:
    """Return method and path of each operation of the document, sorted."""
    operations = [result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)]
    return sorted((one.method.upper(), one.path) for one in operations)


def check_endpoint(endpoint: Endpoint) -> None:
    """Send generated requests to an endpoint, and check each response.

    ``SCHEMA.parametrize()`` would generate the requests of all endpoints while tests are collected, in every worker.
    """
    load_all_checks()
    test = build_operation_test(
        config=SCHEMA.config,
        operation=SCHEMA[endpoint.path][endpoint.method],
        test_func=_matches_the_document,
        given_kwargs={},
        feedback=FeedbackSources(constants_value_source=make_constants_value_source(SCHEMA)),
    )
    test()


def check_sequences() -> None:
    """Send sequences of requests, and check each response."""
    chosen = settings(max_examples=EXAMPLES_MAX, stateful_step_count=8, derandomize=True, database=None, deadline=None)
    Sequences.run(settings=chosen)
