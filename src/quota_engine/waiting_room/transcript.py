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
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from quota_engine.domain.epochs import EPOCH_FIRST, EPOCH_MAX, epoch_of
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import TIME_MS_MAX, check_integer, check_name
from quota_engine.waiting_room.machine import TICKETS_MAX, WINDOWS_MAX, RoomView, tickets_ordered
from quota_engine.waiting_room.order import RoomOrder, check_entropy, check_seed, commitment_of, seed_of
from quota_engine.waiting_room.permutation import CONSTRUCTION

FORMAT: Final = "quota_engine room 1"
_PROGRESS_TICKETS: Final = 10_000


class TranscriptWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window that has ended: its number, the index of its first ticket, and how many tickets it has."""

    window: int
    first: int
    tickets: int

    def __post_init__(self) -> None:
        check_integer(self.window, "windows, window", 0, WINDOWS_MAX)
        check_integer(self.first, "windows, first", 0, TICKETS_MAX)
        check_integer(self.tickets, "windows, tickets", 1, TICKETS_MAX)


class TranscriptEpoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An epoch above 1 in which the room gave tickets, or its last epoch, and the index of its first ticket."""

    epoch: int
    first: int

    def __post_init__(self) -> None:
        check_integer(self.epoch, "epochs, epoch", EPOCH_FIRST + 1, EPOCH_MAX)
        check_integer(self.first, "epochs, first", 0, TICKETS_MAX)


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
        epochs: Epochs above 1, in order. A ticket of an earlier epoch with the index of a later one was lost.
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
        return self.windows[-1].first + self.windows[-1].tickets if self.windows else 0

    def epoch_of(self, index: int) -> int:
        """Return the epoch of a ticket that the room has. The same index with another epoch is a lost ticket."""
        return epoch_of([(one.epoch, one.first) for one in self.epochs], index)


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
        tuple(TranscriptWindow(window, first, end - first) for (window, first), end in zip(ended, ends, strict=False)),
        view.entropy,
        view.seed,
        view.closing_seed,
        view.epoch,
        tuple(TranscriptEpoch(epoch, first) for epoch, first in view.epoch_starts),
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
        <for each window that has ended: number, index of its first ticket, tickets; with spaces between>
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
        return msgspec.json.decode(text, type=RoomTranscript)
    except msgspec.DecodeError as error:
        raise InvalidRequest("transcript", str(error), "the JSON of a room's published transcript") from error


def verify(
    transcript: RoomTranscript, earlier: RoomTranscript | None = None, progress: Callable[[int], None] | None = None
) -> Verification:
    """Verify that a transcript matches its commitment and gives each ticket one position.

    Args:
        transcript: The transcript.
        earlier: An earlier transcript of the same room, preferably from before the opening. Values that were fixed
            then must be the same.
        progress: Called after every 10,000 tickets with the number checked so far.
    """
    findings, pending = _check_seeds(transcript)
    findings += _check_windows(transcript)
    if transcript.digest != digest_of(transcript):
        findings.append("the digest does not match the contents")
    findings += [f"the publisher states: {sentence}" for sentence in transcript.contradictions]
    if earlier is not None:
        findings += contradictions(transcript, earlier)
    checked = 0
    if not findings:
        taken = bytearray(transcript.tickets)
        for _, position in iter_positions(transcript):
            taken[position] = 1
            checked += 1
            if not checked % _PROGRESS_TICKETS and progress is not None:
                progress(checked)
        if checked != taken.count(1):
            findings.append("the order gives a position twice")
    return Verification(tuple(findings), tuple(pending), checked)


def iter_positions(transcript: RoomTranscript) -> Iterator[tuple[int, int]]:
    """Yield the index and the position of each ticket whose seed is known, both from 0."""
    order = _order_of(transcript)
    for window in transcript.windows:
        permutation = order.permutation(window.window, window.tickets)
        if permutation is not None:
            for number in range(window.tickets):
                yield window.first + number, window.first + permutation.position(number)


def position_of(transcript: RoomTranscript, index: int) -> int | None:
    """Return the position of one ticket, from 0, or ``None`` if its seed has not been revealed.

    Args:
        transcript: The transcript.
        index: Index of the ticket.

    Raises:
        InvalidRequest: The ticket is in no window of the transcript.
    """
    check_integer(index, "ticket", 0, TICKETS_MAX)
    if not any(window.first <= index < window.first + window.tickets for window in transcript.windows):
        problem = f"number {index} is in none of the windows that have ended"
        raise InvalidRequest("ticket", problem, f"a number below {transcript.tickets}")
    windows = tuple((window.window, window.first) for window in transcript.windows)
    return _order_of(transcript).position(windows, transcript.tickets, index)


def _order_of(transcript: RoomTranscript) -> RoomOrder:
    return RoomOrder(
        transcript.room, transcript.commitment, transcript.entropy, transcript.seed, transcript.closing_seed
    )


def _check_seeds(transcript: RoomTranscript) -> tuple[list[str], list[str]]:
    """Return the findings about seeds and entropy, and the parts that are pending until a seed is revealed."""
    findings: list[str] = []
    pending: list[str] = []
    if not transcript.seed:
        pending.append("the seed has not been revealed: there are no positions yet")
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


def _check_windows(transcript: RoomTranscript) -> list[str]:
    """Return the findings about windows: they must follow each other without a gap or an overlap."""
    findings: list[str] = []
    first, before = 0, -1
    for window in transcript.windows:
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
