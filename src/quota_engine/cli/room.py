"""``quota-engine room``: check the published record of a waiting room, or give it orders while it runs."""

from __future__ import annotations

__all__ = ["app"]

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from quota_engine.admission.tickets import read_ticket_number
from quota_engine.cli.room_control import close_room, open_room, pace_room
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.waiting_room.machine import TICKETS_MAX
from quota_engine.waiting_room.transcript import RoomTranscript, Verification, parse_transcript, position_of
from quota_engine.waiting_room.transcript import verify as verify_record

app = App(name="room", help="Check the published record of a waiting room, or give it orders.")
app.command(pace_room, name="pace")
app.command(open_room, name="open")
app.command(close_room, name="close")

_DONE, _BAD = 0, 1
_FILE_BYTES_MAX: Final = 4_000_000
_PROGRESS_TICKETS_MIN: Final = 200_000
AsJson = Annotated[bool, Parameter(name="--json")]


@app.command
def verify(file: str, /, *, ticket: str = "", earlier: str = "", as_json: AsJson = False) -> int:
    """Work out every position of a waiting room again, from what has been published.

    It needs no store and no secret. Exit code 0: the record holds, as far as it goes; 1: it does not; 2: it can not be
    read, or has no such ticket.

    Args:
        file: the room's published record.
        ticket: also tell where this ticket stands: its text, or its number (the first to come has number 0).
        earlier: the same room's record from before, best from before it opened: nothing that was fixed then may have
            changed since.
        as_json: print the result as JSON, and nothing else.
    """
    record = _read(file, "FILE")
    before = _read(earlier, "--earlier") if earlier else None
    number = _number(ticket) if ticket else None
    with _progress(record.tickets) as progress:
        found = verify_record(record, before, progress)
    position = position_of(record, number) if number is not None and found.ok else None
    if as_json:
        _print_json(file, record, found, number, position)
    else:
        _print(file, record, found, number, position)
    return _DONE if found.ok else _BAD


def _read(file: str, where: str) -> RoomTranscript:
    path = pathlib.Path(file)
    try:
        with path.open("rb") as opened:
            text = opened.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidRequest(where, f"{file} can not be read: {error.strerror}", "a room's record") from None
    if len(text) > _FILE_BYTES_MAX:
        raise InvalidRequest(where, f"{file} is larger than any record", f"at most {_FILE_BYTES_MAX:,} bytes")
    try:
        return parse_transcript(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}, {file}", error.problem, error.expected) from None


def _number(ticket: str) -> int:
    if ticket.isascii() and ticket.isdigit() and len(ticket) < len(str(TICKETS_MAX)) + 1:
        check_integer(int(ticket), "--ticket", 0, TICKETS_MAX)
        return int(ticket)
    return read_ticket_number(ticket)


@contextlib.contextmanager
def _progress(tickets: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on standard error, if it takes long and somebody looks."""
    if tickets < _PROGRESS_TICKETS_MIN or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("positions", total=tickets)
        yield lambda checked: progress.update(task, completed=checked)


def _print(file: str, record: RoomTranscript, found: Verification, number: int | None, position: int | None) -> None:
    lines = [
        f"{file}: room {record.room} of {record.office}, {record.first_day} to {record.last_day}",
        f"commitment {record.commitment}",
    ]
    lines += [f"WRONG: {finding}" for finding in found.findings]
    lines += [f"not yet: {pending}" for pending in found.pending]
    if found.ok:
        tickets = f"{found.tickets_checked:,} of {record.tickets:,} tickets"
        lines.append(f"holds: {tickets} have each a position of their own, as the commitment and the entropy say")
    if number is not None and found.ok:
        told = "no position yet" if position is None else f"position {position:,} (the first is 0)"
        lines.append(f"ticket number {number:,}: {told}")
    sys.stdout.write("\n".join(lines) + "\n")


def _print_json(
    file: str, record: RoomTranscript, found: Verification, number: int | None, position: int | None
) -> None:
    result: dict[str, Any] = {
        "file": file,
        "ok": found.ok,
        "findings": list(found.findings),
        "pending": list(found.pending),
        "tickets_checked": found.tickets_checked,
        "tickets": record.tickets,
        "windows": len(record.windows),
        "room": record.room,
        "office": record.office,
        "commitment": record.commitment,
        "entropy_source": record.entropy_source,
        "entropy": record.entropy,
    }
    if number is not None:
        result["ticket"] = {"number": number, "position": position}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")
