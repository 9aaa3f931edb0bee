"""Public transcript of a room, from which anyone can recompute every position. It identifies no applicant.

A transcript is JSON. It exists from the creation of the room, with the commitment. The opening adds the seed, the
entropy and the number of tickets; each window adds its number; the close adds the closing seed.

Within an epoch of the room, a later transcript repeats all values of an earlier one. A later epoch may contradict it,
because a failover has lost changes of the room. The digest names the order: two transcripts with one digest give every
ticket the same position.
"""

from __future__ import annotations

__all__ = [
    "FORMAT",
    "RoomTranscript",
    "TranscriptEpoch",
    "TranscriptWindow",
    "Verification",
    "contradictions",
    "digest_of",
    "iter_positions",
    "parse_transcript",
    "position_of",
    "transcript_of",
    "verify",
]

import datetime
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from quota_engine import typed_data
from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX, epoch_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.commands import DAYS_MAX, OPEN_MS_MAX, TICKETS_MAX, WINDOW_MS_MIN, WINDOWS_MAX
from quota_engine.waiting_room.machine import tickets_ordered
from quota_engine.waiting_room.order import RoomOrder, check_entropy, check_seed, commitment_of, seed_of
from quota_engine.waiting_room.permutation import CONSTRUCTION
from quota_engine.waiting_room.results import RoomView

FORMAT: Final = "quota_engine room 1"
_PROGRESS_TICKETS: Final = 10_000


class TranscriptWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window that has ended: its number, the number of its first ticket (from 1), and how many tickets it has."""

    window: int
    first: int
    tickets: int

    def __post_init__(self) -> None:
        check_integer(self.window, "windows, window", 0, WINDOWS_MAX)
        check_integer(self.first, "windows, first", 1, TICKETS_MAX)
        check_integer(self.tickets, "windows, tickets", 1, TICKETS_MAX)


class TranscriptEpoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An epoch above 1 in which the room gave tickets, or its last epoch, and the number of its first ticket."""

    epoch: int
    first: int

    def __post_init__(self) -> None:
        check_integer(self.epoch, "epochs, epoch", EPOCH_FIRST + 1, EPOCH_MAX)
        check_integer(self.first, "epochs, first", 1, TICKETS_MAX + 1)


