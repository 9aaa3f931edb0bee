"""The store, called synchronously."""

from __future__ import annotations

__all__ = ["RedisBackend"]

from collections.abc import Callable
from typing import Any, TypeVar

import redis

from quota_engine.adapters.redis.codec import Decoder, encode, event_of_text
from quota_engine.adapters.redis.keys import OFFICES_KEY, keys_of
from quota_engine.adapters.redis.scripts import COMMANDS, READS, Script
from quota_engine.adapters.redis.state import STATE_READS, ledger_of_state
from quota_engine.domain.audit import audit
from quota_engine.domain.commands import Command, Publish, SetRules
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

T = TypeVar("T")

BATCH_MAX = 128


class RedisBackend:
    """A store in a Redis or Valkey server. Safe to use from several threads."""

    def __init__(self, client: redis.Redis, clock: Clock | None = None) -> None:
        """``client`` must decode responses, and not retry on its own. ``clock`` ``None`` is the server's time."""
        self._client = client
        self._clock = clock
        self._decoders: dict[str, Decoder] = {}
        self._answers: dict[type, Callable[[Any], Any]] = {
            SendMany: self._send_many,
            Lookup: self._lookup,
            View: self._view,
            ReadEvents: self._read_events,
            TrimEvents: self._trim_events,
            ListOffices: self._list_offices,
            Audit: self._audit,
            Describe: self._describe,
        }

    def send(self, office: str, command: Command) -> Outcome:
        """See :meth:`quota_engine.ports.Backend.send`."""
        return self._apply(office, (command,))[0]

    def perform(self, request: Request[T]) -> T:
        """See :meth:`quota_engine.ports.Backend.perform`."""
        answer: T = self._answers[type(request)](request)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _decoder(self, office: str) -> Decoder:
        decoder = self._decoders.get(office)
        if decoder is None:
            decoder = self._decoders[office] = Decoder(office)
        return decoder

    def _run(self, script: Script, office: str, lines: list[str]) -> list[str]:
        keys = keys_of(office)
        now = "" if self._clock is None else str(self._clock.now_ms())
        try:
            answer = self._client.evalsha(script.sha1, len(keys), *keys, now, *lines)
        except redis.exceptions.NoScriptError:
            answer = self._client.eval(script.text, len(keys), *keys, now, *lines)
        return answer  # type: ignore[no-any-return]

    def _apply(self, office: str, commands: tuple[Command, ...]) -> list[Outcome]:
        if any(isinstance(command, Publish | SetRules) for command in commands):
            self._client.sadd(OFFICES_KEY, office)
        outcome = self._decoder(office).outcome
        return [outcome(line) for line in self._run(COMMANDS, office, [encode(command) for command in commands])]

    def _send_many(self, request: SendMany) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(request.commands), BATCH_MAX):
            outcomes += self._apply(request.office, request.commands[start : start + BATCH_MAX])
        return outcomes

    def _lookup(self, request: Lookup) -> Reservation | None:
        (line,) = self._run(READS, request.office, [f"lookup\t{request.id}"])
        return self._decoder(request.office).lookup(line)

    def _view(self, request: View) -> list[DayView]:
        if not request.days:
            return []
        lines = self._run(READS, request.office, [f"view\t{day}" for day in request.days])
        decoder = self._decoder(request.office)
        views = [decoder.view(day, line) for day, line in zip(request.days, lines, strict=True)]
        return [one for one in views if one is not None]

    def _read_events(self, request: ReadEvents) -> list[RecordedEvent]:
        keys = keys_of(request.office)
        entries: Any = self._client.xrange(keys[8], f"({request.after}-0", "+", count=request.limit)
        choices: Any = self._client.hgetall(keys[9])
        decoder = self._decoder(request.office)
        return [
            RecordedEvent(int(number.partition("-")[0]), event_of_text(fields["e"], decoder, choices))
            for number, fields in entries
        ]

    def _trim_events(self, request: TrimEvents) -> int:
        key = keys_of(request.office)[8]
        self._client.xtrim(key, minid=f"{request.through + 1}-0", approximate=False)
        return int(self._client.xlen(key))  # type: ignore[arg-type]

    def _list_offices(self, request: ListOffices) -> list[str]:
        members: Any = self._client.smembers(OFFICES_KEY)
        return sorted(members)

    def _ledger(self, office: str) -> Ledger:
        by_kind = dict(zip((key.rpartition(":")[2] for key in keys_of(office)), keys_of(office), strict=True))
        with self._client.pipeline(transaction=True) as pipeline:
            for name, kind, *arguments in STATE_READS:
                pipeline.execute_command(name, by_kind[kind], *arguments)
            return ledger_of_state(office, pipeline.execute())

    def _audit(self, request: Audit) -> list[str]:
        ledger = self._ledger(request.office)
        number = self._client.hget(keys_of(request.office)[0], "number")
        return audit(ledger, from_events=len(ledger.events) == int(number or 0))  # type: ignore[arg-type]

    def _describe(self, request: Describe) -> dict[str, Any]:
        return describe(self._ledger(request.office))
