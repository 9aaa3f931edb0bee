"""Runs a store's batches: commands and questions of one ledger, behind its fence.

Everything is written once for sync and async stores. Each call is a generator of attempts and pauses (see
``retrying_calls``), which a store drives on its connections.
"""

from __future__ import annotations

__all__ = ["Executor"]

from collections.abc import Callable
from typing import Any

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.redis.ledger_formats import OFFICE
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.permissions import check_server
from quota_engine.stores.redis.reconciliation import Reconciler
from quota_engine.stores.redis.registration import OfficeList
from quota_engine.stores.redis.retrying_calls import Call, Fence, Fenced, RetryPause
from quota_engine.stores.redis.script_runner import ScriptRunner
from quota_engine.stores.redis.scripts import OFFICE_QUERIES, Script
from quota_engine.stores.redis.sold_out_cache import RefreshQuery, SoldOutCache

_REFRESH_ATTEMPTS_MAX = 2
"""As many as one redirection takes. A late reply is useless, because the cache's bound counts from the query."""


class Executor:
    """Turns batches into calls, and reply lines into outcomes. It holds no connection.

    Attributes:
        runner: Runs scripts and plain commands.
        offices: The list of offices that have a ledger.
        reconciler: Reconciles offices after a failover.
    """

    def __init__(self, runner: ScriptRunner, sold_out_cache: SoldOutCache) -> None:
        self.runner = runner
        self.offices = OfficeList(runner)
        self.reconciler = Reconciler(runner)
        self._sold_out_cache = sold_out_cache

    def handle(self, address: str) -> LedgerHandle:
        """Return the handle of the ledger at an address."""
        return self.runner.handle(address)

    def check_server(self) -> Call[None]:
        """Check version, permissions and durability of the server; see :func:`permissions.check_server`."""
        return check_server(self.runner)

    def run(self, script: Script, handle: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Run a script on a ledger; returns a reply line for each line.

        Raises:
            BackendUnavailable: No command was applied.
            OutcomeUnknown: Commands may have been applied.
        """
        writes = script is not handle.format.queries
        if writes and handle.format is OFFICE and self.runner.policy.fence is not Fence.OFF:
            return self._run_fenced(script, handle, lines)
        if writes or len(lines) == 1:
            return self.runner.run(script, handle.keys, lines, writes=writes)
        return self._run_distinct(script, handle, lines)

    def _run_fenced(self, script: Script, handle: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Apply commands to an office; reconcile it first if another server has taken over."""
        policy = self.runner.policy
        is_unknown = False
        pause_ms = policy.pause_ms_min
        for _ in range(policy.attempts_max):
            try:
                reply = yield from self.runner.run(script, handle.keys, lines, writes=True, fence=f"@{handle.seen}")
                handle.record_epoch(reply.pop())
                return reply
            except Fenced as fenced:
                is_unknown = is_unknown or fenced.is_unknown
                problem = f"the office {handle.address} is closed: {fenced}"
                if policy.fence is Fence.MANUAL:
                    problem += "; call reconcile to open it"
                    break
            except BackendUnavailable as error:
                problem = str(error)
                break
            try:
                found = yield from self.reconciler.try_reconcile(handle)
            except (BackendUnavailable, OutcomeUnknown) as error:  # of the reconciliation, not of these commands
                problem = f"the office {handle.address} is closed and its reconciliation failed: {error}"
                break
            if found is None:  # another client is at work
                yield RetryPause(pause_ms)
                pause_ms = min(2 * pause_ms, policy.pause_ms_max)
        if is_unknown:
            raise OutcomeUnknown(f"the store's answer was lost; repeat the call with the same key ({problem})")
        raise BackendUnavailable(problem)

    def _run_distinct(self, script: Script, handle: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Ask each question once, and give its answer to every caller that asked it."""
        distinct = list(dict.fromkeys(lines))
        replies = yield from self.runner.run(script, handle.keys, distinct, writes=False)
        reply_to = dict(zip(distinct, replies, strict=True))
        return [reply_to[line] for line in lines]

    def decoder_of(self, handle: LedgerHandle, script: Script) -> Callable[[Any, str], Any]:
        """Return the function that makes a result from a command or question and its reply line."""
        decoder: Callable[[Any, str], Any] = (
            handle.decoder.answer if script is handle.format.queries else handle.decoder.outcome
        )
        return decoder

    def overloaded(self, handle: LedgerHandle, script: Script) -> Any:
        """Return the outcome of a command that finds the ledger's queue full.

        Raises:
            BackendUnavailable: The call is a question, which has no such outcome.
        """
        if script is handle.format.queries:
            raise BackendUnavailable(
                f"too many questions to {handle.address or 'the ledger'} are queued: ask again in a moment"
            )
        return handle.format.overloaded

    def abandoned_error(self, handle: LedgerHandle, script: Script) -> type[Exception]:
        """Return the error of a call whose sender was interrupted."""
        return BackendUnavailable if script is handle.format.queries else OutcomeUnknown

    def refresh_sold_out(self, office: str) -> Call[None]:
        """Refresh what the sold-out cache knows of an office. Without a reply the cache knows nothing more."""
        cache = self._sold_out_cache
        query = cache.begin_refresh(office)
        if query is None:
            return
        is_unavailable = True
        current: RefreshQuery | None = query
        try:
            handle = self.handle(office)
            while current is not None:
                lines = yield from self.runner.run_query(OFFICE_QUERIES, handle, current.lines, _REFRESH_ATTEMPTS_MAX)
                current = cache.apply_reply(current, lines)
            is_unavailable = False
        except BackendUnavailable:
            pass
        finally:
            cache.end_refresh(query, is_unavailable=is_unavailable)
