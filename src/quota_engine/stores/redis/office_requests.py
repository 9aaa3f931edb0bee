"""All requests to a store besides single commands, written once for sync and async stores."""

from __future__ import annotations

__all__ = ["OfficeRequests", "as_query"]

from typing import Any, Final

from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroupView, ranges_of, view_of
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.domain.queries import sort_reservations
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
    ReadAbandonedHolds,
    ReadConsumerGroup,
    ReadEvents,
    ReadHoldRemainingHistogram,
    ReadWaitListPosition,
    Reconcile,
    RecordedEvent,
    StoreRequest,
    TrimEvents,
    View,
)
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.codecs.office_state import event_of_text, group_of_text
from quota_engine.stores.redis.executor import Executor
from quota_engine.stores.redis.ledger_formats import office_script_of
from quota_engine.stores.redis.request_packing import ScriptKeys
from quota_engine.stores.redis.retrying_calls import Call, run_blocking
from quota_engine.stores.redis.script_runner import pairs
from quota_engine.stores.redis.scripts import (
    CONSUMER_GROUPS,
    OFFICE_COMMANDS,
    OFFICE_EVENTS,
    OFFICE_GUARDED_COMMANDS,
    OFFICE_QUERIES,
    Script,
)
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

BATCH_MAX: Final = 128
"""Commands of one script call."""
EVENT_NUMBER_LIMIT: Final = 2**53
"""Every event number is lower."""


def as_query(request: StoreRequest[Any]) -> tuple[str, Any] | None:
    """Return address and question of a request that takes one line, and so can share a batch; otherwise ``None``."""
    match request:
        case Query(address, question):
            return address, question
        case Lookup(office, _) | ReadWaitListPosition(office, _) | ReadAbandonedHolds(office):
            return office, request
        case View(office, days) if len(days) == 1:
            return office, request
    return None


