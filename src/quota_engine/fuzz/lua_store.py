"""The scripts as a store, without a server and its client."""

from __future__ import annotations

__all__ = ["LuaStore"]

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from quota_engine.domain.commands import Command, Publish, SetRules
from quota_engine.domain.model import Reservation
from quota_engine.domain.queries import sort_reservations
from quota_engine.fuzz.lua_server import LuaServer
from quota_engine.fuzz.stream_commands import Stream
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    CheckIdentityKey,
    Clock,
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
from quota_engine.stores.redis.codecs.office_state import event_of_text
from quota_engine.stores.redis.executor import Executor
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.ledger_formats import format_of, office_script_of
from quota_engine.stores.redis.office_requests import OfficeRequests
from quota_engine.stores.redis.request_packing import words_of
from quota_engine.stores.redis.retrying_calls import Attempt, BlockingWork, Call, RetryPolicy, Router
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import (
    CONSUMER_GROUPS,
    OFFICE_COMMANDS,
    OFFICE_EVENTS,
    OFFICE_GUARDED_COMMANDS,
    OFFICE_PARTS,
    OFFICE_QUERIES,
    OFFICE_STATE,
    RECONCILE,
    TAKE_OVER_BUCKETS,
    TAKE_OVER_DRAW,
    TAKE_OVER_REGISTRY,
    TAKE_OVER_ROOM,
    Script,
)
from quota_engine.stores.redis.sold_out_cache import SoldOutCache

T = TypeVar("T")

_REQUEST_SCRIPTS: Final = (
    CONSUMER_GROUPS,
    RECONCILE,
    OFFICE_EVENTS,
    OFFICE_PARTS,
    OFFICE_STATE,
    TAKE_OVER_BUCKETS,
    TAKE_OVER_DRAW,
    TAKE_OVER_REGISTRY,
    TAKE_OVER_ROOM,
)


