"""The list of offices that have a ledger."""

from __future__ import annotations

__all__ = ["OfficeList"]

from typing import Any, Final

from quota_engine.domain.commands import Publish, SetRules
from quota_engine.domain.validation import DURATION_MS_MAX
from quota_engine.stores.redis.keys import LEDGER_RETENTION_MARGIN_MS
from quota_engine.stores.redis.retrying_calls import Call
from quota_engine.stores.redis.script_runner import ScriptRunner

RENEWED_MS: Final = 366 * 86_400_000
"""An entry is renewed only for a day that is forgotten so much later, so that most publishing need not wait for it."""
ENTRY_KEPT_MS: Final = LEDGER_RETENTION_MARGIN_MS + DURATION_MS_MAX + RENEWED_MS
"""The time by which an entry outlives the last day that it was written for. The office's keys do not last longer."""


class OfficeList:
    """Writes offices into the list before their first event, and reads the list."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._known_until_ms: dict[str, int] = {}
        """By office: the time at which the last day is forgotten that this process wrote an entry for."""

    def must_register(self, office: str, command: Any) -> bool:
        """Return True if the command may be an office's first one, or makes its ledger last much longer."""
        if not isinstance(command, (Publish, SetRules)):  # each call would make a union
            return False
        known_until_ms = self._known_until_ms.get(office)
        return known_until_ms is None or _forget_at_ms(command) > known_until_ms + RENEWED_MS

    def register(self, office: str, *commands: Any) -> Call[None]:
        """Write an office into the list, if one of the commands requires it.

        This comes before the office's first event. A crash in between leaves an entry without a ledger, for as long as
        the entry lasts.
        """
        creating = [one for one in commands if self.must_register(office, one)]
        if not creating:
            return
        runner, key = self._runner, self._runner.offices_key
        now_ms = yield from runner.now_ms()
        lasts_until_ms = max(now_ms + RENEWED_MS, *map(_forget_at_ms, creating))
        kept_ms = lasts_until_ms - now_ms + ENTRY_KEPT_MS
        yield from runner.run_plain(
            ("ZREMRANGEBYSCORE", key, "-inf", f"({now_ms}"),
            ("ZADD", key, "GT", now_ms + kept_ms, office),
            ("PEXPIRE", key, kept_ms, "NX"),
            ("PEXPIRE", key, kept_ms, "GT"),
            key=key,
            waits=True,
        )
        self._known_until_ms[office] = lasts_until_ms

    def read(self) -> Call[list[str]]:
        """Return the offices of the list, sorted."""
        key = self._runner.offices_key
        now_ms = yield from self._runner.now_ms()
        (members,) = yield from self._runner.run_plain(("ZRANGEBYSCORE", key, now_ms, "+inf"), key=key)
        return sorted(members)


def _forget_at_ms(command: Publish | SetRules) -> int:
    """Return when the day of a command is forgotten, or 0 if the command has none."""
    return command.terms.forget_at_ms if isinstance(command, Publish) else 0
