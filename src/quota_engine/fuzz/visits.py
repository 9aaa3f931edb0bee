"""Applicants who visit three offices with a national limit, through the engine and its workflows.

A visit reserves, moves, confirms, cancels. It is drawn from its own seed, so that a process that died repeats the same
visit with the same keys. Operators change capacities, and other calls finish moves whose process died.
"""

from __future__ import annotations

__all__ = ["VISITS_BEGIN_AT_MS", "VisitWorld", "insist"]

import asyncio
import datetime
import functools
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any, Final

from quota_engine.catalog import Catalog, catalog_from, day_terms
from quota_engine.domain.cross_office_registry import shards
from quota_engine.domain.errors import BackendUnavailable, OutcomeUnknown
from quota_engine.domain.lifecycle import ACTIVE, State
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.engine.quota_engine import AsyncQuotaEngine
from quota_engine.fuzz.faults import FaultSource, late_delay_ms
from quota_engine.fuzz.reference import Reference
from quota_engine.fuzz.schedule import Operation
from quota_engine.workflows.request_builder import RequestBuilder

OFFICES: Final = ("east", "north", "west")
DAYS: Final = (datetime.date(2026, 12, 7), datetime.date(2026, 12, 8))
_KEY: Final = b"a key for simulations, and only them"
_IDENTITIES: Final = 8
_HOLD_TTL_S: Final = 60
_REPETITIONS_MAX: Final = 4
_EXPIRE_ROUNDS_MAX: Final = 40
_MOVE_LEASE_MS: Final = 31_000


@functools.cache
def _catalog(national: bool, places: int) -> Catalog:
    raw: dict[str, Any] = {
        "services": [{"id": "new"}],
        "schedules": [{"id": "weekly", "kind": "weekly", "weekday": "friday", "at": "14:00", "zone": "Asia/Jakarta"}],
        "rules": {
            "identity_limits": [{"places_max": 5, "span_days": 0}],
            "hold_ttl_s": _HOLD_TTL_S,
            "offer_ttl_s": _HOLD_TTL_S,
            "reschedules_max": 9,
        },
        "plans": [
            {
                "id": "plan",
                "allotments": [{"id": "online", "capacity": places, "re_release": {"rule": "wait_list"}}],
            }
        ],
        "offices": [{"id": name, "name": name, "time_zone": "Asia/Jakarta"} for name in OFFICES],
    }
    if national:
        raw["national"] = {"places_max": 1}
    return catalog_from(raw)


def _opens_at_ms() -> int:
    terms = day_terms(_catalog(True, 1), OFFICES[0], DAYS[0])
    assert terms is not None
    return terms.opens_at_ms


VISITS_BEGIN_AT_MS: Final = _opens_at_ms()
"""The store's clock at the beginning of a run with visits, in milliseconds since 1970."""


class VisitWorld:
    """The visits of a run, and what their callers know.

    Attributes:
        confirmed: by key of a visit, the reference of the place that its caller knows as confirmed.
    """

    def __init__(self, seed: int, violations: list[str]) -> None:
        random = Random(f"quota_engine fuzz visits {seed}")
        self.confirmed: dict[str, str] = {}
        self._national = random.random() < 0.7
        self._catalog = _catalog(self._national, random.choice((1, 2, 5)))
        self._requests = RequestBuilder(_KEY, self._catalog, lambda: "unused")
        self._violations = violations
        self._calls = 0

    def engine(self, store: Any) -> AsyncQuotaEngine:
        """Return an engine on a store."""
        return AsyncQuotaEngine(store, self._requests)

    async def publish(self, store: Any) -> None:
        """Publish the days of all offices."""
        await self.engine(store).publish(self._catalog, *DAYS)

    async def execute(self, store: Any, faults: FaultSource, operation: Operation) -> int:
        """Make a visit, or do an operator's work; returns the number of calls."""
        random = Random(operation.request)
        work = _Work(self.engine(store), faults, self, random)
        kind, _, number = operation.request.split()
        if kind == "visit":
            await work.visit(f"v{number}", f"35780123456789{int(number) % _IDENTITIES:02}")
        elif kind == "recover":
            await work.call(lambda: work.engine.recover_moves())
        else:
            await work.operate()
        return work.calls

    async def rest(self, store: Any) -> None:
        """Finish all moves, and let all holds expire."""
        engine = self.engine(store)
        await asyncio.sleep((_MOVE_LEASE_MS + 1000 * _HOLD_TTL_S) / 1000)
        for _ in range(3):
            await insist(engine.recover_moves)
            for office in OFFICES:
                for day in DAYS:
                    for _ in range(_EXPIRE_ROUNDS_MAX):
                        if not (await insist(partial(engine.expire, office, day))).units:
                            break
                    else:
                        self._violations.append(f"{office}: the sweep of day {day} has not ended")
            await asyncio.sleep(2 * _MOVE_LEASE_MS / 1000)
        for key, reference in sorted(self.confirmed.items()):
            found = await insist(partial(engine.find_moved, reference)) or reference
            record = await insist(partial(engine.lookup, found))
            if record is None or record.state is not State.CONFIRMED:
                state = "unknown" if record is None else record.state
                self._violations.append(f"visit {key}: the confirmed place {reference} is {state}")

    def findings(self, reference: Reference) -> list[str]:
        """Return what should not be so at the end."""
        found = []
        places: dict[str, list[str]] = {}
        for office in OFFICES:
            for record in reference.ledger(office).reservations.values():
                if record.state is State.HELD and not record.wait_list_number:
                    found.append(f"the hold {record.reference} has not ended")
                if record.state in ACTIVE:
                    for applicant in record.applicants:
                        places.setdefault(applicant, []).append(record.reference)
        if self._national:
            found += [
                f"one applicant has the places {', '.join(references)}"
                for references in places.values()
                if len(references) > 1
            ]
        for shard in shards():
            moves = reference.ledger(shard).moves
            found += [f"the move {one} has not ended" for one in moves.values() if not getattr(one, "done", True)]
        return found


