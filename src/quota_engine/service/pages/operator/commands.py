"""The page that shows which operator gave which command, and its result."""

from __future__ import annotations

__all__ = ["CommandPages"]

import datetime
import re
from typing import Final, NamedTuple

from starlette.responses import Response

from quota_engine.service.observability.command_log import OperatorCommand
from quota_engine.service.pages.operator.base import OperatorPages
from quota_engine.service.pages.operator.csv_export import people_csv
from quota_engine.service.pages.operator.request import OperatorRequest, PageError

_ROWS_PER_PAGE: Final = 50
_NAME_LENGTH_MAX: Final = 64
_COLUMNS: Final = ("command_time", "command_operator", "command_name", "command_subject", "command_result")
_is_month = re.compile(r"20[0-9]{2}-(?:0[1-9]|1[0-2])").fullmatch


class _Row(NamedTuple):
    """A command in words."""

    when: str
    operator: str
    command: str
    subject: str
    result: str
    is_done: bool
    zone: str


class CommandPages:
    """Handlers of the list of commands."""

    def __init__(self, pages: OperatorPages) -> None:
        self._pages = pages

    async def show(self, request: OperatorRequest) -> Response:
        """Render the commands of a month, the newest first, of all operators or of one."""
        month, commands = await self._commands(request)
        names = sorted({one.operator for one in commands})
        who = request.field("who")[:_NAME_LENGTH_MAX]
        found = [one for one in commands if who in ("", one.operator)]
        start = int(request.field("from")) if request.field("from").isdecimal() else 0
        return self._pages.render(
            request,
            "commands.html",
            "audit",
            rows=[self._row(request, one) for one in found[start : start + _ROWS_PER_PAGE]],
            columns=_COLUMNS,
            names=names,
            who=who,
            month=month,
            next_start=start + _ROWS_PER_PAGE if len(found) > start + _ROWS_PER_PAGE else 0,
            previous_start=max(0, start - _ROWS_PER_PAGE),
            start=start,
            query=request.query("month", "who"),
        )

    async def csv(self, request: OperatorRequest) -> Response:
        """Return the commands of a month as a file for a spreadsheet."""
        month, commands = await self._commands(request)
        rows = [self._row(request, one)[:5] for one in commands]
        translator = request.translator
        name = f"{request.office.id}-commands-{month}.csv"
        return people_csv(translator, name, [translator(column) for column in _COLUMNS], rows)

    async def _commands(self, request: OperatorRequest) -> tuple[str, list[OperatorCommand]]:
        """Return the month, and its commands about the request's office.

        A token of all offices also sees commands that name no office, such as a publication.
        """
        now = datetime.datetime.fromtimestamp(self._pages.service.now_ms() / 1000, tz=datetime.UTC)
        month = request.field("month") or f"{now:%Y-%m}"
        if not _is_month(month):
            raise PageError(404, "unknown_day")
        office, sees_all = request.office.id, not request.grant.offices
        commands = await self._pages.service.command_log.of_month(month)
        return month, [one for one in commands if _is_about(one, office) or (sees_all and not _has_office(one))]

    def _row(self, request: OperatorRequest, command: OperatorCommand) -> _Row:
        moment = self._pages.local_time(command.at_ms, request.office)
        translator = request.translator
        return _Row(
            when=f"{moment:%Y-%m-%d %H:%M:%S}",
            operator=command.operator,
            command=command.command.removeprefix("/operator/"),
            subject=" ".join(f"{name}={value}" for name, value in command.subject.items() if name != "request"),
            result=translator("command_done" if command.is_done else "command_refused", result=command.result),
            is_done=command.is_done,
            zone=moment.tzname() or "",
        )


def _has_office(command: OperatorCommand) -> bool:
    return "office" in command.subject or "~" in command.subject.get("reference", "")


def _is_about(command: OperatorCommand, office: str) -> bool:
    reference = command.subject.get("reference", "")
    return command.subject.get("office", reference.partition("~")[0]) == office
