"""The published record of a room: what anybody needs to work out every position again, and nothing about anybody.

A record is JSON. It exists from the moment the room is made, with the commitment; at the opening it gets the seed, the
entropy and the number of tickets; with each window its number; at the close the late seed.
"""

from __future__ import annotations

__all__ = [
    "FORMAT",
    "RoomTranscript",
    "TranscriptWindow",
    "Verification",
    "iter_positions",
    "parse_transcript",
    "position_of",
    "transcript_of",
    "verify",
]

import datetime
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.machine import TICKETS_MAX, WINDOWS_MAX, RoomView, tickets_ordered
from quota_engine.waiting_room.order import RoomOrder, check_entropy, check_seed, commitment_of, seed_of
from quota_engine.waiting_room.permutation import CONSTRUCTION

FORMAT: Final = "quota_engine room 1"
_PROGRESS_TICKETS: Final = 10_000


class TranscriptWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window that has ended: its number, the index of its first ticket, and how many it has."""

    window: int
    first: int
    tickets: int

    def __post_init__(self) -> None:
        check_integer(self.window, "windows, window", 0, WINDOWS_MAX)
        check_integer(self.first, "windows, first", 0, TICKETS_MAX)
        check_integer(self.tickets, "windows, tickets", 1, TICKETS_MAX)


class RoomTranscript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A room's public record as of ``as_of_ms``. Seeds and entropy are ``""`` until they are revealed."""

    format: str
    room: str
    office: str
    first_day: datetime.date
    last_day: datetime.date
    opens_at_ms: int
    closes_at_ms: int
    window_ms: int
    construction: int
    commitment: str
    entropy_source: str
    as_of_ms: int
    windows: tuple[TranscriptWindow, ...]
    entropy: str
    seed: str
    closing_seed: str

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InvalidRequest("format", "not one that is known here", repr(FORMAT))
        if self.construction != CONSTRUCTION:
            raise InvalidRequest("construction", "not one that is known here", str(CONSTRUCTION))
        check_name(self.room, "room")
        check_name(self.office, "office")
        check_integer(self.opens_at_ms, "opens_at_ms", 0, TIME_MS_MAX)
        check_integer(self.closes_at_ms, "closes_at_ms", self.opens_at_ms + 1, TIME_MS_MAX)
        check_integer(self.window_ms, "window_ms", 1, TIME_MS_MAX)
        check_integer(self.as_of_ms, "as_of_ms", 0, TIME_MS_MAX)
        check_seed(self.commitment, "commitment")
        check_entropy(self.entropy_source, "entropy_source")
        check_entropy(self.entropy, "entropy")
        for name in ("seed", "closing_seed"):
            if getattr(self, name):
                check_seed(getattr(self, name), name)
        if len(self.windows) > WINDOWS_MAX + 1:
            raise InvalidRequest("windows", f"{len(self.windows)} of them", f"at most {WINDOWS_MAX + 1}")

    @property
    def tickets(self) -> int:
        """The tickets in all windows that have ended."""
        return self.windows[-1].first + self.windows[-1].tickets if self.windows else 0


class Verification(msgspec.Struct, frozen=True):
    """What a verification found: a sentence a finding, none if the record holds; and the tickets whose positions were
    worked out. ``pending`` says what can not be checked yet.
    """

    findings: tuple[str, ...]
    pending: tuple[str, ...]
    tickets_checked: int

    @property
    def ok(self) -> bool:
        """Whether the record holds, as far as it goes."""
        return not self.findings


def transcript_of(room: str, view: RoomView) -> RoomTranscript:
    """The record of a room as it stands."""
    terms = view.config
    ordered = tickets_ordered(view, view.changed_at_ms)
    ended = [(window, first) for window, first in view.windows if first < ordered]
    ends = [*(first for _, first in ended[1:]), ordered]
    return RoomTranscript(
        FORMAT,
        room,
        terms.office,
        datetime.date.fromordinal(terms.first_day),
        datetime.date.fromordinal(terms.last_day),
        terms.opens_at_ms,
        terms.closes_at_ms,
        terms.window_ms,
        CONSTRUCTION,
        terms.commitment,
        terms.entropy_source,
        view.now_ms,
        tuple(TranscriptWindow(window, first, end - first) for (window, first), end in zip(ended, ends, strict=False)),
        view.entropy,
        view.seed,
        view.closing_seed,
    )