class RoomTranscript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Public transcript of a room at one moment.

    Moments are in milliseconds since 1970 (UTC). Seeds and entropy are ``""`` until they are revealed.

    Attributes:
        format: :data:`FORMAT`.
        room: Id of the room.
        office: Id of the office that the room serves.
        first_day: First day that the room serves.
        last_day: Last day that the room serves.
        opens_at_ms: Time at which the room opens.
        closes_at_ms: Time at which the room closes.
        window_ms: Length of the windows after the opening, in milliseconds.
        construction: Number of the permutation's construction.
        commitment: Hash that commits to both seeds.
        entropy_source: Public source of entropy, or ``""``.
        as_of_ms: Time of the transcript.
        windows: Windows that have ended, in order.
        entropy: Text from the entropy source.
        seed: Seed that orders the tickets of window 0.
        closing_seed: Seed that orders the tickets of later windows.
        epoch: Epoch of the room. It grows with each failover of the room's store.
        epochs: Epochs above 1, in order. A ticket of an earlier epoch with the number of a later one was lost.
        digest: Digest of the values that the order follows from; see :func:`digest_of`.
        contradictions: One sentence for each value that was published before and differs now.

    Raises:
        InvalidRequest: A value is out of its range.
    """

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
    epoch: int
    epochs: tuple[TranscriptEpoch, ...]
    digest: str
    contradictions: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InvalidRequest("format", "not supported", repr(FORMAT))
        if self.construction != CONSTRUCTION:
            raise InvalidRequest("construction", "not supported", str(CONSTRUCTION))
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
        check_integer(self.epoch, "epoch", EPOCH_FIRST, EPOCH_MAX)
        check_seed(self.digest, "digest")
        if len(self.windows) > WINDOWS_MAX + 1:
            raise InvalidRequest("windows", f"{len(self.windows)} windows", f"at most {WINDOWS_MAX + 1}")

    @property
    def tickets(self) -> int:
        """Tickets in all windows that have ended."""
        return self.windows[-1].first + self.windows[-1].tickets - 1 if self.windows else 0

    def epoch_of(self, number: int) -> int:
        """Return the epoch of a ticket that the room has. The same number with another epoch is a lost ticket."""
        return epoch_of([(one.epoch, one.first) for one in self.epochs], number)


class Verification(msgspec.Struct, frozen=True):
    """Result of a verification.

    Attributes:
        findings: One sentence for each fault of the transcript. Empty if there is none.
        pending: One sentence for each part that cannot be verified yet.
        tickets_checked: Tickets whose positions were computed.
    """

    findings: tuple[str, ...]
    pending: tuple[str, ...]
    tickets_checked: int

    @property
    def ok(self) -> bool:
        """True if the transcript has no fault. Parts of it may be pending."""
        return not self.findings


def transcript_of(room: str, view: RoomView) -> RoomTranscript:
    """Return the transcript of a room.

    Args:
        room: Id of the room.
        view: The room.
    """
    config = view.config
    ordered = tickets_ordered(view, view.changed_at_ms)
    ended = [(window, first) for window, first in view.windows if first < ordered]
    ends = [*(first for _, first in ended[1:]), ordered]
    transcript = RoomTranscript(
        FORMAT,
        room,
        config.office,
        datetime.date.fromordinal(config.first_day),
        datetime.date.fromordinal(config.last_day),
        config.opens_at_ms,
        config.closes_at_ms,
        config.window_ms,
        CONSTRUCTION,
        config.commitment,
        config.entropy_source,
        view.now_ms,
        tuple(
            TranscriptWindow(window, first + 1, end - first) for (window, first), end in zip(ended, ends, strict=False)
        ),
        view.entropy,
        view.seed,
        view.closing_seed,
        view.epoch,
        tuple(TranscriptEpoch(epoch, first + 1) for epoch, first in view.epoch_starts),
        "0" * 64,
        (),
    )
    return msgspec.structs.replace(transcript, digest=digest_of(transcript))


def digest_of(transcript: RoomTranscript) -> str:
    """Return the digest of a transcript, in hex.

    It is the SHA-256 of these lines, each ended by a line feed::

        quota_engine room transcript 1
        <room>
        <commitment>
        <entropy, or nothing>
        <seed, or nothing>
        <closing seed, or nothing>
        <for each window that has ended: number, number of its first ticket, tickets; with spaces between>
    """
    lines = [
        "quota_engine room transcript 1",
        transcript.room,
        transcript.commitment,
        transcript.entropy,
        transcript.seed,
        transcript.closing_seed,
        *(f"{window.window} {window.first} {window.tickets}" for window in transcript.windows),
    ]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def parse_transcript(text: bytes) -> RoomTranscript:
    """Return the transcript in a JSON document.

    Raises:
        InvalidRequest: The document is not a transcript. The message names the field.
    """
    try:
        return typed_data.decode_json(text, RoomTranscript)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # the last two: not UTF-8, too deep
        raise InvalidRequest("transcript", str(error), "the JSON of a room's published transcript") from error


def verify(
    transcript: RoomTranscript, earlier: Sequence[RoomTranscript] = (), progress: Callable[[int], None] | None = None
) -> Verification:
    """Verify that a transcript matches its commitment and gives each ticket one position.

    Signatures of tickets are not part of a transcript, so they are not verified.

    Args:
        transcript: The transcript.
        earlier: Earlier transcripts of the same room, preferably from before the opening and from just after it.
            Values that were fixed then must be the same.
        progress: Called after every 10,000 tickets with the number checked so far.
    """
    findings, pending = _check_contents(transcript)
    for one in earlier:
        findings += [f"earlier transcript: {finding}" for finding in _check_contents(one)[0]]
        if one.as_of_ms > transcript.as_of_ms:
            findings.append(f"the earlier transcript is from {one.as_of_ms}, after {transcript.as_of_ms}")
        findings += contradictions(transcript, one)
    checked = 0
    if not findings:
        taken = bytearray(transcript.tickets)
        for _, position in iter_positions(transcript):
            taken[position - 1] = 1
            checked += 1
            if not checked % _PROGRESS_TICKETS and progress is not None:
                progress(checked)
        if checked != taken.count(1):
            findings.append("the order gives a position twice")
    return Verification(tuple(findings), tuple(pending), checked)


def iter_positions(transcript: RoomTranscript) -> Iterator[tuple[int, int]]:
    """Yield the number and the position of each ticket whose seed is known, both from 1."""
    order = _order_of(transcript)
    for window in transcript.windows:
        permutation = order.permutation(window.window, window.tickets)
        if permutation is not None:
            for offset in range(window.tickets):
                yield window.first + offset, window.first + permutation.position(offset)


def position_of(transcript: RoomTranscript, number: int) -> int | None:
    """Return the position of one ticket, from 1, or ``None`` if its seed has not been revealed.

    Args:
        transcript: The transcript.
        number: Number of the ticket, from 1.

    Raises:
        InvalidRequest: The ticket is in no window of the transcript.
    """
    check_integer(number, "ticket", 1, TICKETS_MAX)
    if not any(window.first <= number < window.first + window.tickets for window in transcript.windows):
        problem = f"number {number} is in none of the windows that have ended"
        raise InvalidRequest("ticket", problem, f"a number from 1 to {transcript.tickets}")
    windows = tuple((window.window, window.first - 1) for window in transcript.windows)
    return _order_of(transcript).position(windows, transcript.tickets, number - 1)


def _order_of(transcript: RoomTranscript) -> RoomOrder:
    return RoomOrder(
        transcript.room, transcript.commitment, transcript.entropy, transcript.seed, transcript.closing_seed
    )


def _check_contents(transcript: RoomTranscript) -> tuple[list[str], list[str]]:
    """Return the findings about a transcript alone, and the parts that are pending until a seed is revealed."""
    findings, pending = _check_seeds(transcript)
    findings += _check_times(transcript)
    findings += _check_windows(transcript)
    findings += _check_epochs(transcript)
    if transcript.digest != digest_of(transcript):
        findings.append("the digest does not match the contents")
    findings += [f"the publisher states: {sentence}" for sentence in transcript.contradictions]
    return findings, pending


def _check_seeds(transcript: RoomTranscript) -> tuple[list[str], list[str]]:
    """Return the findings about seeds and entropy, and the parts that are pending until a seed is revealed."""
    findings: list[str] = []
    pending: list[str] = []
    if not transcript.seed:
        closed = "the room closed before its opening: it has no positions"
        opening = "the seed has not been revealed: there are no positions yet"
        pending.append(closed if transcript.closing_seed else opening)
        if transcript.entropy:
            findings.append("the transcript has entropy, but the seed is missing")
    elif commitment_of(transcript.seed) != transcript.commitment:
        findings.append("the seed does not match the commitment")
    if not transcript.closing_seed:
        if any(window.window for window in transcript.windows):
            pending.append("the closing seed has not been revealed: tickets from after the opening cannot be checked")
    elif commitment_of(seed_of(transcript.closing_seed)) != transcript.commitment:
        findings.append("the closing seed does not match the commitment")
    if transcript.seed and bool(transcript.entropy) != bool(transcript.entropy_source):
        findings.append("the transcript has entropy without a source, or a source without entropy")
    return findings, pending


def _check_times(transcript: RoomTranscript) -> list[str]:
    """Return the findings about the time of the transcript and the times of the room, which decide what is revealed."""
    findings: list[str] = []
    as_of_ms, opens_at_ms, closes_at_ms = transcript.as_of_ms, transcript.opens_at_ms, transcript.closes_at_ms
    if as_of_ms < opens_at_ms and transcript.seed:
        findings.append(f"the seed is revealed at {as_of_ms}, before the opening at {opens_at_ms}")
    if as_of_ms >= closes_at_ms and not transcript.closing_seed:
        findings.append(f"the room closed at {closes_at_ms}, but the closing seed is missing at {as_of_ms}")
    elif as_of_ms >= opens_at_ms and not (transcript.entropy_source or transcript.seed or transcript.closing_seed):
        findings.append(f"the room opened at {opens_at_ms}, but the seed is missing at {as_of_ms}")
    open_ms = closes_at_ms - opens_at_ms
    if open_ms > OPEN_MS_MAX:
        findings.append(f"the room is open for {open_ms} ms; expected at most {OPEN_MS_MAX}")
    window_ms_min = max(WINDOW_MS_MIN, -(-open_ms // WINDOWS_MAX))
    if not window_ms_min <= transcript.window_ms <= OPEN_MS_MAX:
        findings.append(f"window_ms is {transcript.window_ms}; expected {window_ms_min} to {OPEN_MS_MAX}")
    if not 0 <= (transcript.last_day - transcript.first_day).days < DAYS_MAX:
        findings.append(f"the last day is {transcript.last_day}, the first day {transcript.first_day}")
    return findings


def _check_epochs(transcript: RoomTranscript) -> list[str]:
    """Return the finding that epochs do not follow each other, or that the last one is above the room's epoch."""
    starts = [(one.epoch, one.first) for one in transcript.epochs]
    rising = all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(starts))
    if not rising or (starts and starts[-1][0] > transcript.epoch):
        return [f"the epochs do not lead to epoch {transcript.epoch}"]
    return []


