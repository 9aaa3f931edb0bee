"""Repairs an office's ledger after a failover, or on request, and opens the office again.

One client at a time reconciles an office. It reads everything, decides in Python what to repair
(:mod:`quota_engine.domain.reconcile`), and writes while the office is closed to all other clients.
"""

from __future__ import annotations

__all__ = ["Reconciler"]

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from quota_engine.domain.errors import BackendUnavailable, InvalidRequest
from quota_engine.domain.ledger import Ledger
from quota_engine.domain.reconcile import Reconciliation, correct_time, examine, restore_events
from quota_engine.ports import RecordedEvent
from quota_engine.stores.redis.fencing import ledger_name
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.office_reader import OfficeReader
from quota_engine.stores.redis.repair import Write, writes_between
from quota_engine.stores.redis.retrying_calls import Call, RetryPause, run_blocking
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import RECONCILE, Script

WRITES_MAX: Final = 1000
"""Writes of one script that repairs. The server does nothing else meanwhile."""
LEASE_MS: Final = 60_000
"""A client that has not written for this time counts as dead. Each record of the office adds a quarter of a
millisecond.
"""
ROUNDS_MAX: Final = 4
"""Reads of one ledger: to find what to repair, to check that nothing is left, and to restore events."""

_log = logging.getLogger("quota_engine")


