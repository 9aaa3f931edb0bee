"""``quota-engine room``: verify the published transcript of a waiting room, or control it while it runs."""

from __future__ import annotations

__all__ = ["app"]

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from cyclopts import App

from quota_engine.admission.tickets import read_ticket_index
from quota_engine.cli.output import BAD_FINDING, DONE, AsJson, print_json
from quota_engine.cli.room_control import close_room, open_room, pace_room
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import check_integer
from quota_engine.waiting_room.commands import TICKETS_MAX
from quota_engine.waiting_room.transcript import RoomTranscript, Verification, parse_transcript, position_of
from quota_engine.waiting_room.transcript import verify as verify_transcript

app = App(name="room", help="Verify the transcript of a waiting room, or control it.")
app.command(pace_room, name="pace")
app.command(open_room, name="open")
app.command(close_room, name="close")

_FILE_BYTES_MAX: Final = 4_000_000
_PROGRESS_TICKETS_MIN: Final = 200_000
_SIGNATURE_NOTE: Final = "The signature of a ticket is not checked: that needs the operator's secret key."


@app.command
def verify(file: str, /, *, ticket: str = "", earlier: tuple[str, ...] = (), as_json: AsJson = False) -> int:
    """Recompute every position of a waiting room from its published transcript.

    Needs no store and no secret, so it does not check the signature of a ticket. Exit code 0: the transcript is
    consistent so far; 1: it is not; 2: it cannot be read, or has no such ticket.

    Example:  quota-engine room verify transcript.json --ticket 4711

    Args:
        file: published transcript of the room.
        ticket: show the position of this ticket; its text, or its number (the first one is 1). The text also shows
            if the room lost the ticket in a failover.
        earlier: an earlier transcript of the same room; repeat it for more. The best ones are from before the opening
            and from just after it. Values that were fixed then must not have changed.
        as_json: print the result as JSON, and nothing else.
    """
    transcript = _read(file, "FILE")
    before = [_read(one, "--earlier") for one in earlier]
    number, ticket_epoch = _number(ticket) if ticket else (None, None)
    with _progress(transcript.tickets) as progress:
        found = verify_transcript(transcript, before, progress)
    if number is not None and ticket_epoch not in (None, transcript.epoch_of(number)):
        lost = f"the room lost ticket number {number} of epoch {ticket_epoch} in a failover"
        found = msgspec.structs.replace(found, findings=(*found.findings, lost))
    position = position_of(transcript, number) if number is not None and found.ok else None
    if as_json:
        _print_json(file, transcript, found, number, position)
    else:
        _print(file, transcript, found, number, position)
    return DONE if found.ok else BAD_FINDING


def _read(file: str, where: str) -> RoomTranscript:
    path = pathlib.Path(file)
    try:
        with path.open("rb") as opened:
            text = opened.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidRequest(where, f"{file} cannot be read: {error.strerror}", "the transcript of a room") from None
    if len(text) > _FILE_BYTES_MAX:
        raise InvalidRequest(where, f"{file} is too large", f"at most {_FILE_BYTES_MAX:,} bytes")
    try:
        return parse_transcript(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}, {file}", error.problem, error.expected) from None


def _number(ticket: str) -> tuple[int, int | None]:
    """Return the number of a ticket, and its epoch, or ``None`` if only the number is given."""
    if ticket.isascii() and ticket.isdigit() and len(ticket) < len(str(TICKETS_MAX)) + 1:
        check_integer(int(ticket), "--ticket", 1, TICKETS_MAX)
        return int(ticket), None
    index = read_ticket_index(ticket)
    return index.number, index.epoch


@contextlib.contextmanager
def _progress(tickets: int) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar on standard error, if that is a terminal and the work is long."""
    if tickets < _PROGRESS_TICKETS_MIN or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("positions", total=tickets)
        yield lambda checked: progress.update(task, completed=checked)


def _print(
    file: str, transcript: RoomTranscript, found: Verification, number: int | None, position: int | None
) -> None:
    lines = [
        f"{file}: room {transcript.room} of {transcript.office}, {transcript.first_day} to {transcript.last_day}",
        f"commitment {transcript.commitment}",
        f"epoch {transcript.epoch}, digest {transcript.digest}",
    ]
    lines += [f"WRONG: {finding}" for finding in found.findings]
    lines += [f"pending: {pending}" for pending in found.pending]
    if found.ok and found.tickets_checked:
        tickets = f"{found.tickets_checked:,} of {transcript.tickets:,} tickets"
        lines.append(f"OK: {tickets} have a unique position that follows from commitment and entropy")
    elif found.ok:
        lines.append("No contradiction so far. No position can be checked yet: verify a later transcript, too.")
    if number is not None and found.ok:
        shown = "no position yet" if position is None else f"position {position:,} (the first is 1)"
        lines.append(f"ticket number {number:,}: {shown}")
    if number is not None:
        lines.append(_SIGNATURE_NOTE)
    sys.stdout.write("\n".join(lines) + "\n")


def _print_json(
    file: str, transcript: RoomTranscript, found: Verification, number: int | None, position: int | None
) -> None:
    result: dict[str, Any] = {
        "file": file,
        "ok": found.ok,
        "findings": list(found.findings),
        "pending": list(found.pending),
        "tickets_checked": found.tickets_checked,
        "tickets": transcript.tickets,
        "windows": len(transcript.windows),
        "room": transcript.room,
        "office": transcript.office,
        "commitment": transcript.commitment,
        "epoch": transcript.epoch,
        "digest": transcript.digest,
        "entropy_source": transcript.entropy_source,
        "entropy": transcript.entropy,
    }
    if number is not None:
        result["ticket"] = {"number": number, "position": position, "signature_checked": False}
    print_json(result)