def parse_transcript(text: bytes) -> RoomTranscript:
    """A record from its JSON.

    Raises:
        InvalidRequest: it is none; the message says what and where.
    """
    try:
        return msgspec.json.decode(text, type=RoomTranscript)
    except msgspec.DecodeError as error:
        raise InvalidRequest("record", str(error), "the JSON of a room's published record") from error


def verify(
    record: RoomTranscript, earlier: RoomTranscript | None = None, progress: Callable[[int], None] | None = None
) -> Verification:
    """Check that a record fits its commitment, and that its order gives every ticket a position of its own.

    Args:
        record: the record.
        earlier: the same room's record from before, best from before it opened. What was fixed then must be so still.
        progress: told now and then how many tickets have been checked.
    """
    findings: list[str] = []
    pending: list[str] = []
    if not record.seed:
        pending.append("the seed has not been revealed: there are no positions yet")
    elif commitment_of(record.seed) != record.commitment:
        findings.append("the seed does not match the commitment")
    if not record.closing_seed:
        if len(record.windows) > 1 or any(window.window for window in record.windows):
            pending.append("the closing seed has not been revealed: tickets from after the opening cannot be checked")
    elif commitment_of(seed_of(record.closing_seed)) != record.commitment:
        findings.append("the closing seed does not match the commitment")
    if record.seed and bool(record.entropy) != bool(record.entropy_source):
        findings.append("there is entropy without a source that was named before, or a source without its entropy")
    findings += _windows(record)
    if earlier is not None:
        findings += _differences(record, earlier)
    checked = 0
    if not findings:
        taken = bytearray(record.tickets)
        for _, position in iter_positions(record):
            taken[position] = 1
            checked += 1
            if not checked % _PROGRESS_TICKETS and progress is not None:
                progress(checked)
        if checked != taken.count(1):
            findings.append("the order gives a position twice")
    return Verification(tuple(findings), tuple(pending), checked)


def iter_positions(record: RoomTranscript) -> Iterator[tuple[int, int]]:
    """Every ticket whose seed is known: its number and its position, both from 0."""
    orders = RoomOrder(record.room, record.commitment, record.entropy, record.seed, record.closing_seed)
    for window in record.windows:
        permutation = orders.permutation(window.window, window.tickets)
        if permutation is not None:
            for number in range(window.tickets):
                yield window.first + number, window.first + permutation.position(number)


def position_of(record: RoomTranscript, index: int) -> int | None:
    """The position of one ticket, from 0; ``None`` if its seed has not been revealed.

    Raises:
        InvalidRequest: no window of the record has this ticket.
    """
    check_integer(index, "ticket", 0, TICKETS_MAX)
    if not any(window.first <= index < window.first + window.tickets for window in record.windows):
        problem = f"number {index} is in none of the windows that have ended"
        raise InvalidRequest("ticket", problem, f"a number below {record.tickets}")
    orders = RoomOrder(record.room, record.commitment, record.entropy, record.seed, record.closing_seed)
    windows = tuple((window.window, window.first) for window in record.windows)
    return orders.position(windows, record.tickets, index)


def _windows(record: RoomTranscript) -> list[str]:
    """The windows follow each other without gap or overlap, and each has ended."""
    findings: list[str] = []
    first, before = 0, -1
    for window in record.windows:
        if window.window <= before:
            findings.append(f"window {window.window} comes after window {before}")
        if window.first != first:
            findings.append(f"window {window.window} begins at ticket {window.first}; expected {first}")
        first, before = window.first + window.tickets, window.window
    return findings


_FIXED: Final = (
    "room",
    "office",
    "first_day",
    "last_day",
    "opens_at_ms",
    "closes_at_ms",
    "window_ms",
    "construction",
    "commitment",
    "entropy_source",
)
_REVEALED: Final = ("entropy", "seed", "closing_seed")


def _differences(record: RoomTranscript, earlier: RoomTranscript) -> list[str]:
    """What has changed that must not."""
    findings = [
        f"{name} was {getattr(earlier, name)} before, and is {getattr(record, name)} now"
        for name in _FIXED
        if getattr(earlier, name) != getattr(record, name)
    ]
    findings += [
        f"{name} has been changed since it was revealed"
        for name in _REVEALED
        if getattr(earlier, name) and getattr(earlier, name) != getattr(record, name)
    ]
    if record.windows[: len(earlier.windows)] != earlier.windows:
        findings.append("windows that had ended before are others now")
    return findings
