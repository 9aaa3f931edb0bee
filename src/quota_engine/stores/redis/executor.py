"""Everything that is asked of the store besides single commands, written once for sync and async.

Each request becomes a generator of attempts and pauses (see ``calls``), which a driver runs on a connection.
"""

from __future__ import annotations

__all__ = ["Executor", "LedgerHandle"]

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import NoPermissionError

from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Publish, SetRules
from quota_engine.domain.consumer_groups import GROUPS_MAX, ConsumerGroupView, ranges_of, view_of
from quota_engine.domain.errors import BackendUnavailable, InvalidRequest, OutcomeUnknown
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.domain.queries import sort_reservations
from quota_engine.domain.reconcile import Reconciliation, recompute, restore_events
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.ledger_kinds import kind_of
from quota_engine.ports import (
    Acknowledge,
    ApplyMany,
    Audit,
    Clock,
    CreateConsumerGroup,
    DeleteConsumerGroup,
    Describe,
    ListConsumerGroups,
    ListDay,
    ListOffices,
    Lookup,
    Query,
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
from quota_engine.stores.redis.codecs.office import encode, event_of_text, group_of_text
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of, offices_key
from quota_engine.stores.redis.repair import Write, writes_between
from quota_engine.stores.redis.retrying_calls import (
    Call,
    Durability,
    Fence,
    Fenced,
    RetryPause,
    RetryPolicy,
    Router,
    call_plain,
    call_script,
)
from quota_engine.stores.redis.scripts import (
    COMMANDS,
    CONSUMERS,
    GUARDED_COMMANDS,
    READS,
    RECONCILE,
    TRIAL,
    Script,
    script_of,
)
from quota_engine.stores.redis.sold_out_cache import RefreshQuery, SoldOutCache
from quota_engine.stores.redis.stored_kinds import OFFICE, LedgerFormat, format_of

BATCH_MAX: Final = 128
PLACES_KEPT_MAX: Final = 10_000
NAME_RENEWED_MS: Final = 366 * 86_400_000
"""A name is written down anew only for a day that lasts so much longer: most publishing need not wait for that."""
OFFICE_KEPT_MS: Final = 30 * 86_400_000 + DURATION_MS_MAX + NAME_RENEWED_MS
"""How long an office's name is kept after the last day for which it was written down: its keys do not last longer."""
RIGHTS: Final = (
    "HGET ~ a",
    "HMGET ~ a",
    "HSET ~ a b",
    "HSETNX ~ a b",
    "HDEL ~ a",
    "HGETALL ~",
    "HEXISTS ~ a",
    "HLEN ~",
    "HINCRBY ~ a 1",
    "HSCAN ~ 0",
    "ZADD ~ 0 a",
    "ZREM ~ a",
    "ZRANGE ~ 0 -1",
    "ZRANGEBYLEX ~ - +",
    "ZRANGEBYSCORE ~ 0 1",
    "ZSCORE ~ a",
    "ZCARD ~",
    "ZCOUNT ~ 0 1",
    "XADD ~ 1-0 a b",
    "XRANGE ~ - +",
    "XTRIM ~ MAXLEN 0",
    "XLEN ~",
    "PEXPIRE ~ 1",
    "ZREMRANGEBYSCORE ~ 0 1",
    "TIME",
)
"""All that the scripts do. They are tried when a store is opened: one that is missing would be found out in the middle
of a script, which would leave half of a command behind.
"""
WRITES_MAX: Final = 1000
"""Of one script that repairs: a server does nothing else meanwhile."""
RECONCILE_LEASE_MS: Final = 60_000
"""A client that has been at it for longer, without a sign, is taken for dead; with a quarter of a millisecond more for
each record.
"""
ROUNDS_MAX: Final = 4
"""How often a ledger is looked through: to find what to repair, that nothing is left, and what to restore."""
NUMBER_MAX: Final = 2**53
"""No event has a number as high as this."""
OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""Servers from here on know scripts that declare themselves (``#!lua``), and so are refused before they can half
happen.
"""

_log = logging.getLogger("quota_engine")


class LedgerHandle:
    """What is known about one place: how its ledger is kept, its keys, what reads its answers, and what was seen of it
    last: its fencing epoch and the server that goes with it.
    """

    __slots__ = ("address", "decoder", "epoch", "format", "keys", "reconciling", "seen")

    def __init__(self, name: str, namespace: str) -> None:
        self.address = name
        self.format: LedgerFormat = format_of(name)
        self.keys = keys_of(namespace, name, self.format.key_names)
        self.decoder = self.format.decoder(name)
        self.epoch = 0
        self.seen = ""
        self.reconciling = threading.Lock()  # only ever tried, never waited for

    def saw(self, epoch_and_server: str) -> None:
        """Remember the epoch that a reply came with. Replies may overtake each other: an older one says nothing."""
        epoch = int(epoch_and_server.partition(":")[0])
        if epoch >= self.epoch:
            self.epoch, self.seen = epoch, epoch_and_server


class Executor:
    """Turns requests into calls, and replies into answers. It holds no connection."""

    def __init__(
        self, clock: Clock | None, policy: RetryPolicy, namespace: str, router: Router, sold_out: SoldOutCache
    ) -> None:
        self._clock = clock
        self._router = router
        self._namespace = namespace
        self._places: dict[str, LedgerHandle] = {}
        self._policy = policy
        self._sold_out = sold_out
        self._known_offices: dict[str, int] = {}
        """Until when the last day of an office lasts that was written down for it from here."""
        self._token = os.urandom(8).hex()
        """Who looks offices through: after an error the same client may go on at once."""

    def handle(self, name: str) -> LedgerHandle:
        """The place of this name, kept for as many as there may be offices in a catalog."""
        place = self._places.get(name)
        if place is None:
            if len(self._places) >= PLACES_KEPT_MAX:
                self._places.clear()
            place = self._places[name] = LedgerHandle(name, self._namespace)
        return place

    def run(self, script: Script, place: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Run a script on a place's keys with these lines; returns a line for each."""
        writes = script is not place.format.reads
        if writes and place.format is OFFICE and self._policy.fence is not Fence.OFF:
            return self._run_fenced(script, place, lines)
        if writes or len(lines) == 1:
            return self._run(script, place.keys, lines, writes=writes)
        return self._look(script, place, lines)

    def _run_fenced(self, script: Script, place: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Run a script that changes an office; if another server has taken over, look the office through first."""
        lost = False
        pause_ms = self._policy.pause_ms_min
        for _ in range(self._policy.attempts_max):
            try:
                reply = yield from self._run(script, place.keys, lines, writes=True, fence=f"@{place.seen}")
                place.saw(reply.pop())
                return reply
            except Fenced as fenced:
                lost = lost or fenced.lost
                problem = f"the office {place.address} is closed: {fenced}"
                if self._policy.fence is Fence.MANUAL:
                    problem += "; call reconcile"
                    break
            except BackendUnavailable as error:
                problem = str(error)
                break
            try:
                found = yield from self._reconcile(place, force=False, events=())
            except (BackendUnavailable, OutcomeUnknown) as error:  # of the looking through, not of this command
                problem = f"the office {place.address} is closed: {error}"
                break
            if found is None:  # somebody else is at it
                yield RetryPause(pause_ms)
                pause_ms = min(2 * pause_ms, self._policy.pause_ms_max)
        if lost:
            raise OutcomeUnknown(f"the store's answer is not known; ask again with the same key ({problem})")
        raise BackendUnavailable(problem)

    def _run(
        self, script: Script, keys: Sequence[str], lines: Sequence[str], *, writes: bool, fence: str = ""
    ) -> Call[list[Any]]:
        now = "" if self._clock is None else str(self._clock.now_ms())
        if writes and self._policy.replicas:
            now += "+"  # leave a small write behind in any case: after a replay that wrote nothing WAIT would not wait
        return call_script(script, keys, [now + fence, *lines], self._policy, self._router, writes=writes)

    def _look(self, script: Script, place: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """All who ask the same are answered by one look."""
        asked = list(dict.fromkeys(lines))
        answers = yield from self._run(script, place.keys, asked, writes=False)
        answer_to = dict(zip(asked, answers, strict=True))
        return [answer_to[line] for line in lines]

    def reader(self, place: LedgerHandle, script: Script) -> Callable[[Any, str], Any]:
        """What makes an answer of a command, or of a question, and its line."""
        answer: Callable[[Any, str], Any] = (
            place.decoder.answer if script is place.format.reads else place.decoder.outcome
        )
        return answer

    def full(self, place: LedgerHandle, script: Script) -> Any:
        """The answer to a call for which too many others wait already.

        Raises:
            BackendUnavailable: it would only look.
        """
        if script is place.format.reads:
            raise BackendUnavailable("too many calls for the same place wait already")
        return place.format.overloaded

    def lost(self, place: LedgerHandle, script: Script) -> type[Exception]:
        """What a call is told that was given up half way by who carried it."""
        return BackendUnavailable if script is place.format.reads else OutcomeUnknown

    def question(self, request: StoreRequest[Any]) -> tuple[str, Any] | None:
        """The place and the question, if the request is one that takes a single line: it can travel with others."""
        match request:
            case Query(place, question):
                return place, question
            case Lookup(office, _) | ReadWaitListPosition(office, _):
                return office, request
            case View(office, days) if len(days) == 1:
                return office, request
        return None

    def refresh(self, office: str) -> Call[None]:
        """Ask what the sold-out memory wants to know about the office. Without an answer it knows nothing more."""
        memory = self._sold_out
        question = memory.begin_refresh(office)
        if question is None:
            return
        is_away = True
        more: RefreshQuery | None = question
        try:
            # Only as often as one redirection takes: an answer that comes late is of no use.
            policy = msgspec.structs.replace(self._policy, attempts_max=2)
            keys = self.handle(office).keys
            while more is not None:
                now = "" if self._clock is None else str(self._clock.now_ms())
                arguments = [now, *more.lines]
                lines = yield from call_script(READS, keys, arguments, policy, self._router, writes=False)
                more = memory.apply_reply(more, lines)
            is_away = False
        except BackendUnavailable:
            pass
        finally:
            memory.end_refresh(question, is_away=is_away)

    def check_server(self) -> Call[None]:
        """See that the server is one whose scripts are refused whole or run whole."""
        (answer,) = yield from self._plain(("HELLO",), key=offices_key(self._namespace))
        told = _pairs(answer)
        name, version = str(told["server"]), str(told["version"])
        oldest = OLDEST.get(name, OLDEST["redis"])
        if tuple(int(part) for part in version.split(".")[:2]) < oldest:
            raise BackendUnavailable(
                f"{name} {version} is too old: expected {name} {'.'.join(map(str, oldest))} or newer"
            )
        yield from self._check_rights()
        if self._policy.durability is Durability.FSYNC:
            yield from self._check_fsync()

    def _check_rights(self) -> Call[None]:
        key = offices_key(self._namespace)
        wanted = RIGHTS if self._policy.fence is Fence.OFF else (*RIGHTS, "INFO replication")
        trial = [one.replace(" ", "\t") for one in wanted]
        commands: list[Sequence[str | int]] = [["EVAL", TRIAL.text, 1, key, *trial]]
        if self._policy.replicas:
            commands.append(("WAIT", 0, 1))
        try:
            once = msgspec.structs.replace(self._policy, attempts_max=1)
            missing, *_ = yield from call_plain(commands, once, self._router, key)
        except BackendUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                raise
            return  # a server that is busy, say: whoever calls it will see
        if missing:
            rights = " ".join(f"+{name.lower()}" for name in missing)
            raise BackendUnavailable(f"the store's user has no {rights}: docs/backends.md lists the rights it needs")

    def _check_fsync(self) -> Call[None]:
        ask = (("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "appendfsync"))
        answers = yield from self._plain(*ask, key=offices_key(self._namespace))
        settings = {name: value for answer in answers for name, value in _pairs(answer).items()}
        if settings != {"appendonly": "yes", "appendfsync": "always"}:
            raise BackendUnavailable(
                "durability=fsync needs a server with appendonly yes and appendfsync always; "
                f"this one has {', '.join(f'{name} {value}' for name, value in settings.items())}"
            )

    def must_register(self, office: str, command: Any) -> bool:
        """Whether this command may be an office's first, or makes it last much longer: it is written down before it."""
        if not isinstance(command, Publish | SetRules):
            return False
        known_until_ms = self._known_offices.get(office)
        return known_until_ms is None or _lasts_until_ms(command) > known_until_ms + NAME_RENEWED_MS

    def register(self, office: str, command: Any) -> Call[None]:
        """Write the office down among those that have a ledger, and until when it may have one. Before its first event:
        a crash between leaves a name too many, for that long.
        """
        key = offices_key(self._namespace)
        now_ms = yield from self._now_ms()
        lasts_until_ms = max(_lasts_until_ms(command), now_ms + NAME_RENEWED_MS)
        kept_ms = lasts_until_ms - now_ms + OFFICE_KEPT_MS
        yield from self._plain(
            ("ZREMRANGEBYSCORE", key, "-inf", f"({now_ms}"),
            ("ZADD", key, "GT", now_ms + kept_ms, office),
            ("PEXPIRE", key, kept_ms, "NX"),
            ("PEXPIRE", key, kept_ms, "GT"),
            key=key,
        )
        self._known_offices[office] = lasts_until_ms

    def _now_ms(self) -> Call[int]:
        if self._clock is not None:
            return self._clock.now_ms()
        ((seconds, microseconds),) = yield from self._plain(("TIME",), key=offices_key(self._namespace))
        return int(seconds) * 1000 + int(microseconds) // 1000

    def answer(self, request: StoreRequest[Any]) -> Call[Any]:
        """The calls that answer a request."""
        match request:
            case ApplyMany(office, commands):
                return self._send_many(office, commands)
            case View(office, days):
                return self._view(office, days)
            case ListDay(office, day):
                return self._list_day(office, day)
            case ReadHoldRemainingHistogram(office, day, bounds_ms):
                return self._count_holds(office, day, bounds_ms)
            case ReadEvents(office, after, limit):
                return self._read_events(office, after, limit)
            case TrimEvents(office, through):
                return self._trim_events(office, through)
            case ReadConsumerGroup():
                return self._read_group(request)
            case Acknowledge(office, group, numbers):
                return self._acknowledge(office, group, numbers)
            case CreateConsumerGroup(office, group, after):
                return self._add_group(office, group, after)
            case DeleteConsumerGroup(office, group):
                return self._drop_group(office, group)
            case ListConsumerGroups(office):
                return self._list_groups(office)
            case ListOffices():
                return self._list_offices()
            case Reconcile(office, events):
                return self._reconcile_by_hand(self.handle(office), events)
            case Audit(office):
                return self._audit(office)
            case Describe(office):
                return self._describe(office)
        raise TypeError(f"no answer to a {type(request).__name__}")

    def _plain(self, *commands: Sequence[str | int], key: str) -> Call[list[Any]]:
        return call_plain(commands, self._policy, self._router, key)

    def _send_many(self, office: str, commands: tuple[Command, ...]) -> Call[list[Outcome]]:
        try:
            outcomes = yield from self._carry_out(office, commands)
        except BaseException:
            for command in commands:
                self._sold_out.record_unknown(office, command)
            raise
        for command, outcome in zip(commands, outcomes, strict=True):
            if outcome.ok:
                self._sold_out.record_outcome(office, command, outcome)
        return outcomes

    def _carry_out(self, office: str, commands: tuple[Command, ...]) -> Call[list[Outcome]]:
        founding = [command for command in commands if isinstance(command, Publish | SetRules)]
        longest = max(founding, key=_lasts_until_ms, default=None)
        if longest is not None and self.must_register(office, longest):
            yield from self.register(office, longest)
        outcomes: list[Outcome] = []
        place = self.handle(office)
        for start in range(0, len(commands), BATCH_MAX):
            part = commands[start : start + BATCH_MAX]
            scripts = {script_of(command) for command in part}
            if len(scripts) > 1:  # the others know all that the freeing ones do
                scripts = {GUARDED_COMMANDS if GUARDED_COMMANDS in scripts else COMMANDS}
            (script,) = scripts
            try:
                lines = yield from self.run(script, place, [encode(command) for command in part])
            except BackendUnavailable as error:
                if not outcomes:
                    raise
                raise OutcomeUnknown(f"only the first {len(outcomes)} commands were carried out: {error}") from error
            outcomes += [place.decoder.outcome(command, line) for command, line in zip(part, lines, strict=True)]
        return outcomes

    def _view(self, office: str, days: tuple[int, ...]) -> Call[list[DayView]]:
        if not days:
            return []
        place = self.handle(office)
        lines = yield from self.run(READS, place, [f"view\t{day}" for day in days])
        views = [place.decoder.view(day, line) for day, line in zip(days, lines, strict=True)]
        return [one for one in views if one is not None]

    def _list_day(self, office: str, day: int) -> Call[list[Reservation]]:
        place = self.handle(office)
        found: dict[str, Reservation] = {}
        cursor = "0"
        while True:
            (text,) = yield from self.run(READS, place, [f"list\t{day}\t{cursor}"])
            cursor, *lines = text.split("\n")
            for line in lines:
                record = place.decoder.lookup(line)
                found[record.id] = record  # the server may show one twice
            if cursor == "0":
                return sort_reservations(found.values())

    def _count_holds(self, office: str, day: int, bounds_ms: tuple[int, ...]) -> Call[list[int]]:
        place = self.handle(office)
        counts = [0] * (len(bounds_ms) + 1)
        bounds = ",".join(map(str, bounds_ms))
        seen = ""
        while True:
            (text,) = yield from self.run(READS, place, [f"holds\t{day}\t{seen}\t{bounds}"])
            seen, _, found = text.partition("\t")
            counts = [count + int(more) for count, more in zip(counts, found.split(","), strict=True)]
            if not seen:
                return counts

    def _read_events(self, office: str, after: int, limit: int) -> Call[list[RecordedEvent]]:
        keys = dict(zip(OFFICE_KEY_NAMES, self.handle(office).keys, strict=True))
        if limit < 1 or after >= NUMBER_MAX:
            return []
        after = max(after, 0)
        read = ("XRANGE", keys["events"], f"({after}-0", "+", "COUNT", limit)
        entries, choices = yield from self._plain(read, ("HGETALL", keys["choices"]), key=keys["events"])
        return self._recorded(office, entries, choices)

    def _recorded(self, office: str, entries: Any, choices: Any) -> list[RecordedEvent]:
        decoder, known = self.handle(office).decoder, _pairs(choices)
        return [
            RecordedEvent(int(number.partition("-")[0]), event_of_text(fields[1], decoder, known))
            for number, fields in entries
        ]

    def _trim_events(self, office: str, through: int) -> Call[int]:
        (left,) = yield from self._consumers(office, "trim", min(max(through, 0), NUMBER_MAX - 1))
        return int(left)

    def _read_group(self, request: ReadConsumerGroup) -> Call[list[RecordedEvent]]:
        if request.limit < 1:
            return []
        entries, choices = yield from self._consumers(
            request.office, "read", request.consumer_group, request.consumer, request.limit, request.min_idle_ms
        )
        return self._recorded(request.office, entries, choices)

    def _acknowledge(self, office: str, group: str, numbers: tuple[int, ...]) -> Call[int]:
        ranges = ranges_of(number for number in numbers if 0 < number < NUMBER_MAX)
        text = ",".join(f"{first}-{last}" for first, last in ranges)
        (closed,) = yield from self._consumers(office, "acknowledge", group, text)
        return int(closed)

    def _add_group(self, office: str, group: str, after: int) -> Call[bool]:
        (added,) = yield from self._consumers(office, "add", group, min(max(after, 0), NUMBER_MAX - 1))
        return bool(added)

    def _drop_group(self, office: str, group: str) -> Call[bool]:
        (dropped,) = yield from self._consumers(office, "drop", group)
        return bool(dropped)

    def _list_groups(self, office: str) -> Call[list[ConsumerGroupView]]:
        last, *rows = yield from self._consumers(office, "list")
        # Sorted here: how a server sorts text depends on its locale.
        texts = sorted(zip(rows[::2], rows[1::2], strict=True))
        return [view_of(name, group_of_text(text), int(last)) for name, text in texts]

    def _consumers(self, office: str, *words: str | int) -> Call[list[Any]]:
        """Run the script of consumers; all that it can do may be repeated. Returns what it answers."""
        keys = dict(zip(OFFICE_KEY_NAMES, self.handle(office).keys, strict=True))
        three = [keys[kind] for kind in ("head", "events", "choices")]
        status, *answer = yield from self._run(CONSUMERS, three, [str(word) for word in words], writes=True)
        if status == "FULL":
            raise InvalidRequest(
                "consumer_group",
                f"the office has {GROUPS_MAX} groups",
                "an existing group; delete one to create another",
            )
        return answer

    def _reconcile_by_hand(self, place: LedgerHandle, events: tuple[RecordedEvent, ...]) -> Call[Reconciliation]:
        pause_ms = self._policy.pause_ms_min
        for _ in range(self._policy.attempts_max):
            found = yield from self._reconcile(place, force=True, events=events)
            if found is not None:
                return found
            yield RetryPause(pause_ms)
            pause_ms = min(2 * pause_ms, self._policy.pause_ms_max)
        raise BackendUnavailable(f"the office {place.address} is being reconciled by another client")

    def _reconcile(
        self, place: LedgerHandle, *, force: bool, events: tuple[RecordedEvent, ...]
    ) -> Call[Reconciliation | None]:
        """Look an office through, put right what is wrong, and open it; ``None`` if another client is at it.

        ``force``: even if it is open.
        """
        if not place.reconciling.acquire(blocking=False):
            return None
        try:
            return (yield from self._look_through(place, force, events))
        except InvalidRequest:
            yield from self._mender(place, "leave")
            raise
        finally:
            place.reconciling.release()

    def _look_through(
        self, place: LedgerHandle, force: bool, events: tuple[RecordedEvent, ...]
    ) -> Call[Reconciliation | None]:
        findings: list[str] | None = None
        repaired = 0
        for turn in range(ROUNDS_MAX):
            words = (place.seen, force or turn > 0, RECONCILE_LEASE_MS)
            status, *answer = yield from self._mender(place, "begin", *words)
            if status != "GO":
                return _nothing_to_do(place, status, answer)
            state = [_pairs(one) if at in OFFICE.hash_indexes else one for at, one in enumerate(answer[1:])]
            ledger, number = OFFICE.decode_ledger(place.address, state[:-2]), int(state[0]["number"])
            whole = len(ledger.events) == number
            findings = audit(ledger, from_events=whole) if findings is None else findings
            mended = recompute(ledger, from_events=whole)
            writes = writes_between(state, mended, number, ())
            if writes and turn < ROUNDS_MAX - 1:
                for start in range(0, len(writes), WRITES_MAX):
                    part = writes[start : start + WRITES_MAX]
                    if not (yield from self._write(place, number, part)):
                        return None
                repaired += len(writes)
                continue  # and look again, from the beginning
            restored = restore_events(mended, number, [(one.number, one.event) for one in events])
            if restored:
                # All in one step: half of an event would be a new damage.
                lost = mended.events[len(mended.events) - restored :]
                if not (yield from self._write(place, number, writes_between(state, mended, number, lost))):
                    return None
            status, *answer = yield from self._mender(place, "open", number + restored, place.epoch)
            if status != "OK":
                return None
            place.saw(f"{answer[0]}:{answer[1]}")
            found = Reconciliation(place.address, int(answer[0]), tuple(findings), repaired, restored)
            _log.log(
                logging.WARNING if findings or repaired or restored or not force else logging.INFO,
                "office %s: epoch %d; %d findings, %d entries repaired, %d events restored",
                *(place.address, found.epoch, len(found.findings), repaired, restored),
            )
            return found
        raise AssertionError("the last turn returns")

    def _write(self, place: LedgerHandle, number: int, writes: Sequence[Write]) -> Call[bool]:
        words = [str(word) for write in writes for word in write]
        (status,) = yield from self._mender(place, "write", number, *words)
        return bool(status == "OK")

    def _mender(self, place: LedgerHandle, what: str, *words: str | int) -> Call[list[Any]]:
        lines = [what, self._token, *(str(int(word)) if isinstance(word, bool) else str(word) for word in words)]
        return self._run(RECONCILE, place.keys, lines, writes=True)

    def _list_offices(self) -> Call[list[str]]:
        key = offices_key(self._namespace)
        now_ms = yield from self._now_ms()
        (members,) = yield from self._plain(("ZRANGEBYSCORE", key, now_ms, "+inf"), key=key)
        return sorted(members)

    def _ledger(self, name: str) -> Call[tuple[Any, list[Any]]]:
        """The ledger at a place, and the answers of the store that it was made of."""
        place = self.handle(name)
        answers = yield from call_script(place.format.state, place.keys, (), self._policy, self._router, writes=False)
        state = [
            _pairs(answer) if index in place.format.hash_indexes else answer for index, answer in enumerate(answers)
        ]
        return place.format.decode_ledger(name, state), state

    def _audit(self, office: str) -> Call[list[str]]:
        ledger, state = yield from self._ledger(office)
        return audit(ledger, from_events=len(ledger.events) == int(state[0].get("number", 0)))

    def _describe(self, name: str) -> Call[dict[str, Any]]:
        ledger, _ = yield from self._ledger(name)
        return kind_of(name).describe(ledger)


def _nothing_to_do(place: LedgerHandle, status: str, answer: list[Any]) -> Reconciliation | None:
    """What a reconciliation comes to that need not begin; ``None`` if another client is at it."""
    if status == "BUSY":
        return None
    if status == "EMPTY":
        place.epoch, place.seen = 0, ""
        return Reconciliation(place.address, 0)
    place.saw(f"{answer[0]}:{answer[1]}")
    return Reconciliation(place.address, int(answer[0]))


def _pairs(answer: Any) -> dict[str, str]:
    """A hash as a dict, whichever protocol it came by."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _lasts_until_ms(command: Publish | SetRules) -> int:
    """Until when an office has a day that is not forgotten, for all that is known from one command."""
    return command.terms.forget_at_ms if isinstance(command, Publish) else 0
