"""Runs a store's batches: commands and questions of one ledger, behind its fence.

Everything is written once for sync and async stores. Each call is a generator of attempts and pauses (see
``retrying_calls``), which a store drives on its connections.
"""

from __future__ import annotations

__all__ = ["Executor"]

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.stores.redis.fencing import Refusal, behind_refusal, fenced_refusal
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.permissions import check_server
from quota_engine.stores.redis.reconciliation import Reconciler
from quota_engine.stores.redis.registration import OfficeList
from quota_engine.stores.redis.request_packing import ScriptKeys
from quota_engine.stores.redis.retrying_calls import Behind, Call, Fence, Fenced, RetryPause, ScriptCall
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
        self._is_fenced = runner.policy.fence is not Fence.OFF

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
        if script is handle.format.queries and len(lines) > 1:
            return self._run_distinct(script, handle, lines)
        return self.run_fenced(script, handle, handle.keys, lines, writes=script is not handle.format.queries)

    def ready_call(self, script: Script, handle: LedgerHandle, lines: list[str]) -> ScriptCall | None:
        """Return the call that :meth:`run` would make if its first attempt can be sent at once, else ``None``."""
        ledger_format = handle.format
        writes = script is not ledger_format.queries
        if self._is_fenced or not (writes or len(lines) == 1):
            return None
        shown_head = "" if writes else handle.keys[ledger_format.head]
        call = self.runner.call(script, handle.keys, lines, writes, "", shown_head)
        return call if call.is_ready() else None

    def run_fenced(
        self, script: Script, handle: LedgerHandle, keys: ScriptKeys, lines: Sequence[str], *, writes: bool
    ) -> Call[list[Any]]:
        """Run a script that checks the ledger's fence; returns its reply.

        If another server has taken over, the ledger is opened first: an office is reconciled. Without a fence the
        script runs at once.

        Raises:
            BackendUnavailable: Nothing was applied.
            OutcomeUnknown: Commands may have been applied.
        """
        if self._is_fenced:
            return self._run_behind_fence(script, handle, keys, lines, writes=writes)
        return self.runner.run(script, keys, lines, writes=writes, shown_head=handle.keys[handle.format.head])

    def _run_behind_fence(
        self, script: Script, handle: LedgerHandle, keys: ScriptKeys, lines: Sequence[str], *, writes: bool
    ) -> Call[list[Any]]:
        """See :meth:`run_fenced`."""
        policy = self.runner.policy
        shown_head = handle.keys[handle.format.head]
        is_unknown = False
        pause_ms = policy.pause_ms_min
        for _ in range(policy.attempts_max):
            try:
                fence = f"@{handle.seen}"
                reply = yield from self.runner.run(
                    script, keys, lines, writes=writes, fence=fence, shown_head=shown_head
                )
                handle.record_seen(reply.pop())
                return reply
            except Fenced as closed:
                is_unknown = is_unknown or closed.is_unknown
                is_manual = policy.fence is Fence.MANUAL
                refusal = fenced_refusal(handle.address, str(closed), needs_operator=is_manual)
                if is_manual:
                    break
            except Behind as closed:
                is_unknown = is_unknown or closed.is_unknown
                refusal = behind_refusal(handle.address, str(closed))
                break
            except BackendUnavailable as error:
                if not is_unknown:
                    raise
                refusal = Refusal(f"the store cannot be used ({error.__cause__})", "wait until it answers")
                break
            try:
                found = yield from self.reconciler.try_reconcile(handle)
            except Behind as closed:
                refusal = behind_refusal(handle.address, str(closed))
                break
            except (BackendUnavailable, OutcomeUnknown) as error:  # of the reconciliation, not of these commands
                reason = f"{refusal.reason}; opening it was not finished: {error.__cause__ or error}"
                refusal = Refusal(reason, "try again in a moment")
                break
            if found is None:  # another client is at work
                yield RetryPause(pause_ms)
                pause_ms = min(2 * pause_ms, policy.pause_ms_max)
        if is_unknown:
            raise OutcomeUnknown(
                "the command was sent and its answer was lost, so it may have been applied; "
                f"now {refusal.reason}; {refusal.remedy}, and then repeat the call with the same key"
            )
        parts = (refusal.reason, *(["nothing was applied"] if writes else []), refusal.remedy)
        raise BackendUnavailable("; ".join(parts))

    def check_not_behind(self, handle: LedgerHandle, head: Mapping[str, str]) -> None:
        """Check an office's head, for a report on an office that may be closed.

        Raises:
            BackendUnavailable: This process has seen a later epoch.
        """
        epoch, seen_epoch = int(head.get("epoch", "0")), handle.seen.epoch
        if epoch < seen_epoch:
            is_known = int("number" in head)
            raise BackendUnavailable(
                "; ".join(behind_refusal(handle.address, f"BEHIND {epoch} {seen_epoch} {is_known}"))
            )

    def _run_distinct(self, script: Script, handle: LedgerHandle, lines: list[str]) -> Call[list[Any]]:
        """Ask each question once, and give its answer to every caller that asked it."""
        distinct = list(dict.fromkeys(lines))
        replies = yield from self.run_fenced(script, handle, handle.keys, distinct, writes=False)
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
