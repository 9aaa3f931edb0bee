"""Calls about one reservation, from reserve to check-in."""

from __future__ import annotations

__all__ = ["ReservationCalls"]

from collections.abc import Sequence

import msgspec

from quota_engine.admission.policy import Caller
from quota_engine.api_schema.operators import MovesBody
from quota_engine.api_schema.reservations import DayListBody, MovedToBody, ReservationBody
from quota_engine.client.call_protocol import CallBase, CallFlow, ServiceRefused, segment
from quota_engine.client.calls.common import day_path, day_text, optional_text, party_list, selection_fields
from quota_engine.client.decoding import reservation_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, WaitListPosition
from quota_engine.domain.validation import check_name
from quota_engine.workflows.arguments import Day, random_id
from quota_engine.workflows.office_moves import MovesReport

_LISTED_MAX = 1_000
_PARTS_MAX = 10_000


def _reservation_path(reference: str, rest: str = "") -> str:
    return f"/v1/reservations/{segment(reference, 'reference')}{rest}"


def _admission_fields(caller: Caller | None, admission_pass: str) -> dict[str, object]:
    """Return the fields of a body that admission policies look at; none without a caller and a pass."""
    fields: dict[str, object] = {}
    if admission_pass:
        fields["admission_pass"] = admission_pass
    if isinstance(caller, Caller):
        fields["caller"] = msgspec.structs.asdict(caller)
    elif caller is not None:
        raise InvalidRequest("caller", f"a {type(caller).__name__}", "a Caller")
    return fields


class ReservationCalls(CallBase):
    """Reservations."""

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
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reserve`.

        Without ``idempotency_key`` the client generates one, and sends the same one with every attempt.
        """
        if idempotency_key is not None:
            check_name(idempotency_key, "idempotency_key")
        body: dict[str, object] = {
            "applicants": party_list(applicants),
            "join_wait_list": join_wait_list,
            **selection_fields(service, service_unit, session, channel, group),
            **_admission_fields(caller, admission_pass),
        }
        if hold_ttl_ms:
            body["hold_ttl_ms"] = hold_ttl_ms
        return self._command("POST", day_path(office, day, "reservations"), body, key=idempotency_key or random_id())

    def confirm(
        self,
        reference: str,
        *,
        owner: str | None = None,
        expected_version: int = 0,
        reacquire: bool = False,
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.confirm`."""
        shown = _admission_fields(caller, admission_pass)
        return self._step("confirm", reference, owner, expected_version, reacquire=reacquire, **shown)

    def extend(
        self, reference: str, extension: int, *, owner: str | None = None, expected_version: int = 0
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.extend`."""
        return self._step("extend", reference, owner, expected_version, extension=extension)

    def remove_applicant(
        self, reference: str, applicant: str, *, owner: str | None = None, expected_version: int = 0
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.remove_applicant`."""
        return self._step("remove-applicant", reference, owner, expected_version, applicant=applicant)

    def replace_applicant(
        self, reference: str, applicant: str, replacement: str, *, expected_version: int = 0
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.replace_applicant`."""
        body = {"applicant": applicant, "replacement": replacement, "expected_version": expected_version}
        return self._command("POST", _reservation_path(reference, "/replace-applicant"), body)

    def release(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.release`."""
        return self._step("release", reference, owner, expected_version)

    def decline(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.decline`."""
        return self._step("decline", reference, owner, expected_version)

    def cancel(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.cancel`."""
        return self._step("cancel", reference, owner, expected_version)

    def check_in(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.check_in`."""
        return self._step("check-in", reference, owner, expected_version)

    def mark_no_show(self, reference: str, *, owner: str | None = None, expected_version: int = 0) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.mark_no_show`."""
        return self._step("no-show", reference, owner, expected_version)

    def undo_attendance(
        self, reference: str, *, owner: str | None = None, expected_version: int = 0
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.undo_attendance`."""
        return self._step("undo-attendance", reference, owner, expected_version)

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
        caller: Caller | None = None,
        admission_pass: str = "",
    ) -> CallFlow[Outcome]:
        """See :meth:`quota_engine.QuotaEngine.reschedule`."""
        wanted = {
            **selection_fields(service, service_unit, session, channel, group),
            **_admission_fields(caller, admission_pass),
        }
        return self._step("reschedule", reference, owner, expected_version, day=day_text(day), office=office, **wanted)

    def recover_moves(
        self, *, older_than_ms: int = 0, limit: int = 1000, timeout_ms: int | None = None
    ) -> CallFlow[MovesReport]:
        """See :meth:`quota_engine.QuotaEngine.recover_moves`. ``limit`` is at most 1,000."""
        body: dict[str, object] = {"older_than_ms": older_than_ms, "limit": limit}
        found = yield from self._request(
            "POST", "/v1/moves/recover", MovesBody, body=body, is_long=True, timeout_ms=timeout_ms
        )
        return MovesReport(found.finished, found.undone)

    def find_moved(self, reference: str) -> CallFlow[str]:
        """See :meth:`quota_engine.QuotaEngine.find_moved`."""
        return (yield from self._request("GET", _reservation_path(reference, "/moved-to"), MovedToBody)).reference

    def lookup(self, reference: str) -> CallFlow[Reservation | None]:
        """See :meth:`quota_engine.QuotaEngine.lookup`."""
        found = yield from self._find(reference)
        return None if found is None else reservation_of(found)

    def wait_list_position(self, reference: str) -> CallFlow[WaitListPosition | None]:
        """See :meth:`quota_engine.QuotaEngine.wait_list_position`."""
        found = yield from self._find(reference)
        if found is None or not found.wait_list_position:
            return None
        return WaitListPosition(found.wait_list_position.ahead, found.wait_list_position.waiting)

    def list_reservations(self, office: str, day: Day) -> CallFlow[list[Reservation]]:
        """See :meth:`quota_engine.QuotaEngine.list_reservations`.

        A long list takes several calls.
        """
        path = day_path(office, day, "reservations")
        found: dict[str, Reservation] = {}  # one that moves on between two parts comes once all the same
        for part in range(_PARTS_MAX):
            query = {"skip": part * _LISTED_MAX, "limit": _LISTED_MAX}
            listed = yield from self._request("GET", path, DayListBody, query=query)
            found.update((one.reference, reservation_of(one)) for one in listed.reservations)
            if (part + 1) * _LISTED_MAX >= listed.total:
                break
        return list(found.values())

    def _find(self, reference: str) -> CallFlow[ReservationBody | None]:
        try:
            return (yield from self._request("GET", _reservation_path(reference), ReservationBody))
        except ServiceRefused as error:
            if error.kind == "not-found":
                return None
            raise

    def _step(
        self, step: str, reference: str, owner: str | None, expected_version: int, **more: object
    ) -> CallFlow[Outcome]:
        body = {"owner": optional_text(owner, "owner"), "expected_version": expected_version, **more}
        return self._command("POST", _reservation_path(reference, f"/{step}"), body)
