"""Three small offices with a national limit, and workflows that run step by step or stop half way."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from quota_engine.catalog import Catalog, Selection, catalog_from, day_terms
from quota_engine.clocks import ManualClock
from quota_engine.domain.commands import Confirm
from quota_engine.domain.cross_office_registry import FindClaims, MoveEntry, shard_of, shards
from quota_engine.domain.lifecycle import State
from quota_engine.domain.model import Reservation
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.generators import Request
from quota_engine.ports import Describe, Lookup, Query, Store
from quota_engine.stores.memory import MemoryStore
from quota_engine.workflows import entries, national_claims, office_moves, party_changes
from quota_engine.workflows.admission_gate import CallAdmission
from quota_engine.workflows.generator_drivers import Workflow, execute, run
from quota_engine.workflows.jobs import JobRequest
from quota_engine.workflows.national_claims import CLOCKS_MARGIN_MS
from quota_engine.workflows.office_moves import MOVE_LEASE_MS
from quota_engine.workflows.request_builder import RequestBuilder

DAY = datetime.date(2026, 12, 7)
NEXT_DAY = datetime.date(2026, 12, 8)
OFFICES = ("east", "north", "west")
KEY = b"a key for tests, and only them"
HOLD_TTL_MS = 600_000
ANI, BUDI, CITRA = "3578012345678901", "3578012345678902", "3578012345678903"
ANY_SELECTION = Selection()
LEASE_MS = 20_000
NO_ADMISSION = CallAdmission(None, ("", "", ""), "")
"""The admission of a call to an engine without policies."""
ACTIVE = (State.WAITING, State.HELD, State.CONFIRMED, State.ATTENDED, State.NO_SHOW)


def nation(*, national: bool, places: int = 3, **rules: object) -> Catalog:
    """Return a catalog of offices with an identity limit of five, so that only the national limit allows one."""
    raw: dict[str, Any] = {
        "services": [{"id": "new"}],
        "schedules": [{"id": "weekly", "kind": "weekly", "weekday": "friday", "at": "14:00", "zone": "Asia/Jakarta"}],
        "rules": {
            "identity_limits": [{"places_max": 5, "span_days": 0}],
            "hold_ttl_s": HOLD_TTL_MS // 1000,
            "reschedules_max": 3,
            **rules,
        },
        "plans": [
            {
                "id": "plan",
                "allotments": [
                    {"id": "online", "capacity": places, "re_release": {"rule": "wait_list"}},
                ],
            }
        ],
        "offices": [{"id": name, "name": name, "time_zone": "Asia/Jakarta"} for name in OFFICES],
    }
    if national:
        raw["national"] = {"places_max": 1}
    return catalog_from(raw)


class Nation:
    """Three open offices on a store, by default in memory, with a manual clock."""

    def __init__(
        self,
        *,
        national: bool = True,
        places: int = 3,
        open_store: Callable[[ManualClock], Store] = MemoryStore,
        **rules: object,
    ) -> None:
        self.catalog = nation(national=national, places=places, **rules)
        terms = day_terms(self.catalog, "east", DAY)
        assert terms is not None
        self.terms = terms
        self.clock = ManualClock(terms.opens_at_ms)
        self.backend: Store = open_store(self.clock)
        ids = iter(f"made-up-{number}" for number in range(10**6))
        self.requests = RequestBuilder(KEY, self.catalog, lambda: next(ids))
        self.engine = QuotaEngine(self.backend, self.requests)
        self.engine.publish(self.catalog, DAY, NEXT_DAY)

    def lookup(self, reference: str) -> Reservation:
        """Return the record, which must exist."""
        office, _, reservation_id = reference.partition("~")
        record = self.backend.execute(Lookup(office, reservation_id))
        assert record is not None, reference
        return record

    def active(self) -> list[Reservation]:
        """Return all reservations that take a place now."""
        found: list[Reservation] = []
        for office in OFFICES:
            for reservation_id in self.backend.execute(Describe(office))["reservations"]:
                record = self.lookup(f"{office}~{reservation_id}")
                if record.state in ACTIVE:
                    found.append(record)
        return found

    def moves(self) -> list[MoveEntry]:
        """Return all moves of the registry, done or open."""
        office_moves: list[MoveEntry] = []
        for shard in shards():
            state = self.backend.execute(Describe(shard))
            office_moves += [MoveEntry(**entry) for entry in state["moves"].values()]
        return office_moves

    def claimed(self, identity: str) -> str:
        """Return the reservation that an identity's claim points to."""
        applicant = self.requests.owner_hash(identity)
        (reference,) = self.backend.execute(Query(shard_of(applicant), FindClaims((applicant,)))).references
        return str(reference)

    def check(self) -> None:
        """Check that every office is consistent and every active reservation claimed."""
        assert self.engine.audit().findings == ()