async def insist(make: Callable[[], Awaitable[Any]]) -> Any:
    """Make a call until it has an answer: the first calls after the faults may still find a closed ledger.

    Raises:
        BackendUnavailable: It has none after a minute.
    """
    for _ in range(60):
        try:
            return await make()
        except (BackendUnavailable, OutcomeUnknown):
            await asyncio.sleep(1)
    return await make()


class _Work:
    """The calls of one visit."""

    def __init__(self, engine: AsyncQuotaEngine, faults: FaultSource, world: VisitWorld, random: Random) -> None:
        self.engine = engine
        self.calls = 0
        self._faults = faults
        self._world = world
        self._random = random

    async def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call, and repeat it while its outcome is unknown; returns ``None`` if it stays so."""
        for _ in range(_REPETITIONS_MAX):
            self.calls += 1
            task = asyncio.ensure_future(_awaited(make()))
            if self._faults.happens("cancelled"):
                asyncio.get_running_loop().call_later(late_delay_ms(self._faults.random) / 1000, task.cancel)
            try:
                return await task
            except (BackendUnavailable, OutcomeUnknown):
                continue
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    task.cancel()
                    raise
                continue
        return None

    async def pause(self, ms_max: int) -> None:
        """Wait a while."""
        await asyncio.sleep(self._random.uniform(0, ms_max) / 1000)

    async def visit(self, key: str, identity: str) -> None:
        """Reserve, and then some of: move, confirm in time or too late, move again, cancel or release."""
        engine, random, confirmed = self.engine, self._random, self._world.confirmed
        office, other = random.sample(OFFICES, 2)
        day, other_day = random.sample(DAYS, 2)
        waits = random.random() < 0.3
        confirmed.pop(key, None)
        outcome = await self.call(
            lambda: engine.reserve(office, day, identity, idempotency_key=key, join_wait_list=waits)
        )
        if outcome is None or outcome.reservation is None:
            return
        reference = f"{office}~{key}"
        if outcome.status is Status.WAITING:
            await self.pause(60_000)
            if random.random() < 0.5:
                await self.call(lambda: engine.release(reference))
                return
        await self.pause(3_000)
        if random.random() < 0.3:
            reference = await self._move(key, reference, other, day)
        if random.random() < 0.2:
            await self.call(lambda: engine.release(reference))
            return
        if random.random() < 0.2:
            await asyncio.sleep(_HOLD_TTL_S)
        reacquires = random.random() < 0.5
        outcome = await self.call(lambda: engine.confirm(reference, reacquire=reacquires))
        if outcome is None:
            return
        if outcome.status is Status.CONFIRMED:
            confirmed[key] = reference
        await self.pause(5_000)
        if random.random() < 0.3:
            reference = await self._move(key, reference, other if random.random() < 0.6 else "", other_day)
        if random.random() < 0.3:
            confirmed.pop(key, None)
            await self.call(lambda: engine.cancel(reference))

    async def _move(self, key: str, reference: str, office: str, day: datetime.date) -> str:
        """Move to another office or day; returns the reference from then on."""
        known = self._world.confirmed.pop(key, None)
        outcome: Outcome | None = await self.call(lambda: self.engine.reschedule(reference, day, office=office))
        if outcome is None:
            found = await self.call(lambda: self.engine.find_moved(reference))
            return found or reference
        if known is not None and (outcome.ok or outcome.status in (Status.SOLD_OUT, Status.IDENTITY_LIMIT)):
            self._world.confirmed[key] = outcome.reference if outcome.ok else reference
        return outcome.reference if outcome.ok and outcome.reference else reference

    async def operate(self) -> None:
        """Set a capacity, or close a day for a while."""
        office, day = self._random.choice(OFFICES), self._random.choice(DAYS)
        if self._random.random() < 0.5:
            units = self._random.choice((0, 1, 2, 5))
            await self.call(lambda: self.engine.set_capacity(office, day, "online", units))
            return
        await self.call(lambda: self.engine.close_day(office, day))
        await self.pause(5_000)
        for _ in range(5):
            if await self.call(lambda: self.engine.open_day(office, day)) is not None:
                return


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
