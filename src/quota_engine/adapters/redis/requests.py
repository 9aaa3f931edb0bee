"""Everything that is asked of the store besides single commands, written once for sync and async.

Each request becomes a generator of attempts and pauses (see ``calls``), which a driver runs on a connection.
"""

from __future__ import annotations

__all__ = ["Place", "Worker"]

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from quota_engine.adapters.redis.calls import Call, Durability, Policy, Router, call_plain, call_script
from quota_engine.adapters.redis.codec import encode, event_of_text
from quota_engine.adapters.redis.keys import KINDS, keys_of, offices_key
from quota_engine.adapters.redis.kinds import StoredKind, stored_kind_of
from quota_engine.adapters.redis.scripts import COMMANDS, GUARDED_COMMANDS, READS, Script, script_of
from quota_engine.adapters.redis.soldout import Question, SoldOut
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Publish, SetRules
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.domain.values import DURATION_MS_MAX
from quota_engine.kinds import kind_of
from quota_engine.ports import (
    Ask,
    Audit,
    Clock,
    Describe,
    ListOffices,
    Lookup,
    ReadEvents,
    RecordedEvent,
    Request,
    SendMany,
    TrimEvents,
    View,
)

BATCH_MAX: Final = 128
PLACES_KEPT_MAX: Final = 10_000
NAME_RENEWED_MS: Final = 366 * 86_400_000
"""A name is written down anew only for a day that lasts so much longer: most publishing need not wait for that."""
OFFICE_KEPT_MS: Final = 30 * 86_400_000 + DURATION_MS_MAX + NAME_RENEWED_MS
"""How long an office's name is kept after the last day for which it was written down: its keys do not last longer."""
NUMBER_MAX: Final = 2**53
"""No event has a number as high as this."""
OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""Servers from here on know scripts that declare themselves (``#!lua``), and so are refused before they can half
happen.
"""


class Place:
    """What is known about one place: how its ledger is kept, its keys, and what reads its answers."""

    __slots__ = ("answers", "keys", "kind", "name")

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.kind: StoredKind = stored_kind_of(name)
        self.keys = keys_of(namespace, name, self.kind.key_kinds)
        self.answers = self.kind.answers(name)


class Worker:
    """Turns requests into calls, and replies into answers. It holds no connection."""

    def __init__(self, clock: Clock | None, policy: Policy, namespace: str, router: Router, sold_out: SoldOut) -> None:
        self._clock = clock
        self._router = router
        self._namespace = namespace
        self._places: dict[str, Place] = {}
        self._policy = policy
        self._sold_out = sold_out
        self._known_offices: dict[str, int] = {}
        """Until when the last day of an office lasts that was written down for it from here."""

    def place(self, name: str) -> Place:
        """The place of this name, kept for as many as there may be offices in a catalog."""
        place = self._places.get(name)
        if place is None:
            if len(self._places) >= PLACES_KEPT_MAX:
                self._places.clear()
            place = self._places[name] = Place(name, self._namespace)
        return place

    def run(self, script: Script, place: Place, lines: list[str]) -> Call[list[Any]]:
        """Run a script on a place's keys with these lines; returns a line for each."""
        now = "" if self._clock is None else str(self._clock.now_ms())
        writes = script is not place.kind.reads
        if writes and self._policy.replicas:
            now += "+"  # leave a small write behind in any case: after a replay that wrote nothing WAIT would not wait
        if writes or len(lines) == 1:
            return call_script(script, place.keys, [now, *lines], self._policy, self._router, writes=writes)
        return self._look(script, place, now, lines)

    def _look(self, script: Script, place: Place, now: str, lines: list[str]) -> Call[list[Any]]:
        """All who ask the same are answered by one look."""
        asked = list(dict.fromkeys(lines))
        answers = yield from call_script(script, place.keys, [now, *asked], self._policy, self._router, writes=False)
        answer_to = dict(zip(asked, answers, strict=True))
        return [answer_to[line] for line in lines]

    def reader(self, place: Place, script: Script) -> Callable[[Any, str], Any]:
        """What makes an answer of a command, or of a question, and its line."""
        answer: Callable[[Any, str], Any] = (
            place.answers.answer if script is place.kind.reads else place.answers.outcome
        )
        return answer

    def full(self, place: Place, script: Script) -> Any:
        """The answer to a call for which too many others wait already.

        Raises:
            BackendUnavailable: it would only look.
        """
        if script is place.kind.reads:
            raise BackendUnavailable("too many calls for the same place wait already")
        return place.kind.overloaded

    def lost(self, place: Place, script: Script) -> type[Exception]:
        """What a call is told that was given up half way by who carried it."""
        return BackendUnavailable if script is place.kind.reads else OutcomeUnknown

    def question(self, request: Request[Any]) -> tuple[str, Any] | None:
        """The place and the question, if the request is one that takes a single line: it can travel with others."""
        match request:
            case Ask(place, question):
                return place, question
            case Lookup(office, _):
                return office, request
            case View(office, days) if len(days) == 1:
                return office, request
        return None

    def refresh(self, office: str) -> Call[None]:
        """Ask what the sold-out memory wants to know about the office. Without an answer it knows nothing more."""
        memory = self._sold_out
        question = memory.ask(office)
        if question is None:
            return
        is_away = True
        more: Question | None = question
        try:
            # Only as often as one redirection takes: an answer that comes late is of no use.
            policy = msgspec.structs.replace(self._policy, attempts_max=2)
            keys = self.place(office).keys
            while more is not None:
                now = "" if self._clock is None else str(self._clock.now_ms())
                arguments = [now, *more.lines]
                lines = yield from call_script(READS, keys, arguments, policy, self._router, writes=False)
                more = memory.learn(more, lines)
            is_away = False
        except BackendUnavailable:
            pass
        finally:
            memory.done(question, is_away=is_away)

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
        if self._policy.durability is Durability.FSYNC:
            yield from self._check_fsync()

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

    def answer(self, request: Request[Any]) -> Call[Any]:
        """The calls that answer a request."""
        match request:
            case SendMany(office, commands):
                return self._send_many(office, commands)
            case View(office, days):
                return self._view(office, days)
            case ReadEvents(office, after, limit):
                return self._read_events(office, after, limit)
            case TrimEvents(office, through):
                return self._trim_events(office, through)
            case ListOffices():
                return self._list_offices()
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
                self._sold_out.lost(office, command)
            raise
        for command, outcome in zip(commands, outcomes, strict=True):
            if outcome.ok:
                self._sold_out.saw(office, command, outcome)
        return outcomes

    def _carry_out(self, office: str, commands: tuple[Command, ...]) -> Call[list[Outcome]]:
        founding = [command for command in commands if isinstance(command, Publish | SetRules)]
        longest = max(founding, key=_lasts_until_ms, default=None)
        if longest is not None and self.must_register(office, longest):
            yield from self.register(office, longest)
        outcomes: list[Outcome] = []
        place = self.place(office)
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
            outcomes += [place.answers.outcome(command, line) for command, line in zip(part, lines, strict=True)]
        return outcomes

    def _view(self, office: str, days: tuple[int, ...]) -> Call[list[DayView]]:
        if not days:
            return []
        place = self.place(office)
        lines = yield from self.run(READS, place, [f"view\t{day}" for day in days])
        views = [place.answers.view(day, line) for day, line in zip(days, lines, strict=True)]
        return [one for one in views if one is not None]

    def _read_events(self, office: str, after: int, limit: int) -> Call[list[RecordedEvent]]:
        keys = dict(zip(KINDS, self.place(office).keys, strict=True))
        if limit < 1 or after >= NUMBER_MAX:
            return []
        after = max(after, 0)
        read = ("XRANGE", keys["events"], f"({after}-0", "+", "COUNT", limit)
        entries, choices = yield from self._plain(read, ("HGETALL", keys["choices"]), key=keys["events"])
        decoder, known = self.place(office).answers, _pairs(choices)
        return [
            RecordedEvent(int(number.partition("-")[0]), event_of_text(fields[1], decoder, known))
            for number, fields in entries
        ]

    def _trim_events(self, office: str, through: int) -> Call[int]:
        key = self.place(office).keys[KINDS.index("events")]
        trim = ("XTRIM", key, "MINID", f"{min(max(through, 0), NUMBER_MAX) + 1}-0")
        _, left = yield from self._plain(trim, ("XLEN", key), key=key)
        return int(left)

    def _list_offices(self) -> Call[list[str]]:
        key = offices_key(self._namespace)
        now_ms = yield from self._now_ms()
        (members,) = yield from self._plain(("ZRANGEBYSCORE", key, now_ms, "+inf"), key=key)
        return sorted(members)

    def _ledger(self, name: str) -> Call[tuple[Any, list[Any]]]:
        """The ledger at a place, and the answers of the store that it was made of."""
        place = self.place(name)
        answers = yield from call_script(place.kind.state, place.keys, (), self._policy, self._router, writes=False)
        state = [_pairs(answer) if index in place.kind.hashes else answer for index, answer in enumerate(answers)]
        return place.kind.ledger(name, state), state

    def _audit(self, office: str) -> Call[list[str]]:
        ledger, state = yield from self._ledger(office)
        return audit(ledger, from_events=len(ledger.events) == int(state[0].get("number", 0)))

    def _describe(self, name: str) -> Call[dict[str, Any]]:
        ledger, _ = yield from self._ledger(name)
        return kind_of(name).describe(ledger)


def _pairs(answer: Any) -> dict[str, str]:
    """A hash as a dict, whichever protocol it came by."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))


def _lasts_until_ms(command: Publish | SetRules) -> int:
    """Until when an office has a day that is not forgotten, for all that is known from one command."""
    return command.terms.forget_at_ms if isinstance(command, Publish) else 0