class LuaStore:
    """The scripts as a backend: what a server and its client do, without either."""

    def __init__(self, clock: Clock | None, store: LuaServer | None = None, batch_max: int = 128) -> None:
        """Without a clock the scripts ask the store for its time."""
        self.store = store or LuaServer()
        self._clock = clock
        self._batch_max = batch_max
        self._offices: set[str] = set()
        self._key_fingerprint = ""
        self._places: dict[str, Any] = {}

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        """See :meth:`quota_engine.ports.Store.send`."""
        return self._run(format_of(address).script_of(command), address, (command,))[0]

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        """See :meth:`quota_engine.ports.Store.perform`."""
        answer: T = self._answer(request)
        return answer

    def close(self) -> None:
        """Do nothing: this store holds no resources."""

    def _answer(self, request: StoreRequest[Any]) -> Any:
        match request:
            case Query(place, question):
                kind = format_of(place)
                (line,) = self.store.run(kind.queries, self._keys(place), [self._now(), kind.encode(question)])
                return self._answers(place).answer(question, line)
            case ApplyMany(office, commands):
                parts = [commands[at : at + self._batch_max] for at in range(0, len(commands), self._batch_max)]
                return [outcome for part in parts for outcome in self._run(self._script_of(part), office, part)]
            case Lookup(office, reservation_id):
                (line,) = self._look(office, f"lookup\t{reservation_id}")
                return self._answers(office).lookup(line)
            case ReadWaitListPosition(office, reservation_id):
                (line,) = self._look(office, f"wait_list_position\t{reservation_id}")
                return self._answers(office).wait_list_position(line)
            case ReadAbandonedHolds(office):
                return self._answers(office).answer(request, self._look(office, "abandoned_holds")[0])
            case View(office, days):
                lines = self._look(office, *(f"view\t{day}" for day in days))
                views = [self._answers(office).view(day, line) for day, line in zip(days, lines, strict=True)]
                return [one for one in views if one is not None]
            case ListDay(office, day):
                cursor = ""
                found: dict[str, Reservation] = {}
                while cursor != "0":
                    (text,) = self._look(office, f"list_day\t{day}\t{cursor or 0}")
                    cursor, *lines = text.split("\n")
                    records = [self._answers(office).lookup(line) for line in lines]
                    found |= {record.id: record for record in records if record is not None}
                return sort_reservations(found.values())
            case ReadEvents(office, after, limit):
                choices = self.store._hash(self._keys(office)[OFFICE_KEY_NAMES.index("choices")])  # noqa: SLF001
                return [
                    RecordedEvent(number, event_of_text(fields[1], self._answers(office), choices))
                    for number, fields in self.read_events(office).entries
                    if number > after
                ][:limit]
            case (
                ReadHoldRemainingHistogram()
                | TrimEvents()
                | ReadConsumerGroup()
                | Acknowledge()
                | CreateConsumerGroup()
                | DeleteConsumerGroup()
                | ListConsumerGroups()
                | Reconcile()
                | Audit()
            ):
                return self._drive(self._requests().execute(request))
            case CheckIdentityKey(fingerprint):
                self._key_fingerprint = self._key_fingerprint or fingerprint
                return self._key_fingerprint
            case ListOffices():
                return sorted(self._offices)
            case Describe(place):
                return kind_of(place).describe(self.read_ledger(place)[0])
        raise TypeError(f"no answer to a {type(request).__name__}")

    def _requests(self) -> OfficeRequests:
        """Return the requests of a store that has this one's clock."""
        cache = SoldOutCache(0)
        return OfficeRequests(Executor(ScriptRunner(self._clock, RetryPolicy(), "", Router()), cache), cache)

    def _drive(self, steps: Call[Any]) -> Any:
        """Run the script calls of a request here."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, BlockingWork):
                    step.run()
                    step = steps.send([])
                    continue
                assert isinstance(step, Attempt)
                (name, *rest) = words_of(step.requests(None)[0])
                if name == "TIME":
                    step = steps.send([self.store._do_time()])  # noqa: SLF001
                    continue
                assert name == "EVALSHA"
                sha1, count, *words = rest
                script = next(one for one in _REQUEST_SCRIPTS if one.sha1 == sha1)
                step = steps.send([self.store.run(script, words[: int(count)], words[int(count) :])])
        except StopIteration as end:
            return end.value

    def _script_of(self, commands: Sequence[Command]) -> Script:
        scripts = {office_script_of(command) for command in commands}
        if len(scripts) == 1:
            return scripts.pop()
        return OFFICE_GUARDED_COMMANDS if OFFICE_GUARDED_COMMANDS in scripts else OFFICE_COMMANDS

    def _run(self, script: Script, place: str, commands: Sequence[Any]) -> list[Any]:
        if any(isinstance(command, Publish | SetRules) for command in commands):
            self._offices.add(place)
        encode = format_of(place).encode
        lines = self.store.run(script, self._keys(place), [self._now(), *map(encode, commands)])
        outcome = self._answers(place).outcome
        return [outcome(command, line) for command, line in zip(commands, lines, strict=True)]

    def _look(self, office: str, *lines: str) -> list[str]:
        return self.store.run(OFFICE_QUERIES, self._keys(office), [self._now(), *lines])

    def read_ledger(self, place: str) -> tuple[Any, int]:
        """Return a ledger as its keys have it, and the number of its last event."""
        kind = format_of(place)
        answers = self.store.run(kind.state, self._keys(place), [])
        state = [
            dict(zip(answer[::2], answer[1::2], strict=True)) if index in kind.hash_indexes else answer
            for index, answer in enumerate(answers)
        ]
        return kind.decode_ledger(place, state), int(state[0].get("number", 0)) if isinstance(state[0], dict) else 0

    def read_events(self, office: str) -> Stream:
        """Return the stream of an office's events."""
        return self.store._value(self._keys(office)[OFFICE_KEY_NAMES.index("events")], Stream)  # noqa: SLF001

    def _keys(self, place: str) -> tuple[str, ...]:
        return keys_of("", place, format_of(place).key_names)

    def _now(self) -> str:
        return "" if self._clock is None else str(self._clock.now_ms())

    def _answers(self, place: str) -> Any:
        answers = self._places.get(place)
        if answers is None:
            answers = self._places[place] = format_of(place).decoder(place)
        return answers
