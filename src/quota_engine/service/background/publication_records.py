"""Records of what was published of waiting rooms and draws. A record is never replaced by other contents.

A failover of the store may lose an opening, a close or a run. If it is repeated with other values, the public sees two
orders or two results. The record keeps the first one. The second one is written beside it under its epoch, with the
sentences that say how it contradicts the first; the log and a metric report it.

The record of a room is its transcript, and ``quota-engine room verify --earlier`` reads it. With a folder, the records
outlive the process, and all workers share them. Without one, each process keeps its own in memory.
"""

from __future__ import annotations

__all__ = ["PublicationRecords", "RecordedDraw"]

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from quota_engine import typed_data
from quota_engine.draws.queries import DrawView
from quota_engine.waiting_room import transcript as room_transcript
from quota_engine.waiting_room.transcript import RoomTranscript

_ROOM_FORGOTTEN_AFTER_MS: Final = 366 * 86_400_000
_CHECKED_MAX: Final = 1_000

_logger = logging.getLogger("quota_engine.service")


class RecordedDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Published values of a draw. Values that are not public yet are ``""``.

    Attributes:
        draw: id of the draw.
        epoch: epoch of the draw when the values were published.
        opens_at_ms: time from which the draw accepted applications, in milliseconds since 1970.
        forget_at_ms: time at which the store deletes the draw.
        commitment: commitment to the seed, in hex.
        entropy_source: public source of entropy.
        applications_digest: digest of the applications, in hex.
        capacities_digest: digest of the capacities, in hex.
        seed: the seed, in hex.
        entropy: text from the entropy source.
        contradictions: one sentence for each value that was published before and differs now.
    """

    draw: str
    epoch: int
    opens_at_ms: int
    forget_at_ms: int
    commitment: str
    entropy_source: str
    applications_digest: str
    capacities_digest: str
    seed: str
    entropy: str
    contradictions: tuple[str, ...] = ()


_DRAW_VALUES: Final = {
    "commitment": "the commitment",
    "entropy_source": "the source of entropy",
    "applications_digest": "the digest of the applications",
    "capacities_digest": "the digest of the capacities",
    "seed": "the seed",
    "entropy": "the entropy",
}


def _draw_record(view: DrawView) -> RecordedDraw:
    frozen, config = view.frozen, view.config
    return RecordedDraw(
        view.draw,
        view.epoch,
        config.opens_at_ms,
        config.forget_at_ms,
        config.commitment,
        config.entropy_source,
        "" if frozen is None else frozen.applications_digest,
        "" if frozen is None else frozen.capacities_digest,
        view.seed,
        view.entropy,
    )


def _draw_contradictions(record: RecordedDraw, earlier: RecordedDraw) -> list[str]:
    """Return one sentence for each value that was published before and is another one now.

    A value that is missing now is no contradiction: a lost step can be repeated with the same values.
    """
    return [
        f"{name} was {getattr(earlier, field)!r} when it was published in epoch {earlier.epoch}, "
        f"and is {getattr(record, field)!r} in epoch {record.epoch}"
        for field, name in _DRAW_VALUES.items()
        if getattr(earlier, field) and getattr(record, field) not in ("", getattr(earlier, field))
    ]


def _room_contradictions(transcript: RoomTranscript, earlier: RoomTranscript) -> list[str]:
    """Return the same for a room. The view of another worker may be half a second older, and lack the last values."""
    found = room_transcript.contradictions(transcript, earlier)
    return [finding for finding in found if not finding.endswith("missing now")]


class _Kind(NamedTuple):
    """How records of rooms or draws are named, read and compared."""

    name: str
    type: type[Any]
    contradictions: Callable[[Any, Any], list[str]]
    is_complete: Callable[[Any, Any], bool]
    """True if the second record has every value of the first."""
    is_other: Callable[[Any, Any], bool]
    """True if the first record is of a later room or draw that has the id of a forgotten one."""


_DRAW: Final = _Kind(
    "draw",
    RecordedDraw,
    _draw_contradictions,
    lambda record, earlier: all(getattr(record, name) for name in _DRAW_VALUES if getattr(earlier, name)),
    lambda record, earlier: record.opens_at_ms >= earlier.forget_at_ms,
)
_ROOM: Final = _Kind(
    "room",
    RoomTranscript,
    _room_contradictions,
    lambda transcript, earlier: not room_transcript.contradictions(transcript, earlier),
    lambda transcript, earlier: transcript.opens_at_ms > earlier.closes_at_ms + _ROOM_FORGOTTEN_AFTER_MS,
)


class PublicationRecords:
    """The records of one service."""

    def __init__(self, folder: Path | None, on_contradiction: Callable[[str], None]) -> None:
        """Keep records in ``folder``, or in memory.

        Args:
            folder: where the records are, created if it is missing; ``None`` for the memory of this process.
            on_contradiction: called with ``room`` or ``draw`` for each record that contradicts the first one.
        """
        self.folder = folder
        self._on_contradiction = on_contradiction
        self._memory: dict[tuple[str, str], bytes] = {}
        self._checked: OrderedDict[str, tuple[object, tuple[str, ...]]] = OrderedDict()

    def check_draw(self, view: DrawView) -> tuple[str, ...]:
        """Record what a view of a draw makes public. Return how it contradicts what was published before."""
        record = _draw_record(view)
        return self._check(_DRAW, view.draw, record, record)

    def check_room(self, transcript: RoomTranscript) -> RoomTranscript:
        """Record a transcript. Return it with the sentences that say how it contradicts what was published before."""
        found = self._check(_ROOM, transcript.room, transcript, (transcript.epoch, transcript.digest))
        return msgspec.structs.replace(transcript, contradictions=found)

    def published_draw(self, draw: str) -> RecordedDraw | None:
        """Return the first record of a draw, or ``None``."""
        record: RecordedDraw | None = self._read(_DRAW, draw, "")
        return record

    def published_room(self, room: str) -> RoomTranscript | None:
        """Return the record of a room, or ``None``."""
        record: RoomTranscript | None = self._read(_ROOM, room, "")
        return record

    def is_other_entropy(self, kind: str, name: str, commitment: str, entropy: str) -> bool:
        """Return True if a room or draw with this commitment was published with another entropy.

        Args:
            kind: ``room`` or ``draw``.
            name: id of the room or draw.
            commitment: its present commitment.
            entropy: the entropy to open or run it with.
        """
        first = self.published_room(name) if kind == _ROOM.name else self.published_draw(name)
        return first is not None and first.commitment == commitment and first.entropy not in ("", entropy)

    def _check(self, kind: _Kind, name: str, record: Any, state: object) -> tuple[str, ...]:
        """Compare a record with the first one; ``state`` is equal if the comparison cannot have another result."""
        checked = self._checked.get(f"{kind.name}.{name}")
        if checked is not None and checked[0] == state:
            return checked[1]
        with self._lock():
            found = self._compare(kind, name, record)
        self._checked[f"{kind.name}.{name}"] = state, found
        while len(self._checked) > _CHECKED_MAX:
            self._checked.popitem(last=False)
        return found

    def _compare(self, kind: _Kind, name: str, record: Any) -> tuple[str, ...]:
        first = self._read(kind, name, "")
        if first is not None and kind.is_other(record, first):
            self._write(kind, name, f".until-{record.opens_at_ms}", first)
            first = None
        if first is None:
            self._write(kind, name, "", record)
            return ()
        found = tuple(kind.contradictions(record, first))
        if not found:
            if kind.is_complete(record, first):
                self._write(kind, name, "", record)
            return ()
        suffix = f".epoch-{record.epoch}"
        second = self._read(kind, name, suffix)
        if second is None or second.contradictions != found:
            self._on_contradiction(kind.name)
            for sentence in found:
                _logger.error("the %s %s contradicts what was published: %s", kind.name, name, sentence)
        self._write(kind, name, suffix, msgspec.structs.replace(record, contradictions=found))
        return found

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes of the folder from writing."""
        if self.folder is None:
            yield
            return
        import fcntl  # not on all systems; a service in memory does not need it

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, kind: _Kind, name: str, suffix: str) -> Any:
        if self.folder is None:
            text = self._memory.get((kind.name, name + suffix))
        else:
            try:
                text = self._path(kind, name, suffix).read_bytes()
            except FileNotFoundError:
                text = None
        return None if text is None else typed_data.decode_json(text, kind.type)

    def _write(self, kind: _Kind, name: str, suffix: str, record: msgspec.Struct) -> None:
        text = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
        if self.folder is None:
            self._memory[kind.name, name + suffix] = text
            return
        path = self._path(kind, name, suffix)
        draft = path.with_suffix(f".draft-{os.getpid()}")
        draft.write_bytes(text)
        draft.replace(path)

    def _path(self, kind: _Kind, name: str, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{kind.name}.{name}{suffix}.json"
