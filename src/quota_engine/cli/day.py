"""``quota-engine day relocate``: close a day, and move its people to other days, over HTTP."""

from __future__ import annotations

__all__ = ["app"]

import datetime
from typing import Any, Final

import msgspec
from cyclopts import App

from quota_engine.cli.output import (
    BAD_FINDING,
    BAD_INPUT,
    DONE,
    AsJson,
    TimeoutS,
    print_json,
    print_note,
    timeout_ms_of,
)
from quota_engine.clocks import monotonic_ms
from quota_engine.domain.errors import InvalidRequest, JobTimeout
from quota_engine.domain.outcomes import Status
from quota_engine.workflows.relocation import PARTIES_MAX, RelocatedParty, RelocationReport

_TIMEOUT_MS_MIN: Final = 300
"""Less time than this a service does not take."""

app = App(name="day", help="Close a day and move its people to other days.")


@app.command
def relocate(
    office: str,
    day: str,
    /,
    *,
    to: tuple[str, ...] = (),
    other_sessions: bool = False,
    yes: bool = False,
    host: str = "",
    token_file: str = "",
    timeout_s: TimeoutS = 600,
    as_json: AsJson = False,
) -> int:
    """Close a day, and move its people to other days in the order of their queue numbers.

    Without --yes the command prints where each party would go, and changes nothing. A repeated command moves no party
    twice. Exit code 0: all people have a place; 1: some stay on the closed day; 2: bad usage; 3: no service.

    Example:  quota-engine day relocate surabaya 2026-12-07 --to 2026-12-14

    Args:
        office: id of the office.
        day: the day to close, as an ISO date.
        to: a day to move to, or OFFICE:DAY; repeat it in order of preference. Default: the 60 days after the day.
        other_sessions: try other sessions if the same one has no room.
        yes: close the day and move the people; without it, only print the plan.
        host: address of the service.
        token_file: file with the token of an operator; default: the variable QUOTA_ENGINE_TOKEN.
        timeout_s: time of the whole command in seconds, 1 to 3600. At its end, repeat the command to continue.
        as_json: print the result as JSON, and nothing else.
    """
    from quota_engine.cli.service_client import connect

    closed_day = _date(day, "DAY")
    targets = [_target(text) for text in to]
    parties: list[RelocatedParty] = []
    after = 0
    ends_at_ms = monotonic_ms() + timeout_ms_of(timeout_s)
    timeout: JobTimeout | None = None
    with connect(host, token_file, "operator") as client:
        while True:
            try:
                report = client.relocate_day(
                    office,
                    closed_day,
                    targets,
                    other_sessions=other_sessions,
                    after=after,
                    limit=PARTIES_MAX,
                    dry_run=not yes,
                    timeout_ms=max(_TIMEOUT_MS_MIN, int(ends_at_ms - monotonic_ms())),
                )
            except JobTimeout as error:
                if not parties:
                    raise
                timeout = error
                break
            parties += report.parties
            after = report.next_after
            # A dry run takes no place, so a second part of it would count the same places again.
            if not after or not yes:
                break
    if report.status is not Status.DONE:
        print_note(f"{office} has no day {day}: {report.status}")
        return BAD_INPUT
    whole = msgspec.structs.replace(report, parties=tuple(parties))
    if as_json:
        print_json(_as_builtins(whole))
    else:
        _print(whole)
    if timeout is not None:
        raise timeout
    return BAD_FINDING if whole.people_left else DONE


def _target(text: str) -> tuple[str, str] | str:
    office, colon, day = text.rpartition(":")
    return (office, _date(day, "--to")) if colon else _date(text, "--to")


def _date(text: str, where: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidRequest(where, f"{text[:40]!r} is no date", "an ISO date such as 2026-12-14") from None


def _as_builtins(report: RelocationReport) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(report),
        "day": datetime.date.fromordinal(report.day).isoformat(),
        "people_moved": report.people_moved,
        "people_left": report.people_left,
        "parties": [
            {
                **msgspec.to_builtins(party),
                "target": ""
                if party.target is None
                else f"{party.target.office}:{datetime.date.fromordinal(party.target.day)}",
            }
            for party in report.parties
        ],
    }


def _print(report: RelocationReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("number", "people", "session", "goes to", "new number", box=None)
    for party in report.parties:
        if party.target is None:
            goes_to = f"stays: {party.status}"
        else:
            date = datetime.date.fromordinal(party.target.day)
            office = "" if party.target.office == report.office else f"{party.target.office} "
            goes_to = f"{office}{date} {party.target_session}".rstrip()
        new_number = str(party.target_queue_number or "")
        table.add_row(str(party.queue_number), str(party.units), party.session, goes_to, new_number)
    console = Console()
    if report.parties:
        console.print(table)
    verb = "would move" if report.dry_run else "have moved"
    console.print(f"{report.people_moved} people {verb}, {report.people_left} stay on the closed day.", highlight=False)
    if report.dry_run:
        more = f" The plan shows the first {len(report.parties)} parties." if report.next_after else ""
        console.print(f"Nothing was changed.{more} Add --yes to close the day and move them.", highlight=False)
