"""Runs scripts and plain commands with the retries of a policy."""

from __future__ import annotations

__all__ = ["ScriptRunner", "pairs"]

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from quota_engine.clocks import monotonic_ms
from quota_engine.ports import Clock
from quota_engine.stores.redis.keys import identity_key_key, offices_key
from quota_engine.stores.redis.ledger_handle import LedgerHandle
from quota_engine.stores.redis.office_reader import OfficeReader
from quota_engine.stores.redis.request_packing import ScriptKeys
from quota_engine.stores.redis.retrying_calls import (
    Call,
    Header,
    RetryPolicy,
    Router,
    ScriptCall,
    call_plain,
    call_script,
)
from quota_engine.stores.redis.scripts import Script
from quota_engine.stores.redis.server_clock import LastMoment, ServerClocks

HANDLES_MAX: Final = 10_000
"""As many ledgers as a catalog may have offices."""
READINGS_MAX: Final = 3
"""Readings of an office in parts. A busy and large office changes during each of them."""


class ScriptRunner:
    """Makes the calls of one store. It holds no connection: a driver runs the generators that it returns.

    Attributes:
        policy: Retries and acknowledgment of calls.
        offices_key: The key of the list of offices.
        identity_key_key: The key of the identity key's fingerprint.
        uses_functions: True to run scripts as functions. A check of the server may turn it off.
        handles: The handles of ledgers by address. :meth:`handle` adds them.
    """

    def __init__(
        self,
        clock: Clock | None,
        policy: RetryPolicy,
        namespace: str,
        router: Router,
        monotonic: Callable[[], float] = monotonic_ms,
        second_clock: Clock | None = None,
    ) -> None:
        """
        Args:
            clock: Source of the time of commands; ``None`` is the server's time.
            policy: Retries and acknowledgment of calls.
            namespace: Precedes all keys.
            router: Finds the server of a key.
            monotonic: This process's monotonic clock in milliseconds, which counts the time that an attempt has.
            second_clock: This process's own clock, against which the server's time is checked; ``None`` trusts the
                server.
        """
        self.policy = policy
        self.uses_functions = policy.functions
        self.offices_key = offices_key(namespace)
        self.identity_key_key = identity_key_key(namespace)
        self._clock = clock
        self._second_clock = second_clock if clock is None else None
        self._clock_leap_text = f":{policy.clock_leap_max_ms}"
        self._namespace = namespace
        self._router = router
        self._clocks = ServerClocks(monotonic)
        self.handles: dict[str, LedgerHandle] = {}

    def handle(self, address: str) -> LedgerHandle:
        """Return the handle of the ledger at an address."""
        handle = self.handles.get(address)
        if handle is None:
            if len(self.handles) >= HANDLES_MAX:
                self.handles.clear()
            handle = self.handles[address] = LedgerHandle(address, self._namespace)
        return handle

    def forget_handles(self) -> None:
        """Forget what is known of the ledgers, and the locks of their handles."""
        self.handles = {}

    def run(
        self,
        script: Script,
        keys: ScriptKeys,
        lines: Sequence[str],
        *,
        writes: bool,
        fence: str = "",
        shown_head: str = "",
    ) -> Call[list[Any]]:
        """Run a script with the time and these lines; returns its reply. Arguments as for :meth:`call`."""
        return self.call(script, keys, lines, writes, fence, shown_head).steps()

    def call(
        self, script: Script, keys: ScriptKeys, lines: Sequence[str], writes: bool, fence: str, shown_head: str
    ) -> ScriptCall:
        """Return a call that runs a script with the time and these lines.

        Args:
            script: The script.
            keys: The keys that it declares.
            lines: The arguments after the time.
            writes: True if it may change something. A reply that is lost is then an unknown outcome.
            fence: ``@`` and the fence as it was seen last, to check the ledger's fence, or ``""``.
            shown_head: For a question: the head of the ledger that it shows, to wait for the policy's replicas.
        """
        policy = self.policy
        now = "" if self._clock is None else str(self._clock.now_ms())
        if writes and policy.replicas:
            now += "+"  # makes the script write in any case: WAIT does not wait after a replay that wrote nothing
        last_moment = LastMoment(self._clocks, policy.attempt_valid_ms) if writes else None
        header = Header(now, fence, self._witness())
        return ScriptCall(
            script, keys, header, lines, policy, self._router, last_moment, shown_head, self.uses_functions
        )

    def read_state(self, handle: LedgerHandle) -> Call[list[Any]]:
        """Read all that is stored of a ledger; returns the replies of its state script, hashes as dictionaries.

        An office is read in parts, so that the server answers others in between. If the office changes meanwhile, the
        reading begins again, a limited number of times. Then, one script reads the whole office.
        """
        ledger_format = handle.format
        if ledger_format.parts is not None:
            for _ in range(READINGS_MAX):
                state = yield from self._read_in_parts(handle, ledger_format.parts)
                if state is not None:
                    return state
        replies = yield from call_script(
            ledger_format.state, handle.keys, Header(), (), self.policy, self._router, self._clocks, writes=False
        )
        return [pairs(one) if index in ledger_format.hash_indexes else one for index, one in enumerate(replies)]

    def _read_in_parts(self, handle: LedgerHandle, script: Script) -> Call[list[Any] | None]:
        """Read an office in parts; returns ``None`` if it has changed meanwhile."""
        reader, revision = OfficeReader(), ""
        while reader.cursor is not None:
            words = [revision, *reader.cursor]
            revision, *part = yield from call_script(
                script, handle.keys, Header(), words, self.policy, self._router, self._clocks, writes=False
            )
            if not part:
                return None
            reader.add(part)
        return reader.state()[:-2]

    def run_plain(
        self, *commands: Sequence[str | int], key: str, attempts_max: int = 0, waits: bool = False
    ) -> Call[list[Any]]:
        """Run plain commands on the server of ``key``; returns their replies. See :func:`retrying_calls.call_plain`.

        Args:
            commands: Each command as words.
            key: A key that decides the server.
            attempts_max: Attempts of this call; 0 stands for those of the policy.
            waits: True to wait until the policy's replicas have what the commands wrote.
        """
        policy = self.policy
        if attempts_max:
            policy = msgspec.structs.replace(policy, attempts_max=attempts_max)
        return call_plain(commands, policy, self._router, key, waits=waits)

    def run_query(
        self, script: Script, handle: LedgerHandle, lines: Sequence[str], attempts_max: int
    ) -> Call[list[Any]]:
        """Run a script that only reads, with a limit of attempts; returns its reply.

        It serves the sold-out cache, which only refuses. So it checks no fence and waits for no replicas.
        """
        policy = msgspec.structs.replace(self.policy, attempts_max=attempts_max)
        now = "" if self._clock is None else str(self._clock.now_ms())
        header = Header(now, "", self._witness())
        return call_script(script, handle.keys, header, lines, policy, self._router, self._clocks, writes=False)

    def _witness(self) -> str:
        """Return the part of a header that lets a script check the server's clock."""
        if self._second_clock is None:
            return ""
        return f"={self._second_clock.now_ms()}{self._clock_leap_text}"

    def latest_ms(self) -> Call[int]:
        """Return the later of :meth:`now_ms` and the time of this process's own clock."""
        now_ms = yield from self.now_ms()
        return now_ms if self._second_clock is None else max(now_ms, self._second_clock.now_ms())

    def now_ms(self) -> Call[int]:
        """Return the time of the injected clock, or else the server's, in milliseconds since 1970."""
        if self._clock is not None:
            return self._clock.now_ms()
        ((seconds, microseconds),) = yield from self.run_plain(("TIME",), key=self.offices_key)
        return int(seconds) * 1000 + int(microseconds) // 1000


def pairs(reply: Any) -> dict[str, str]:
    """Return a hash as a dictionary, from the reply of either protocol version."""
    if isinstance(reply, dict):
        return reply
    return dict(zip(reply[::2], reply[1::2], strict=True))
