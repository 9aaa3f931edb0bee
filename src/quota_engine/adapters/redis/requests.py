"""Everything that is asked of the store besides single commands, written once for sync and async.

Each request becomes a generator of attempts and pauses (see ``calls``), which a driver runs on a connection.
"""

from __future__ import annotations

__all__ = ["Worker"]

from collections.abc import Sequence
from typing import Any, Final

from quota_engine.adapters.redis.calls import Call, Durability, Policy, Router, call_plain, call_script
from quota_engine.adapters.redis.codec import Decoder, encode, event_of_text
from quota_engine.adapters.redis.keys import KINDS, keys_of, offices_key
from quota_engine.adapters.redis.scripts import COMMANDS, FREEING_COMMANDS, READS, STATE, Script, script_of
from quota_engine.adapters.redis.state import HASHES, ledger_of_state
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Publish, SetRules
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.ledger import Ledger, describe
from quota_engine.domain.model import Reservation
from quota_engine.domain.outcomes import DayView, Outcome
from quota_engine.ports import (
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
OFFICES_KEPT_MAX: Final = 10_000
NUMBER_MAX: Final = 2**53
"""No event has a number as high as this."""
OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""Servers from here on know scripts that declare themselves (``#!lua``), and so are refused before they can half
happen.
"""


class Worker:
    """Turns requests into calls, and replies into answers. It holds no connection."""

    def __init__(self, clock: Clock | None, policy: Policy, namespace: str, router: Router) -> None:
        self._clock = clock
        self._router = router
        self._namespace = namespace
        self._keys: dict[str, tuple[str, ...]] = {}
        self._policy = policy
        self._decoders: dict[str, Decoder] = {}
        self._known_offices: set[str] = set()

    def keys(self, office: str) -> tuple[str, ...]:
        """The keys of an office."""
        keys = self._keys.get(office)
        if keys is None:
            if len(self._keys) >= OFFICES_KEPT_MAX:
                self._keys.clear()
            keys = self._keys[office] = keys_of(self._namespace, office)
        return keys

    def run(self, script: Script, office: str, lines: list[str]) -> Call[list[Any]]:
        """Run a script on an office's keys with these lines; returns a line for each."""
        now = "" if self._clock is None else str(self._clock.now_ms())
        writes = script is not READS
        if writes and self._policy.replicas:
            now += "+"  # leave a small write behind in any case: after a replay that wrote nothing WAIT would not wait
        return call_script(script, self.keys(office), [now, *lines], self._policy, self._router, writes=writes)

    def decoder(self, office: str) -> Decoder:
        """The office's decoder, kept for as many offices as there may be in a catalog."""
        decoder = self._decoders.get(office)
        if decoder is None:
            if len(self._decoders) >= OFFICES_KEPT_MAX:
                self._decoders.clear()
            decoder = self._decoders[office] = Decoder(office)
        return decoder

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

    def must_register(self, office: str, command: Command) -> bool:
        """Whether this command may be an office's first: then the office has to be written down before."""
        return isinstance(command, Publish | SetRules) and office not in self._known_offices

    def register(self, office: str) -> Call[None]:
        """Write the office down among those that have a ledger. Before its first event: a crash between leaves a name
        too many.
        """
        key = offices_key(self._namespace)
        yield from self._plain(("SADD", key, office), key=key)
        self._known_offices.add(office)

    def answer(self, request: Request[Any]) -> Call[Any]:
        """The calls that answer a request."""
        match request:
            case SendMany(office, commands):
                return self._send_many(office, commands)
            case Lookup(office, reservation_id):
                return self._lookup(office, reservation_id)
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
        if any(self.must_register(office, command) for command in commands):
            yield from self.register(office)
        outcomes: list[Outcome] = []
        decoder = self.decoder(office)
        for start in range(0, len(commands), BATCH_MAX):
            part = commands[start : start + BATCH_MAX]
            frees = all(script_of(command) is FREEING_COMMANDS for command in part)
            script = FREEING_COMMANDS if frees else COMMANDS
            try:
                lines = yield from self.run(script, office, [encode(command) for command in part])
            except BackendUnavailable as error:
                if not outcomes:
                    raise
                raise OutcomeUnknown(f"only the first {len(outcomes)} commands were carried out: {error}") from error
            outcomes += [decoder.outcome(command, line) for command, line in zip(part, lines, strict=True)]
        return outcomes

    def _lookup(self, office: str, reservation_id: str) -> Call[Reservation | None]:
        (line,) = yield from self.run(READS, office, [f"lookup\t{reservation_id}"])
        return self.decoder(office).lookup(line)

    def _view(self, office: str, days: tuple[int, ...]) -> Call[list[DayView]]:
        if not days:
            return []
        lines = yield from self.run(READS, office, [f"view\t{day}" for day in days])
        views = [self.decoder(office).view(day, line) for day, line in zip(days, lines, strict=True)]
        return [one for one in views if one is not None]

    def _read_events(self, office: str, after: int, limit: int) -> Call[list[RecordedEvent]]:
        keys = dict(zip(KINDS, self.keys(office), strict=True))
        if limit < 1 or after >= NUMBER_MAX:
            return []
        after = max(after, 0)
        read = ("XRANGE", keys["events"], f"({after}-0", "+", "COUNT", limit)
        entries, choices = yield from self._plain(read, ("HGETALL", keys["choices"]), key=keys["events"])
        decoder, known = self.decoder(office), _pairs(choices)
        return [
            RecordedEvent(int(number.partition("-")[0]), event_of_text(fields[1], decoder, known))
            for number, fields in entries
        ]

    def _trim_events(self, office: str, through: int) -> Call[int]:
        key = self.keys(office)[KINDS.index("events")]
        trim = ("XTRIM", key, "MINID", f"{min(max(through, 0), NUMBER_MAX) + 1}-0")
        _, left = yield from self._plain(trim, ("XLEN", key), key=key)
        return int(left)

    def _list_offices(self) -> Call[list[str]]:
        key = offices_key(self._namespace)
        (members,) = yield from self._plain(("SMEMBERS", key), key=key)
        return sorted(members)

    def _ledger(self, office: str) -> Call[tuple[Ledger, int]]:
        answers = yield from call_script(STATE, self.keys(office), (), self._policy, self._router, writes=False)
        state = [_pairs(answer) if index in HASHES else answer for index, answer in enumerate(answers)]
        return ledger_of_state(office, state), int(state[0].get("number", 0))

    def _audit(self, office: str) -> Call[list[str]]:
        ledger, number = yield from self._ledger(office)
        return audit(ledger, from_events=len(ledger.events) == number)

    def _describe(self, office: str) -> Call[dict[str, Any]]:
        ledger, _ = yield from self._ledger(office)
        return describe(ledger)


def _pairs(answer: Any) -> dict[str, str]:
    """A hash as a dict, whichever protocol it came by."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))
