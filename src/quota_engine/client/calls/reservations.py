"""A reservation's life, and what is known of it."""

from __future__ import annotations

__all__ = ["ReservationCalls"]

import base64
import os
from collections.abc import Sequence

import msgspec

from quota_engine.admission.policy import Caller
from quota_engine.api_schema.operators import MovesBody
from quota_engine.api_schema.reservations import DayListBody, MovedToBody, ReservationBody
from quota_engine.client.call_protocol import ServiceRefused, Speaker, Talk, segment
from quota_engine.client.calls.common import day_text, given, of_day, party_of, wanted_of
from quota_engine.client.decoding import reservation_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, WaitListPosition
from quota_engine.domain.validation import check_name
from quota_engine.workflows.arguments import Day
from quota_engine.workflows.office_moves import MovesReport

_LISTED_MAX = 1_000
_PARTS_MAX = 10_000


def _random_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(16))[:22].decode()


def _of(reference: str, rest: str = "") -> str:
    return f"/v1/reservations/{segment(reference, 'reference')}{rest}"


class ReservationCalls(Speaker):
    """From reserve to check-in."""

    def reserve(
        self,
        office: str,
        day: Day,
        applicants: str | Sequence[str],
        *,
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        idempotency_key: str | None = None,
        join_wait_list: bool = False,
        hold_ttl_ms: int = 0,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reserve`. Without a ``key`` one is made up, and sent again if need be."""
        if idempotency_key is not None:
            check_name(idempotency_key, "idempotency_key")
        body: dict[str, object] = {
            "applicants": party_of(applicants),
            "join_wait_list": join_wait_list,
            **wanted_of(service, service_unit, session, channel, group),
        }
        if hold_ttl_ms:
            body["hold_ttl_ms"] = hold_ttl_ms
        if admission_pass:
            body["admission_pass"] = admission_pass
        if isinstance(caller, Caller):
            body["caller"] = msgspec.structs.asdict(caller)
        elif caller is not None:
            raise InvalidRequest("caller", f"a {type(caller).__name__}", "a Caller")
        return self._command("POST", of_day(office, day, "reservations"), body, key=idempotency_key or _random_key())

    def confirm(
        self, reference: str, *, owner: str | None = None, expected_version: int = 0, reacquire: bool = False
    ) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.confirm`."""
        return self._step("confirm", reference, owner, expected_version, reacquire=reacquire)

    def release(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.release`."""
        return self._step("release", reference, owner, expected_version)

    def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.cancel`."""
        return self._step("cancel", reference, owner, expected_version)

    def check_in(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.check_in`."""
        return self._step("check-in", reference, owner, expected_version)

    def mark_no_show(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.mark_no_show`."""
        return self._step("no-show", reference, owner, expected_version)

    def reschedule(
        self,
        reference: str,
        day: Day,
        *,
        office: str = "",
        service: str = "",
        service_unit: str = "",
        session: str = "",
        channel: str = "online",
        group: str = "",
        owner: str | None = None,
        expected_version: int = 0,
    ) -> Talk[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reschedule`."""
        wanted = wanted_of(service, service_unit, session, channel, group)
        return self._step("reschedule", reference, owner, expected_version, day=day_text(day), office=office, **wanted)

    def recover_moves(self, *, older_than_ms: int = 0, limit: int = 1000) -> Talk[MovesReport]:
        """See :meth:`quota_engine.QuotaEngine.recover_moves`; at most 1,000 at a time."""
        body: dict[str, object] = {"older_than_ms": older_than_ms, "limit": limit}
        found = yield from self._ask("POST", "/v1/moves/recover", MovesBody, body=body)
        return MovesReport(found.finished, found.undone)

    def find_moved(self, reference: str) -> Talk[str]:
        """See :meth:`quota_engine.QuotaEngine.moved_to`."""
        return (yield from self._ask("GET", _of(reference, "/moved-to"), MovedToBody)).reference

    def lookup(self, reference: str) -> Talk[Reservation | None]:
        """See :meth:`quota_engine.QuotaEngine.lookup`."""
        found = yield from self._look(reference)
        return None if found is None else reservation_of(found)

    def wait_list_position(self, reference: str) -> Talk[WaitListPosition | None]:
        """See :meth:`quota_engine.QuotaEngine.wait_list_position`."""
        found = yield from self._look(reference)
        if found is None or not found.wait_list_position:
            return None
        return WaitListPosition(found.wait_list_position.ahead, found.wait_list_position.waiting)

    def list_reservations(self, office: str, day: Day) -> Talk[list[Reservation]]:
        """See :meth:`quota_engine.QuotaEngine.reservations`; a long list is asked for in parts, one after the other."""
        path = of_day(office, day, "reservations")
        found: dict[str, Reservation] = {}  # one that moves on between two parts comes once all the same
        for part in range(_PARTS_MAX):
            query = {"skip": part * _LISTED_MAX, "limit": _LISTED_MAX}
            listed = yield from self._ask("GET", path, DayListBody, query=query)
            found.update((one.reference, reservation_of(one)) for one in listed.reservations)
            if (part + 1) * _LISTED_MAX >= listed.total:
                break
        return list(found.values())

    def _look(self, reference: str) -> Talk[ReservationBody | None]:
        try:
            return (yield from self._ask("GET", _of(reference), ReservationBody))
        except ServiceRefused as error:
            if error.kind == "not-found":
                return None
            raise

    def _step(
        self, step: str, reference: str, owner: str | None, expected_version: int, **more: object
    ) -> Talk[Outcome]:
        body = {"owner": given(owner, "owner"), "expected_version": expected_version, **more}
        return self._command("POST", _of(reference, f"/{step}"), body)