class OfficeRequests:
    """Makes the calls that carry out a request, and their result."""

    def __init__(self, executor: Executor, sold_out_cache: SoldOutCache) -> None:
        self._executor = executor
        self._runner = executor.runner
        self._sold_out_cache = sold_out_cache

    def execute(self, request: StoreRequest[Any]) -> Call[Any]:
        """Carry out a request; returns its result.

        Raises:
            BackendUnavailable: Nothing was done.
            OutcomeUnknown: The request may have been carried out.
            TypeError: The store has no such request.
        """
        match request:
            case ApplyMany(office, commands):
                return self._apply_many(office, commands)
            case View(office, days):
                return self._view(office, days)
            case ListDay(office, day):
                return self._list_day(office, day)
            case ReadHoldRemainingHistogram(office, day, bounds_ms):
                return self._read_hold_remaining_histogram(office, day, bounds_ms)
            case ReadEvents(office, after, limit):
                return self._read_events(office, after, limit)
            case TrimEvents(office, through):
                return self._trim_events(office, through)
            case ReadConsumerGroup():
                return self._read_group(request)
            case Acknowledge(office, group, numbers):
                return self._acknowledge(office, group, numbers)
            case CreateConsumerGroup(office, group, after):
                return self._create_group(office, group, after)
            case DeleteConsumerGroup(office, group):
                return self._delete_group(office, group)
            case ListConsumerGroups(office):
                return self._list_groups(office)
            case CheckIdentityKey(fingerprint):
                return self._check_identity_key(fingerprint)
            case ListOffices():
                return self._executor.offices.read()
            case Reconcile(address, events):
                return self._executor.reconciler.reconcile(self._executor.handle(address), events)
            case Audit(office):
                return self._audit(office)
            case Describe(address):
                return self._describe(address)
        raise TypeError(f"the store has no request {type(request).__name__}")

    def _apply_many(self, office: str, commands: tuple[Command, ...]) -> Call[list[Outcome]]:
        try:
            outcomes = yield from self._apply_parts(office, commands)
        except BaseException:
            for command in commands:
                self._sold_out_cache.record_unknown(office, command)
            raise
        for command, outcome in zip(commands, outcomes, strict=True):
            if outcome.ok:
                self._sold_out_cache.record_outcome(office, command, outcome)
        return outcomes

    def _apply_parts(self, office: str, commands: tuple[Command, ...]) -> Call[list[Outcome]]:
        yield from self._executor.offices.register(office, *commands)
        outcomes: list[Outcome] = []
        handle = self._executor.handle(office)
        for start in range(0, len(commands), BATCH_MAX):
            part = commands[start : start + BATCH_MAX]
            lines = [encode(command) for command in part]
            try:
                replies = yield from self._executor.run(_script_of(part), handle, lines)
            except BackendUnavailable as error:
                if not outcomes:
                    raise
                raise OutcomeUnknown(
                    f"only the first {len(outcomes)} of {len(commands)} commands were applied; "
                    f"repeat the call with the same keys ({error})"
                ) from error
            outcomes += [handle.decoder.outcome(command, line) for command, line in zip(part, replies, strict=True)]
        return outcomes

    def _view(self, office: str, days: tuple[int, ...]) -> Call[list[DayView]]:
        if not days:
            return []
        handle = self._executor.handle(office)
        lines = yield from self._executor.run(OFFICE_QUERIES, handle, [f"view\t{day}" for day in days])
        views = [handle.decoder.view(day, line) for day, line in zip(days, lines, strict=True)]
        return [one for one in views if one is not None]

    def _list_day(self, office: str, day: int) -> Call[list[Reservation]]:
        handle = self._executor.handle(office)
        found: dict[str, Reservation] = {}
        cursor = "0"
        while True:
            (text,) = yield from self._executor.run(OFFICE_QUERIES, handle, [f"list_day\t{day}\t{cursor}"])
            cursor, *lines = text.split("\n")
            for line in lines:
                record = handle.decoder.lookup(line)
                found[record.id] = record  # HSCAN may return a field twice
            if cursor == "0":
                return sort_reservations(found.values())

    def _read_hold_remaining_histogram(self, office: str, day: int, bounds_ms: tuple[int, ...]) -> Call[list[int]]:
        handle = self._executor.handle(office)
        counts = [0] * (len(bounds_ms) + 1)
        bounds = ",".join(map(str, bounds_ms))
        last_member = ""
        while True:
            line = f"hold_remaining_histogram\t{day}\t{last_member}\t{bounds}"
            (text,) = yield from self._executor.run(OFFICE_QUERIES, handle, [line])
            last_member, _, page = text.partition("\t")
            counts = [count + int(more) for count, more in zip(counts, page.split(","), strict=True)]
            if not last_member:
                return counts

    def _read_events(self, office: str, after: int, limit: int) -> Call[list[RecordedEvent]]:
        handle = self._executor.handle(office)
        if limit < 1 or after >= EVENT_NUMBER_LIMIT:
            return []
        keys = ScriptKeys(handle.key(name) for name in ("head", "events", "choices"))
        words = [str(max(after, 0)), str(limit)]
        entries, choices = yield from self._executor.run_fenced(OFFICE_EVENTS, handle, keys, words, writes=False)
        return self._recorded(office, entries, choices)

    def _recorded(self, office: str, entries: Any, choices: Any) -> list[RecordedEvent]:
        decoder, known = self._executor.handle(office).decoder, pairs(choices)
        return [
            RecordedEvent(int(number.partition("-")[0]), event_of_text(fields[1], decoder, known))
            for number, fields in entries
        ]

    def _trim_events(self, office: str, through: int) -> Call[int]:
        (left,) = yield from self._run_groups(office, "trim", min(max(through, 0), EVENT_NUMBER_LIMIT - 1))
        return int(left)

    def _read_group(self, request: ReadConsumerGroup) -> Call[list[RecordedEvent]]:
        if request.limit < 1:
            return []
        entries, choices = yield from self._run_groups(
            request.office, "read", request.consumer_group, request.consumer, request.limit, request.min_idle_ms
        )
        return self._recorded(request.office, entries, choices)

    def _acknowledge(self, office: str, group: str, numbers: tuple[int, ...]) -> Call[int]:
        ranges = ranges_of(number for number in numbers if 0 < number < EVENT_NUMBER_LIMIT)
        text = ",".join(f"{first}-{last}" for first, last in ranges)
        (acknowledged,) = yield from self._run_groups(office, "acknowledge", group, text)
        return int(acknowledged)

    def _create_group(self, office: str, group: str, after: int) -> Call[bool]:
        (is_new,) = yield from self._run_groups(office, "create", group, min(max(after, 0), EVENT_NUMBER_LIMIT - 1))
        return bool(is_new)

    def _delete_group(self, office: str, group: str) -> Call[bool]:
        (existed,) = yield from self._run_groups(office, "delete", group)
        return bool(existed)

    def _list_groups(self, office: str) -> Call[list[ConsumerGroupView]]:
        last, *rows = yield from self._run_groups(office, "list")
        # Sorted here, because Lua sorts text by the server's locale.
        texts = sorted(zip(rows[::2], rows[1::2], strict=True))
        return [view_of(name, group_of_text(text), int(last)) for name, text in texts]

    def _run_groups(self, office: str, *words: str | int) -> Call[list[Any]]:
        """Run the script of consumer groups, whose operations are all harmless to repeat; returns the reply's rest."""
        handle = self._executor.handle(office)
        keys = ScriptKeys(handle.key(name) for name in ("head", "events", "choices"))
        texts = [str(word) for word in words]
        status, *reply = yield from self._executor.run_fenced(CONSUMER_GROUPS, handle, keys, texts, writes=True)
        if status == "FULL":
            raise InvalidRequest(
                "consumer_group",
                f"the office has {GROUPS_MAX} groups, which is the limit",
                "an existing group; delete one first to create another",
            )
        return reply

    def _check_identity_key(self, fingerprint: str) -> Call[str]:
        key = self._runner.identity_key_key
        (stored,) = yield from self._runner.run_plain(("HGET", key, "fingerprint"), key=key)
        if stored is None and fingerprint:
            # Read first, so that a store whose memory is full can be opened. HSETNX keeps the first of several
            # openings at the same time, and each of them reads the one that was kept.
            write = ("HSETNX", key, "fingerprint", fingerprint)
            _, stored = yield from self._runner.run_plain(write, ("HGET", key, "fingerprint"), key=key, waits=True)
        return "" if stored is None else str(stored)

    def _audit(self, office: str) -> Call[list[str]]:
        handle = self._executor.handle(office)
        state = yield from self._runner.read_state(handle)
        self._executor.check_not_behind(handle, state[0])
        number = int(state[0].get("number", 0))

        def compute() -> list[str]:
            ledger = handle.format.decode_ledger(office, state)
            return audit(ledger, from_events=len(ledger.events) == number)

        return (yield from run_blocking(compute))

    def _describe(self, address: str) -> Call[dict[str, Any]]:
        handle = self._executor.handle(address)
        state = yield from self._runner.read_state(handle)
        describe, decode = kind_of(address).describe, handle.format.decode_ledger
        return (yield from run_blocking(lambda: describe(decode(address, state))))


def _script_of(commands: tuple[Command, ...]) -> Script:
    """Return the script that applies all of these commands."""
    scripts = {office_script_of(command) for command in commands}
    if len(scripts) == 1:
        return scripts.pop()
    # The scripts that may not run out of memory know all commands of the freeing one.
    return OFFICE_GUARDED_COMMANDS if OFFICE_GUARDED_COMMANDS in scripts else OFFICE_COMMANDS
