"""The engine's methods as calls of the service; both clients run them."""

from __future__ import annotations

__all__ = ["Calls", "Day"]

import base64
import datetime
import os
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from quota_engine.admission.policy import Caller
from quota_engine.faces.client.talk import Retries, ServiceRefused, Talk, ask, command
from quota_engine.faces.service import wire

Day = datetime.date | str


def _random_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(16))[:22].decode()


def _part(text: str) -> str:
    return quote(text, safe="~")


class Calls:
    """Makes the calls. Nothing is checked here that the service checks."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries

    def reserve(
        self,
        office: str,
        day: Day,
        applicants: str | Sequence[str],
        wanted: dict[str, str],
        key: str | None,
        wait: bool,
        caller: Caller | None,
        admission_pass: str,
    ) -> Talk[wire.OutcomeBody]:
        """See :meth:`quota_engine.QuotaEngine.reserve`."""
        party = [applicants] if isinstance(applicants, str) else list(applicants)
        body: dict[str, object] = {"applicants": party, "wait": wait, **wanted}
        if caller is not None:
            body["caller"] = msgspec.structs.asdict(caller)
        if admission_pass:
            body["admission_pass"] = admission_pass
        path = f"/v1/offices/{_part(office)}/days/{_part(str(day))}/reservations"
        return command(self._retries, "POST", path, body, key=key or _random_key())

    def step(
        self, step: str, reference: str, applicant: str | None, version: int, **more: object
    ) -> Talk[wire.OutcomeBody]:
        """A step of a reservation's life."""
        body = {"applicant": applicant or "", "version": version, **more}
        return command(self._retries, "POST", f"/v1/reservations/{_part(reference)}/{step}", body)

    def lookup(self, reference: str) -> Talk[wire.ReservationBody | None]:
        """See :meth:`quota_engine.QuotaEngine.lookup`."""
        path = f"/v1/reservations/{_part(reference)}"
        outcome = yield from _found(self._retries, path)
        return outcome

    def availability(
        self, office: str, first_day: Day, last_day: Day | None, wanted: dict[str, str], units: int
    ) -> Talk[wire.AvailabilityBody]:
        """See :meth:`quota_engine.QuotaEngine.availability`."""
        query: dict[str, object] = {"first_day": first_day, "last_day": last_day or "", "units": units, **wanted}
        return ask(
            self._retries, "GET", f"/v1/offices/{_part(office)}/availability", wire.AvailabilityBody, query=query
        )

    def offices(self) -> Talk[wire.OfficesBody]:
        """The catalog's offices."""
        return ask(self._retries, "GET", "/v1/offices", wire.OfficesBody)

    def on_day(
        self, method: str, office: str, day: Day, rest: str, body: dict[str, object] | None = None
    ) -> Talk[wire.OutcomeBody]:
        """An operator's command."""
        path = f"/v1/offices/{_part(office)}/days/{_part(str(day))}/{rest}"
        return command(self._retries, method, path, body)

    def publish(self, first_day: Day, last_day: Day) -> Talk[wire.PublishedBody]:
        """See :meth:`quota_engine.QuotaEngine.publish`; the catalog is the service's."""
        body: dict[str, object] = {"first_day": str(first_day), "last_day": str(last_day)}
        return ask(self._retries, "POST", "/v1/publish", wire.PublishedBody, body=body)

    def events(self, office: str, after: int, limit: int) -> Talk[wire.EventsBody]:
        """See :meth:`quota_engine.QuotaEngine.events`."""
        query: dict[str, object] = {"after": after, "limit": limit}
        return ask(self._retries, "GET", f"/v1/offices/{_part(office)}/events", wire.EventsBody, query=query)

    def trim_events(self, office: str, through: int) -> Talk[wire.TrimmedBody]:
        """See :meth:`quota_engine.QuotaEngine.trim_events`."""
        path = f"/v1/offices/{_part(office)}/events/trim"
        return ask(self._retries, "POST", path, wire.TrimmedBody, body={"through": through})

    def audit(self, office: str | None) -> Talk[wire.AuditBody]:
        """See :meth:`quota_engine.QuotaEngine.audit`."""
        return ask(self._retries, "GET", "/v1/audit", wire.AuditBody, query={"office": office or ""})


def _found(retries: Retries, path: str) -> Talk[wire.ReservationBody | None]:
    try:
        record = yield from ask(retries, "GET", path, wire.ReservationBody)
    except ServiceRefused as error:
        if error.kind == "not-found":
            return None
        raise
    return record
