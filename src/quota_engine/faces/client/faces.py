"""The two clients: the engine's methods, over HTTP. What a method does stands at :class:`quota_engine.QuotaEngine`."""

from __future__ import annotations

__all__ = ["AsyncServiceClient", "ServiceClient"]

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from quota_engine.admission.policy import Caller
from quota_engine.faces.client.calls import Calls, Day
from quota_engine.faces.client.rooms import AsyncServiceRoom, RoomCalls, ServiceRoom
from quota_engine.faces.client.talk import Ask, Heard, Pause, Retries, Talk, Unheard
from quota_engine.faces.service import wire

T = TypeVar("T")

_TIMEOUT_S: Final = 10.0
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _settings(url: str, token: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return {"base_url": url, "headers": headers, "timeout": _TIMEOUT_S}


def _request(step: Ask) -> dict[str, Any]:
    headers = dict(step.headers)
    if step.body is not None:
        headers["content-type"] = "application/json"
    return {"method": step.method, "url": step.path, "params": step.query, "content": step.body, "headers": headers}


def _heard(response: httpx.Response) -> Heard:
    return Heard(response.status_code, response.headers, response.content)


def _unheard(error: httpx.TransportError) -> Unheard:
    return Unheard(str(error) or type(error).__name__, sent=not isinstance(error, _NOT_SENT))


class ServiceClient:
    """Reserves places through a service. Safe to share between threads; the methods are the engine's.

    A refusal is an outcome, as with the engine. Errors are the engine's too: :class:`~quota_engine.InvalidRequest`,
    :class:`~quota_engine.BackendUnavailable` (nothing was done) and :class:`~quota_engine.OutcomeUnknown` (ask again
    with the same key); and :class:`ServiceRefused`, if the token does not allow it.
    """

    def __init__(self, http: httpx.Client, retries: Retries = Retries()) -> None:  # noqa: B008 - immutable
        """Bring your own ``http``, with base URL and token; :meth:`open` is the usual way."""
        self._http = http
        self._calls = Calls(retries)
        self._retries = retries

    @classmethod
    def open(cls, url: str, token: str = "") -> Self:
        """A client of the service at ``url``, with the bearer ``token``."""
        return cls(httpx.Client(**_settings(url, token)))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.duration_ms / 1000)
                    step = next(talk)
                    continue
                try:
                    heard = _heard(self._http.request(**_request(step)))
                except httpx.TransportError as error:
                    step = talk.throw(_unheard(error))
                else:
                    step = talk.send(heard)
        except StopIteration as end:
            value: T = end.value
            return value

    def room(self, room: str) -> ServiceRoom:
        """See :meth:`quota_engine.QuotaEngine.room`."""
        return ServiceRoom(RoomCalls(self._retries, room), self._run)

    def reserve(
        self, office: str, day: Day, applicants: str | Sequence[str], *, key: str | None = None, wait: bool = False,
        service: str = "", service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
        caller: Caller | None = None, admission_pass: str = "",
    ) -> wire.OutcomeBody:  # fmt: skip
        """See :meth:`quota_engine.QuotaEngine.reserve`."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return self._run(self._calls.reserve(office, day, applicants, wanted, key, wait, caller, admission_pass))

    def confirm(
        self, reference: str, *, applicant: str | None = None, version: int = 0, reacquire: bool = False
    ) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.confirm`."""
        return self._run(self._calls.step("confirm", reference, applicant, version, reacquire=reacquire))

    def release(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.release`."""
        return self._run(self._calls.step("release", reference, applicant, version))

    def cancel(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.cancel`."""
        return self._run(self._calls.step("cancel", reference, applicant, version))

    def check_in(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.check_in`."""
        return self._run(self._calls.step("check-in", reference, applicant, version))

    def mark_no_show(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.mark_no_show`."""
        return self._run(self._calls.step("no-show", reference, applicant, version))

    def reschedule(
        self, reference: str, day: Day, *, applicant: str | None = None, version: int = 0, service: str = "",
        service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
    ) -> wire.OutcomeBody:  # fmt: skip
        """See :meth:`quota_engine.QuotaEngine.reschedule`."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return self._run(self._calls.step("reschedule", reference, applicant, version, day=str(day), **wanted))

    def lookup(self, reference: str) -> wire.ReservationBody | None:
        """See :meth:`quota_engine.QuotaEngine.lookup`."""
        return self._run(self._calls.lookup(reference))

    def availability(
        self, office: str, first_day: Day, last_day: Day | None = None, *, units: int = 1, service: str = "",
        service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
    ) -> wire.AvailabilityBody:  # fmt: skip
        """See :meth:`quota_engine.QuotaEngine.availability`; with the earliest day that has room for what is asked."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return self._run(self._calls.availability(office, first_day, last_day, wanted, units))

    def offices(self) -> wire.OfficesBody:
        """The offices of the service's catalog, what they offer, and when they open next."""
        return self._run(self._calls.offices())

    def set_capacity(self, office: str, day: Day, quota: str, capacity: int) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.set_capacity`."""
        return self._run(self._calls.on_day("PUT", office, day, f"quotas/{quota}/capacity", {"capacity": capacity}))

    def close_day(self, office: str, day: Day) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.close_day`."""
        return self._run(self._calls.on_day("POST", office, day, "close"))

    def open_day(self, office: str, day: Day) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.open_day`."""
        return self._run(self._calls.on_day("POST", office, day, "open"))

    def pass_on_unused(self, office: str, day: Day, quota: str) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.pass_on_unused`."""
        return self._run(self._calls.on_day("POST", office, day, f"quotas/{quota}/pass-on"))

    def return_parked(self, office: str, day: Day, quota: str) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.return_parked`."""
        return self._run(self._calls.on_day("POST", office, day, f"quotas/{quota}/return-parked"))

    def expire(self, office: str, day: Day, limit: int = 100) -> wire.OutcomeBody:
        """See :meth:`quota_engine.QuotaEngine.expire`."""
        return self._run(self._calls.on_day("POST", office, day, "expire", {"limit": limit}))

    def publish(self, first_day: Day, last_day: Day) -> wire.PublishedBody:
        """See :meth:`quota_engine.QuotaEngine.publish`; the catalog is the service's own."""
        return self._run(self._calls.publish(first_day, last_day))

    def events(self, office: str, after: int = 0, limit: int = 100) -> wire.EventsBody:
        """See :meth:`quota_engine.QuotaEngine.events`."""
        return self._run(self._calls.events(office, after, limit))

    def trim_events(self, office: str, through: int) -> int:
        """See :meth:`quota_engine.QuotaEngine.trim_events`."""
        return self._run(self._calls.trim_events(office, through)).events_left

    def audit(self, office: str | None = None) -> wire.AuditBody:
        """See :meth:`quota_engine.QuotaEngine.audit`."""
        return self._run(self._calls.audit(office))


class AsyncServiceClient:
    """:class:`ServiceClient` for asyncio: the same methods, awaited."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries = Retries()) -> None:  # noqa: B008 - immutable
        """Bring your own ``http``, with base URL and token; :meth:`open` is the usual way."""
        self._http = http
        self._calls = Calls(retries)
        self._retries = retries

    @classmethod
    async def open(cls, url: str, token: str = "") -> Self:
        """See :meth:`ServiceClient.open`."""
        return cls(httpx.AsyncClient(**_settings(url, token)))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, talk: Talk[T]) -> T:
        try:
            step = next(talk)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.duration_ms / 1000)
                    step = next(talk)
                    continue
                try:
                    heard = _heard(await self._http.request(**_request(step)))
                except httpx.TransportError as error:
                    step = talk.throw(_unheard(error))
                else:
                    step = talk.send(heard)
        except StopIteration as end:
            value: T = end.value
            return value

    def room(self, room: str) -> AsyncServiceRoom:
        """See :meth:`ServiceClient.room`."""
        return AsyncServiceRoom(RoomCalls(self._retries, room), self._run)

    async def reserve(
        self, office: str, day: Day, applicants: str | Sequence[str], *, key: str | None = None, wait: bool = False,
        service: str = "", service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
        caller: Caller | None = None, admission_pass: str = "",
    ) -> wire.OutcomeBody:  # fmt: skip
        """See :meth:`ServiceClient.reserve`."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return await self._run(self._calls.reserve(office, day, applicants, wanted, key, wait, caller, admission_pass))

    async def confirm(
        self, reference: str, *, applicant: str | None = None, version: int = 0, reacquire: bool = False
    ) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.confirm`."""
        return await self._run(self._calls.step("confirm", reference, applicant, version, reacquire=reacquire))

    async def release(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.release`."""
        return await self._run(self._calls.step("release", reference, applicant, version))

    async def cancel(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.cancel`."""
        return await self._run(self._calls.step("cancel", reference, applicant, version))

    async def check_in(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.check_in`."""
        return await self._run(self._calls.step("check-in", reference, applicant, version))

    async def mark_no_show(self, reference: str, *, applicant: str | None = None, version: int = 0) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.mark_no_show`."""
        return await self._run(self._calls.step("no-show", reference, applicant, version))

    async def reschedule(
        self, reference: str, day: Day, *, applicant: str | None = None, version: int = 0, service: str = "",
        service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
    ) -> wire.OutcomeBody:  # fmt: skip
        """See :meth:`ServiceClient.reschedule`."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return await self._run(self._calls.step("reschedule", reference, applicant, version, day=str(day), **wanted))

    async def lookup(self, reference: str) -> wire.ReservationBody | None:
        """See :meth:`ServiceClient.lookup`."""
        return await self._run(self._calls.lookup(reference))

    async def availability(
        self, office: str, first_day: Day, last_day: Day | None = None, *, units: int = 1, service: str = "",
        service_unit: str = "", session: str = "", channel: str = "online", group: str = "",
    ) -> wire.AvailabilityBody:  # fmt: skip
        """See :meth:`ServiceClient.availability`."""
        wanted = _wanted(service, service_unit, session, channel, group)
        return await self._run(self._calls.availability(office, first_day, last_day, wanted, units))

    async def offices(self) -> wire.OfficesBody:
        """See :meth:`ServiceClient.offices`."""
        return await self._run(self._calls.offices())

    async def set_capacity(self, office: str, day: Day, quota: str, capacity: int) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.set_capacity`."""
        return await self._run(
            self._calls.on_day("PUT", office, day, f"quotas/{quota}/capacity", {"capacity": capacity})
        )

    async def close_day(self, office: str, day: Day) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.close_day`."""
        return await self._run(self._calls.on_day("POST", office, day, "close"))

    async def open_day(self, office: str, day: Day) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.open_day`."""
        return await self._run(self._calls.on_day("POST", office, day, "open"))

    async def pass_on_unused(self, office: str, day: Day, quota: str) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.pass_on_unused`."""
        return await self._run(self._calls.on_day("POST", office, day, f"quotas/{quota}/pass-on"))

    async def return_parked(self, office: str, day: Day, quota: str) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.return_parked`."""
        return await self._run(self._calls.on_day("POST", office, day, f"quotas/{quota}/return-parked"))

    async def expire(self, office: str, day: Day, limit: int = 100) -> wire.OutcomeBody:
        """See :meth:`ServiceClient.expire`."""
        return await self._run(self._calls.on_day("POST", office, day, "expire", {"limit": limit}))

    async def publish(self, first_day: Day, last_day: Day) -> wire.PublishedBody:
        """See :meth:`ServiceClient.publish`."""
        return await self._run(self._calls.publish(first_day, last_day))

    async def events(self, office: str, after: int = 0, limit: int = 100) -> wire.EventsBody:
        """See :meth:`ServiceClient.events`."""
        return await self._run(self._calls.events(office, after, limit))

    async def trim_events(self, office: str, through: int) -> int:
        """See :meth:`ServiceClient.trim_events`."""
        return (await self._run(self._calls.trim_events(office, through))).events_left

    async def audit(self, office: str | None = None) -> wire.AuditBody:
        """See :meth:`ServiceClient.audit`."""
        return await self._run(self._calls.audit(office))


def _wanted(service: str, service_unit: str, session: str, channel: str, group: str) -> dict[str, str]:
    return {
        "service": service, "service_unit": service_unit, "session": session, "channel": channel, "group": group,
    }  # fmt: skip
