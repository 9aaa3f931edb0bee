"""The list of a day: who is coming, who has come, and who has not; by queue number, without identities."""

from __future__ import annotations

__all__ = ["QueueList"]

import contextlib
import datetime
from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.service.pages.operator.base import Look, Mistake, OperatorSite, Refused
from quota_engine.service.pages.operator.csv_export import csv_file

_ROWS_MAX: Final = 200
"""So many are on one page of the list."""
_SHOWN: Final = {
    "expected": State.CONFIRMED,
    "came": State.ATTENDED,
    "missed": State.NO_SHOW,
    "held": State.HELD,
    "waiting": State.WAITING,
}
_COLUMNS: Final = ("queue_numbers", "state", "people", "service", "session", "channel", "group", "reference")
_SOUGHT_MAX: Final = 160


class QueueList:
    """The handlers of the list."""

    def __init__(self, site: OperatorSite) -> None:
        self._site = site
        self._board = site.board

    async def list(self, look: Look) -> Response:
        """The list, or those of it that are looked for."""
        return await self._page(look)

    async def rows(self, look: Look) -> Response:
        """The list alone, for a page that keeps itself up to date: several desks may be at it."""
        return await self._page(look, template="operator_queue_rows.html")

    async def csv(self, look: Look) -> Response:
        """All of the day as a file, those who gave up too."""
        day = self._site.day(look)
        records = await self._board.records(look.office.id, day)
        return csv_file(f"{look.office.id}-{day.isoformat()}.csv", _COLUMNS, map(_row, records))

    async def check_in(self, look: Look) -> Response:
        """Somebody has come: by the queue number or reference that was typed or scanned, or by a row's button."""
        day, typed = self._site.day(look), look.fields.get("number", "").strip()
        record = await self._sought(look, day, typed)
        if record is None:
            text = await self._why_none(look, typed) if typed else look.words("op_number_missing")
            return await self._page(look, 422, Mistake("number", text, typed))
        outcome = await self._site.service.engine.check_in(record.reference)
        return await self._told(look, day, record, outcome, "check-in", typed)

    async def ask_no_show(self, look: Look) -> Response:
        """Ask whether somebody is sure that nobody came, and say what follows from it."""
        day = self._site.day(look)
        record = await self._sought(look, day, look.fields.get("number", ""))
        if record is None:
            raise Refused(404, "op_number_none")
        if record.state is not State.CONFIRMED:
            raise Refused(409, "op_refused", why=self._state(look, record))
        return self._site.page(
            look,
            "operator_no_show.html",
            "op_list",
            day=day,
            record=record,
            session=self._sessions(look).get(record.choice.session, ""),
            service=self._services(look).get(record.choice.service, record.choice.service),
            block_days=-(-look.office.rules.no_show_block_ms // 86_400_000),
        )

    async def no_show(self, look: Look) -> Response:
        """Somebody has not come."""
        day, typed = self._site.day(look), look.fields.get("number", "")
        record = await self._sought(look, day, typed)
        if record is None:
            raise Refused(404, "op_number_none")
        if look.fields.get("sure") != "yes":
            return await self.ask_no_show(look)
        outcome = await self._site.service.engine.mark_no_show(record.reference)
        return await self._told(look, day, record, outcome, "no-show", "")

    async def _sought(self, look: Look, day: datetime.date, text: str) -> Reservation | None:
        """The reservation of the day that has this queue number, reference or id."""
        text = text.strip()[:_SOUGHT_MAX]
        found = _one_of(await self._board.records(look.office.id, day), text)
        if found is None and text:
            self._board.forget(look.office.id, day)  # it may have been confirmed a moment ago
            found = _one_of(await self._board.records(look.office.id, day), text)
        return found

    async def _why_none(self, look: Look, text: str) -> str:
        """Why there is nobody of this number or code: it may be another day's."""
        office, _, _ = text.partition("~")
        if office == look.office.id:
            with contextlib.suppress(InvalidRequest):
                found = await self._site.service.engine.lookup(text)
                if found is not None:
                    day = look.words.date(datetime.date.fromordinal(found.day))
                    state = look.words(f"op_state_{found.state}")
                    return look.words("op_number_other_day", day=day, state=state)
        return look.words("op_number_none")

    async def _told(
        self, look: Look, day: datetime.date, record: Reservation, outcome: Outcome, done: str, typed: str
    ) -> Response:
        self._board.forget(look.office.id, day)
        self._site.service.metrics.record_outcome(outcome.status)
        if outcome.ok and not outcome.replayed:
            return self._site.go(
                look,
                "/operator/queue",
                day=day,
                **({"show": look.fields["show"]} if look.fields.get("show") in _SHOWN else {}),
                done=done,
                number=record.queue_number,
            )
        now = outcome.reservation or record
        is_state = outcome.ok or outcome.status is Status.WRONG_STATE
        status_text = f"op_why_{outcome.status}"
        why = look.words(status_text) if look.words.has(status_text) else str(outcome.status)
        text = self._state(look, now) if is_state else look.words("op_refused", why=why)
        return await self._page(look, 409, Mistake("number", text, typed))

    @staticmethod
    def _state(look: Look, record: Reservation) -> str:
        numbers = ", ".join(map(str, record.queue_numbers)) or "–"
        return look.words("op_number_is", number=numbers, state=look.words(f"op_state_{record.state}"))

    async def _page(
        self,
        look: Look,
        status: int = 200,
        mistake: Mistake | None = None,
        *,
        template: str = "operator_queue.html",
    ) -> Response:
        site, words, day = self._site, look.words, self._site.day(look)
        records = await self._board.records(look.office.id, day)
        active = [record for record in records if record.state in ACTIVE]
        is_get = look.request.method != "POST"
        show, sought = look.fields.get("show", ""), look.fields.get("q", "").strip()[:_SOUGHT_MAX] if is_get else ""
        wanted = [one for one in active if show not in _SHOWN or one.state is _SHOWN[show]]
        if sought:
            wanted = [one for one in active if _is_sought(one, sought)]
        start = look.fields.get("from", "")
        first = int(start) if start.isdecimal() and len(start) < 9 else 0
        today = site.today(look.office)
        done = site.done(look, "check-in", "no-show")
        number = look.fields.get("number", "")
        return site.page(
            look,
            template,
            "op_list",
            status,
            day=day,
            before=day - datetime.timedelta(days=1),
            after=day + datetime.timedelta(days=1),
            records=wanted[first : first + _ROWS_MAX],
            first=first,
            query=site.query(look, "day", "show", "q", "from") if is_get else site.query(look, "day", "show"),
            seen=site.seen(look, site.service.now_ms()),
            more_from=first + _ROWS_MAX if len(wanted) > first + _ROWS_MAX else 0,
            less_from=max(0, first - _ROWS_MAX),
            found=len(wanted),
            ended=len(records) - len(active),
            people={state: sum(one.units for one in active if one.state is state) for state in _SHOWN.values()},
            shows=[(name, state) for name, state in _SHOWN.items()],
            show=show if show in _SHOWN and not sought else "",
            sought=sought,
            sessions=self._sessions(look),
            services=self._services(look),
            groups={group.id: group.display_name(words.language) for group in site.service.catalog.groups.values()},
            can_check_in=day == today,
            can_mark=day <= today,
            number=number if done and number.isdecimal() and len(number) < 9 else "",
            mistake=mistake,
            done=done,
        )

    @staticmethod
    def _sessions(look: Look) -> dict[str, str]:
        words = look.words
        return {
            one.id: f"{one.display_name(words.language)} {words.hours(one.start, one.end)}"
            for one in look.office.sessions.values()
        }

    @staticmethod
    def _services(look: Look) -> dict[str, str]:
        return {one.id: one.display_name(look.words.language) for one in look.office.services.values()}


def _one_of(records: Sequence[Reservation], text: str) -> Reservation | None:
    if text.isdecimal() and len(text) < 9:
        number = int(text)
        return next((one for one in records if number in one.queue_numbers and one.state in ACTIVE), None)
    return next((one for one in records if text and text in (one.reference, one.id)), None)


def _is_sought(record: Reservation, text: str) -> bool:
    if text.isdecimal() and len(text) < 9:
        return int(text) in record.queue_numbers
    return text == record.reference or record.id.startswith(text)


def _row(record: Reservation) -> tuple[str, ...]:
    choice = record.choice
    numbers = " ".join(map(str, record.queue_numbers))
    return (
        numbers,
        str(record.state),
        str(record.units),
        choice.service,
        choice.session,
        choice.channel,
        choice.group,
        record.reference,
    )
