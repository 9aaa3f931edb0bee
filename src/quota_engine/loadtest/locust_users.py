"""Locust's users: each is a lane that carries one request at a time for people of its kind, over HTTP or directly."""

from __future__ import annotations

__all__ = ["DirectLoadUser", "HttpLoadUser", "LoadUser", "OpeningShape", "user_classes"]

import time
import types
from typing import Any, ClassVar

from locust import LoadTestShape, User, task
from locust.contrib.fasthttp import FastHttpUser

from quota_engine.loadtest.direct_transport import send
from quota_engine.loadtest.locust_session import LocustSession
from quota_engine.loadtest.population import PersonRole
from quota_engine.loadtest.requests import LoadRequest, LoadResponse, encode_request, lost_response, response_of

_TAKE_S = 2.0
_IN_A_ROW_MAX = 100
"""Requests that a lane carries before Locust is asked whether it should stop: asking costs as much as a request."""
_IDLE_S_MAX = 30.0
"""A connection that has been idle for longer may be closed by the host just when it is used again."""


class LoadUser(User):
    """Takes what is due for people of its role, or for those who have waited longest, and carries it."""

    abstract = True
    role: ClassVar[PersonRole] = PersonRole.CITIZEN

    @property
    def session(self) -> LocustSession:
        """This process's part of the test."""
        session: LocustSession = self.environment.loadtest
        return session

    @task
    def send_due_requests(self) -> None:
        """Carry requests as they become due."""
        stage = self.session.scheduler
        if stage is None or stage.closed:
            time.sleep(0.5)
            return
        for _ in range(_IN_A_ROW_MAX):
            due = stage.take_due(self.role, _TAKE_S)
            if due is None:
                return
            started_s = time.perf_counter()
            answer = self.send(due.request)
            stage.complete(due, answer, round((time.perf_counter() - started_s) * 1e6))

    def send(self, ask: LoadRequest) -> LoadResponse:
        """Make a request, tell Locust's statistics, and return what was heard."""
        raise NotImplementedError


class HttpLoadUser(LoadUser, FastHttpUser):
    """Over HTTP, on a connection of its own that is kept."""

    abstract = True
    concurrency = 1
    max_redirects = 0
    max_retries = 0

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self.network_timeout = self.connection_timeout = options.timeout_s
        super().__init__(environment)
        # No call of the interface has cookies, and looking for them takes as long as the rest.
        self.client.client.cookiejar = None
        self._headers = {"Authorization": f"Bearer {options.token}", "Content-Type": "application/json"}
        self._used_s = 0.0

    def send(self, ask: LoadRequest) -> LoadResponse:
        """Send it."""
        request = encode_request(ask)
        now_s = time.monotonic()
        if now_s - self._used_s > _IDLE_S_MAX:
            self.client.client.clientpool.close()
        self._used_s = now_s
        with self.client.request(
            request.method,
            request.path,
            name=request.name,
            data=request.body.decode() or None,
            headers={**self._headers, **request.headers},
            catch_response=True,
        ) as response:
            if not response.status_code:
                answer = lost_response(type(response.error).__name__)
            else:
                answer = response_of(response.status_code, response.content, response.headers.get("retry-after"))
            if answer.lost:
                response.failure(answer.lost)
            else:
                # A refusal is an answer: whether it is a good one is for the verdict to say.
                response.success()
            return answer


class DirectLoadUser(LoadUser):
    """On the library, without a service between: what is left of the time is the engine's and the store's."""

    abstract = True

    def send(self, ask: LoadRequest) -> LoadResponse:
        """Call the engine."""
        wall_s, started_s = time.time(), time.perf_counter()
        name, answer = send(self.session.engine, ask)
        self.environment.events.request.fire(
            request_type="ENGINE",
            name=name,
            response_time=(time.perf_counter() - started_s) * 1000,
            response_length=0,
            response=None,
            context={},
            exception=ConnectionError(answer.lost) if answer.lost else None,
            start_time=wall_s,
            url=None,
        )
        return answer


def user_classes(lane: type[LoadUser]) -> tuple[type[LoadUser], ...]:
    """A user class for each role, in their order, whose requests go by this lane."""

    def of(role: PersonRole) -> type[LoadUser]:
        return types.new_class(role.name.capitalize(), (lane,), exec_body=lambda body: body.update(role=role))

    return tuple(of(role) for role in PersonRole)


class OpeningShape(LoadTestShape):
    """Early arrivals, the burst of the opening second, and the tail: as many lanes as people press in the next seconds,
    by the scenario's own arrivals; all at once where need be.
    """

    def tick(self) -> tuple[int, float] | None:
        """The number of users and how fast to get there; ``None`` when everybody has an answer."""
        runner = self.runner
        assert runner is not None
        session: LocustSession = runner.environment.loadtest  # type: ignore[attr-defined]
        users = session.users()
        return None if users is None else (users, float(users))