class SteppedWorkflow:
    """A workflow that runs one step at a time."""

    def __init__(self, workflow: Workflow[Any] | Request[Any], backend: Store) -> None:
        self._flow = execute(workflow) if isinstance(workflow, Request) else workflow
        self._backend = backend
        self._request: Any = None
        self.result: Any = None
        self.is_done = False
        self.steps = 0
        self._advance(None)

    def _advance(self, answer: Any) -> None:
        try:
            self._request = self._flow.send(answer)
            while isinstance(self._request, JobRequest):  # about the caller's own time: no step between processes
                self._request = self._flow.send(None)
        except StopIteration as end:
            self.result, self.is_done = end.value, True

    def step(self) -> None:
        """Answer the next request, and run the workflow to the one after it."""
        assert not self.is_done
        self.steps += 1
        self._advance(run(self._request, self._backend))

    def run(self, steps_max: int = 1_000) -> Any:
        """Take up to ``steps_max`` steps, and return the result."""
        for _ in range(steps_max):
            if self.is_done:
                break
            self.step()
        return self.result

    def abandon(self) -> None:
        """Abandon the workflow, as a dead client does."""
        self._flow.close()


class RandomInterleaving:
    """Workflows of all kinds, interleaved at random, late or abandoned, with a clock that jumps. Checks each step."""

    def __init__(self, seed: int, open_store: Callable[[ManualClock], Store] = MemoryStore) -> None:
        self.random = Random(seed)
        self.seed = seed
        places = self.random.choice((1, 2, 4, 20))
        self.nation = Nation(places=places, open_store=open_store, reschedules_max=900)
        self.results: list[object] = []
        """Results of the finished workflows, in that order."""

    def run(self, turns: int) -> None:
        """Take ``turns`` random turns, then finish every workflow."""
        nation, random = self.nation, self.random
        workflows: list[SteppedWorkflow] = []
        for _ in range(turns):
            if len(workflows) < 6 and random.random() < 0.5:
                workflows.append(self.begin())
            elif workflows:
                workflow = random.choice(workflows)
                if random.random() < 0.03:
                    workflow.abandon()
                    workflows.remove(workflow)
                else:
                    workflow.step()
            for workflow in [one for one in workflows if one.is_done]:
                self.results.append(workflow.result)
                workflows.remove(workflow)
            if self.seed % 2:  # with even seeds, all workflows meet within their leases
                jumps_ms = (1, 1_000, LEASE_MS - CLOCKS_MARGIN_MS, LEASE_MS, MOVE_LEASE_MS, HOLD_TTL_MS)
                nation.clock.advance_ms(random.choice((0,) * 12 + jumps_ms))
            self.check()
        for workflow in workflows:
            self.results.append(workflow.run())
            self.check()
        nation.clock.advance_ms(MOVE_LEASE_MS)
        self.results.append(nation.engine.recover_moves())
        assert max(Counter(who for one in nation.active() for who in one.applicants).values(), default=0) <= 1
        assert [one for one in nation.moves() if not one.done] == []
        nation.check()

    def begin(self) -> SteppedWorkflow:
        """Start a random workflow, about an existing reservation if there is one."""
        nation, random = self.nation, self.random
        requests, office, day = nation.requests, random.choice(OFFICES), random.choice((DAY, NEXT_DAY))
        records = [
            nation.lookup(f"{name}~{one}")
            for name in OFFICES
            for one in nation.backend.execute(Describe(name))["reservations"]
        ]
        record = random.choice(records) if records else None
        kind = random.randrange(12)
        if record is None or kind < 4:
            party = random.choice(([ANI], [BUDI], [ANI], [ANI, BUDI], [BUDI, ANI, CITRA]))
            key = random.choice(("k1", "k2", None, None))
            command = requests.reserve(
                office, day, party, ANY_SELECTION, key, random.random() < 0.3, random.choice((0, 0, 10_000))
            )
            return SteppedWorkflow(national_claims.reserve(requests, office, command), nation.backend)
        if kind == 4:
            workflow: Workflow[Any] | Request[Any] = entries.confirm(
                requests, NO_ADMISSION, record.office, Confirm(record.id, reacquire=True)
            )
        elif kind == 5:
            workflow = office_moves.reschedule(
                requests, NO_ADMISSION, record.reference, day, "", ANY_SELECTION, None, 0
            )
        elif kind < 8:
            workflow = office_moves.reschedule(
                requests, NO_ADMISSION, record.reference, day, office, ANY_SELECTION, None, 0
            )
        elif kind == 8:
            workflow = office_moves.recover_moves(requests, 0, 10)
        elif kind == 9:
            workflow = party_changes.remove_applicant(
                requests, record.reference, random.choice((ANI, BUDI, CITRA)), None, 0
            )
        elif kind == 10:
            leaving, newcomer = random.sample((ANI, BUDI, CITRA), 2)
            workflow = party_changes.replace_applicant(requests, record.reference, leaving, newcomer, 0)
        else:
            step = random.choice((nation.engine.confirm, nation.engine.release, nation.engine.cancel))
            self.results.append(step(record.reference))
            workflow = office_moves.find_moved(requests, record.reference)
        return SteppedWorkflow(workflow, nation.backend)

    def check(self) -> None:
        """Check that no applicant has two places, except the target of an open move."""
        target_of = {one.source: one.target for one in self.nation.moves() if not one.done}
        active = self.nation.active()
        references = {one.reference for one in active}
        counted = [one for one in active if target_of.get(one.reference, "") not in references]
        places = Counter(who for one in counted for who in one.applicants)
        assert max(places.values(), default=0) <= 1, f"seed {self.seed}: {[one.reference for one in counted]}"