class Reconciler:
    """Reconciles the offices of one store, and opens its other ledgers."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._token = os.urandom(8).hex()
        """Identifies this client, which may resume its own reconciliation after an error."""

    def reconcile(self, handle: LedgerHandle, events: tuple[RecordedEvent, ...]) -> Call[Reconciliation]:
        """Reconcile an office, or open another ledger, even if it is open; wait while another client does.

        Raises:
            InvalidRequest: The events do not follow on those of the ledger, or the ledger is of a kind without events.
            BackendUnavailable: Another client reconciles the office for longer than the attempts last.
        """
        if events and handle.format.take_over is not None:
            raise InvalidRequest("events", f"{ledger_name(handle.address)} has none", "an office's id, or no events")
        pause_ms = self._runner.policy.pause_ms_min
        for _ in range(self._runner.policy.attempts_max):
            found = yield from self.try_reconcile(handle, force=True, events=events)
            if found is not None:
                return found
            yield RetryPause(pause_ms)
            pause_ms = min(2 * pause_ms, self._runner.policy.pause_ms_max)
        raise BackendUnavailable(
            f"another client is reconciling the office {handle.address}: call reconcile again when it has finished"
        )

    def try_reconcile(
        self, handle: LedgerHandle, *, force: bool = False, events: tuple[RecordedEvent, ...] = ()
    ) -> Call[Reconciliation | None]:
        """Repair an office and open it. A ledger of another kind is only opened.

        Args:
            handle: The ledger.
            force: True to repair it even if it is open.
            events: Events to restore, which follow on those of the ledger.

        Returns:
            The result, or ``None`` if another client, or another thread of this one, reconciles the office.
        """
        if not handle.reconciling.acquire(blocking=False):
            return None
        try:
            if handle.format.take_over is not None:
                return (yield from self._take_over(handle, handle.format.take_over, force))
            return (yield from self._reconcile(handle, force, events))
        except InvalidRequest:
            yield from self._step(handle, "leave")
            raise
        finally:
            handle.reconciling.release()

    def _reconcile(
        self, handle: LedgerHandle, force: bool, events: tuple[RecordedEvent, ...]
    ) -> Call[Reconciliation | None]:
        findings: list[str] | None = None
        repaired = 0
        for turn in range(ROUNDS_MAX):
            status, *reply = yield from self._step(handle, "begin", str(handle.seen), force or turn > 0, LEASE_MS)
            if status != "GO":
                return _not_begun(handle, status, reply)
            state = yield from self._read(handle, reply)
            if state is None:
                return None
            number = int(state[0]["number"])
            found_now, ledger, wanted, writes = yield from run_blocking(partial(_decide, handle, state, number))
            findings = found_now if findings is None else findings
            if writes and turn < ROUNDS_MAX - 1:
                for start in range(0, len(writes), WRITES_MAX):
                    part = writes[start : start + WRITES_MAX]
                    if not (yield from self._write(handle, number, part)):
                        return None
                repaired += len(writes)
                continue  # read the ledger again from the start
            restored = restore_events(wanted, number, [(one.number, one.event) for one in events])
            now_ms = yield from self._runner.latest_ms()
            corrected_by_ms = 0 if restored else correct_time(wanted, now_ms)
            added = restored + bool(corrected_by_ms)
            if added:
                # All in one script: a part of an event would be new damage.
                new = wanted.events[len(wanted.events) - added :]
                writes = yield from run_blocking(partial(writes_between, state, wanted, number, new, ledger))
                if not (yield from self._write(handle, number, writes)):
                    return None
            status, *reply = yield from self._step(handle, "open", number + added, str(handle.seen))
            if status != "OK":
                return None
            handle.record_seen(reply[0])
            found = Reconciliation(
                handle.address, handle.seen.epoch, tuple(findings), repaired, restored, corrected_by_ms
            )
            _log_result(found, is_expected=force and not (findings or repaired or added))
            return found
        raise AssertionError("the last round returns")

    def _take_over(self, handle: LedgerHandle, script: Script, force: bool) -> Call[Reconciliation]:
        """Open a ledger that has no events, and so nothing that could be recomputed."""
        before = handle.seen
        words = [str(before), str(int(force))]
        status, line, corrected_by_ms = yield from self._runner.run(script, handle.keys, words, writes=True)
        handle.record_seen(line)
        if handle.seen.epoch > before.epoch:
            level = logging.INFO if force else logging.WARNING
            _log.log(
                level,
                "%s: opened at epoch %d; another server wrote it last",
                ledger_name(handle.address),
                handle.seen.epoch,
            )
        if int(corrected_by_ms):
            _log.warning("%s: time corrected by %s ms", ledger_name(handle.address), corrected_by_ms)
        epoch = 0 if status == "EMPTY" else handle.seen.epoch
        return Reconciliation(handle.address, epoch, time_corrected_by_ms=int(corrected_by_ms))

    def _read(self, handle: LedgerHandle, begun: list[Any]) -> Call[list[Any] | None]:
        """Read the closed office part by part; returns ``None`` if another client or server has taken over.

        Args:
            handle: The office.
            begun: The reply to ``begin``: epoch, lease, server, and the first part.
        """
        _, lease, server, *part = begun
        reader = OfficeReader()
        reader.add(part)
        while reader.cursor is not None:
            words = ["read", self._token, lease, server, *reader.cursor]
            status, *part = yield from self._runner.run(RECONCILE, handle.keys, words, writes=False)
            if status != "OK":
                return None
            reader.add(part)
        return reader.state()

    def _write(self, handle: LedgerHandle, number: int, writes: Sequence[Write]) -> Call[bool]:
        """Write repairs in one script; returns False if another client has taken over."""
        words = [str(word) for write in writes for word in write]
        (status,) = yield from self._step(handle, "write", number, *words)
        return bool(status == "OK")

    def _step(self, handle: LedgerHandle, name: str, *words: str | int) -> Call[list[Any]]:
        arguments = [str(int(word)) if isinstance(word, bool) else str(word) for word in words]
        return self._runner.run(RECONCILE, handle.keys, [name, self._token, *arguments], writes=True)


def _decide(handle: LedgerHandle, state: list[Any], number: int) -> tuple[list[str], Ledger, Ledger, list[Write]]:
    """Return the findings, the ledger as it is and as it should be, and the writes between them.

    It takes about 70 µs for each reservation, so it runs beside an event loop, and not in it.
    """
    ledger = handle.format.decode_ledger(handle.address, state[:-2])
    findings, wanted = examine(ledger, from_events=len(ledger.events) == number)
    return findings, ledger, wanted, writes_between(state, wanted, number, (), ledger)


def _not_begun(handle: LedgerHandle, status: str, reply: list[Any]) -> Reconciliation | None:
    """Return the result of a reconciliation that is not needed, or ``None`` if another client is at work."""
    if status == "BUSY":
        return None
    handle.record_seen(reply[0])
    return Reconciliation(handle.address, 0 if status == "EMPTY" else handle.seen.epoch)


def _log_result(found: Reconciliation, *, is_expected: bool) -> None:
    _log.log(
        logging.INFO if is_expected else logging.WARNING,
        "the office %s: epoch %d; %d findings, %d entries repaired, %d events restored, time corrected by %d ms",
        found.address,
        found.epoch,
        len(found.findings),
        found.repaired,
        found.restored,
        found.time_corrected_by_ms,
    )