def _check_windows(transcript: RoomTranscript) -> list[str]:
    """Return the findings about windows.

    They must follow each other without a gap or an overlap, and have ended by the time of the transcript.
    """
    findings: list[str] = []
    window_ms, as_of_ms = transcript.window_ms, transcript.as_of_ms
    first, before = 1, -1
    for window in transcript.windows:
        if window.window <= before:
            findings.append(f"window {window.window} comes after window {before}")
        if window.first != first:
            findings.append(f"window {window.window} begins at ticket {window.first}; expected {first}")
        ends_at_ms = transcript.opens_at_ms + window.window * window_ms
        begins_at_ms = ends_at_ms - window_ms if window.window else 0
        if begins_at_ms >= transcript.closes_at_ms:
            findings.append(f"window {window.window} begins after the close, with window_ms {window_ms}")
        elif as_of_ms < (begins_at_ms if transcript.closing_seed else ends_at_ms):  # a close ends all windows
            findings.append(f"window {window.window} had not ended at {as_of_ms}, with window_ms {window_ms}")
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


def contradictions(transcript: RoomTranscript, earlier: RoomTranscript) -> list[str]:
    """Return one sentence for each value that was fixed in an earlier transcript of the room and differs now.

    Args:
        transcript: The later transcript.
        earlier: The earlier transcript of the same room.
    """
    findings = [
        f"{name} was {getattr(earlier, name)} before, and is {getattr(transcript, name)} now"
        for name in _FIXED
        if getattr(earlier, name) != getattr(transcript, name)
    ]
    findings += [
        f"{name} has changed since it was revealed"
        if getattr(transcript, name)
        else f"{name} was revealed before, and is missing now"
        for name in _REVEALED
        if getattr(earlier, name) and getattr(earlier, name) != getattr(transcript, name)
    ]
    common = min(len(transcript.windows), len(earlier.windows))
    if transcript.windows[:common] != earlier.windows[:common]:
        findings.append("windows that had ended before have changed")
    elif common < len(earlier.windows):
        findings.append("windows that had ended before are missing now")
    if transcript.epoch < earlier.epoch:
        findings.append(f"epoch {earlier.epoch} was published before, and is missing now")
    return findings
