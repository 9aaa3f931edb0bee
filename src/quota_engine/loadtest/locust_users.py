"""Locust users: each sends one request at a time for the people of its role, over HTTP or to the engine."""

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

_TAKE_TIMEOUT_S = 2.0
_REQUESTS_PER_TASK_MAX = 100
"""Requests that a user sends before it asks Locust whether to stop: asking costs as much as a request."""
_IDLE_S_MAX = 30.0
"""A connection that was idle for longer is replaced: the service may close it just when it is used again."""


class LoadUser(User):
    """Sends due requests of people of its role, or else of those who have waited longest."""

    abstract = True
    role: ClassVar[PersonRole] = PersonRole.CITIZEN

    @property
    def session(self) -> LocustSession:
        """The part of the test that this process runs."""
        session: LocustSession = self.environment.loadtest
        return session

    @task
    def send_due_requests(self) -> None:
        """Send requests as they become due."""
        scheduler = self.session.scheduler
        if scheduler is None or scheduler.closed:
            time.sleep(0.5)
            return
        for _ in range(_REQUESTS_PER_TASK_MAX):
            due = scheduler.take_due(self.role, _TAKE_TIMEOUT_S)
            if due is None:
                return
            started_s = time.perf_counter()
            answer = self.send(due.request)
            scheduler.complete(due, answer, round((time.perf_counter() - started_s) * 1e6))

    def send(self, request: LoadRequest) -> LoadResponse:
        """Send a request, record it in Locust's statistics, and return the response."""
        raise NotImplementedError


class HttpLoadUser(LoadUser, FastHttpUser):
    """Sends requests over HTTP, on its own connection, which it keeps open."""

    abstract = True
    concurrency = 1
    max_redirects = 0
    max_retries = 0

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self.network_timeout = self.connection_timeout = options.timeout_s
        super().__init__(environment)
        # The API sets no cookies, and looking for them takes as long as the rest of a request.
        self.client.client.cookiejar = None
        self._headers = {"Authorization": f"Bearer {options.token}", "Content-Type": "application/json"}
        self._used_s = 0.0

    def send(self, request: LoadRequest) -> LoadResponse:
        """See :meth:`LoadUser.send`."""
        encoded = encode_request(request)
        now_s = time.monotonic()
        if now_s - self._used_s > _IDLE_S_MAX:
            self.client.client.clientpool.close()
        self._used_s = now_s
        with self.client.request(
            encoded.method,
            encoded.path,
            name=encoded.name,
            data=encoded.body.decode() or None,
            headers={**self._headers, **encoded.headers},
            catch_response=True,
        ) as response:
            if not response.status_code:
                answer = lost_response(type(response.error).__name__)
            else:
                answer = response_of(response.status_code, response.content, response.headers.get("retry-after"))
            if answer.lost:
                response.failure(answer.lost)
            else:
                # A refusal is a response; the checks decide whether it is the right one.
                response.success()
            return answer


class DirectLoadUser(LoadUser):
    """Calls the engine on the service's store, without the service in between."""

    abstract = True

    def send(self, request: LoadRequest) -> LoadResponse:
        """See :meth:`LoadUser.send`."""
        wall_s, started_s = time.time(), time.perf_counter()
        name, answer = send(self.session.engine, request)
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


def user_classes(base: type[LoadUser]) -> tuple[type[LoadUser], ...]:
    """Return one subclass of ``base`` for each role, in the order of :class:`PersonRole`."""

    def of(role: PersonRole) -> type[LoadUser]:
        return types.new_class(role.name.capitalize(), (base,), exec_body=lambda body: body.update(role=role))

    return tuple(of(role) for role in PersonRole)


class OpeningShape(LoadTestShape):
    """Follows the scenario's arrivals: as many users as people who act in the next seconds."""

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and the users to start a second, or ``None`` when the test has ended."""
        runner = self.runner
        assert runner is not None
        session: LocustSession = runner.environment.loadtest  # type: ignore[attr-defined]
        users = session.users()
        return None if users is None else (users, float(users))
