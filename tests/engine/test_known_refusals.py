"""Stores that know refusals without a call: when an engine asks them, and through which wrappers."""

from __future__ import annotations

from typing import Any

import pytest

from quota_engine import AsyncQuotaEngine, Outcome, QuotaEngine, Status
from quota_engine.admission import ConstantPolicy, deny
from quota_engine.catalog import Catalog
from quota_engine.clocks import ManualClock
from quota_engine.domain.commands import Reserve
from quota_engine.engine.bounded_store import AsyncTimeoutStore, TimeoutStore
from quota_engine.ports import ReserveKind
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.multi_office import ANI, BUDI, DAY, KEY, nation

REFUSED = Outcome(Status.SOLD_OUT)
CLOCK = ManualClock.at("2026-12-05T08:00:00+07:00")


class RefusingStore(MemoryStore):
    """Refuses each reserve while ``refuses`` is set, and notes each question."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.refuses = True
        self.asked: list[tuple[str, ReserveKind, str, tuple[str, ...]]] = []
        self.applied: list[Any] = []

    def known_refusal(self, address: str, kind: ReserveKind, id_: str, applicants: tuple[str, ...]) -> Outcome | None:
        self.asked.append((address, kind, id_, applicants))
        return REFUSED if self.refuses else None

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        self.applied.append(command)
        return super().apply(address, command, ends_at_ms=ends_at_ms)


class AsyncRefusingStore(AsyncMemoryStore):
    """The same for asyncio."""

    def __init__(self, store: RefusingStore) -> None:
        super().__init__(store)
        self.known_refusal = store.known_refusal


def builder(catalog: Catalog | None = None) -> RequestBuilder:
    return RequestBuilder(KEY, catalog or nation(national=False))


@pytest.fixture
def store() -> RefusingStore:
    return RefusingStore()


@pytest.fixture
def engine(store: RefusingStore) -> QuotaEngine:
    engine = QuotaEngine(store, builder(), clock=CLOCK)
    engine.publish(nation(national=False), DAY)
    return engine


def kind_of(command: Reserve) -> ReserveKind:
    return id(command.choice), command.day, len(command.applicants), command.join_wait_list


@pytest.mark.parametrize("applicants", [ANI, [ANI], [ANI, BUDI]], ids=["one", "list of one", "party"])
@pytest.mark.parametrize("wait", [False, True])
def test_a_store_is_asked_about_the_command_that_it_would_get(
    engine: QuotaEngine, store: RefusingStore, applicants: Any, wait: bool
) -> None:
    store.applied.clear()
    for refuses in (True, False):
        store.refuses = refuses
        outcome = engine.reserve("east", DAY, applicants, idempotency_key="k", join_wait_list=wait)
        assert (outcome is REFUSED) == refuses
    (command,) = store.applied
    assert store.asked == [("east", kind_of(command), "k", command.applicants)] * 2


def test_wrappers_pass_the_question_on(store: RefusingStore, engine: QuotaEngine) -> None:
    bounded = engine.with_timeout(1_000).with_timeout(5_000)
    slow = QuotaEngine(TimeoutStore(store, 1_000), builder(), clock=CLOCK)
    for one in (bounded, slow):
        assert one.reserve("east", DAY, ANI) is REFUSED
    plain = QuotaEngine(TimeoutStore(MemoryStore(CLOCK), 1_000), builder(), clock=CLOCK)
    assert plain.with_timeout(1_000).reserve("east", DAY, ANI).status is Status.UNKNOWN_DAY


async def test_asyncio(store: RefusingStore, engine: QuotaEngine) -> None:
    plain = AsyncQuotaEngine(AsyncRefusingStore(store), builder(), clock=CLOCK)
    slow = AsyncQuotaEngine(AsyncTimeoutStore(AsyncRefusingStore(store), 1_000), builder(), clock=CLOCK)
    for one in (plain, plain.with_timeout(1_000), slow):
        assert await one.reserve("east", DAY, ANI) is REFUSED
        store.refuses = False
        assert (await one.reserve("east", DAY, ANI, idempotency_key="k")).ok
        store.refuses = True


async def test_policies_and_national_claims_precede_it(store: RefusingStore, engine: QuotaEngine) -> None:
    """A policy may refuse before, and a national claim of the applicant is another outcome than ``SOLD_OUT``."""
    requests = builder()
    gate = AdmissionGate(ConstantPolicy("closed", deny("closed")), None, CLOCK, requests.opens_at_ms)
    assert QuotaEngine(store, requests, gate).reserve("east", DAY, ANI).status is Status.NOT_ADMITTED
    asynchronous = AsyncQuotaEngine(AsyncRefusingStore(store), requests, gate)
    assert (await asynchronous.reserve("east", DAY, ANI)).status is Status.NOT_ADMITTED
    national = QuotaEngine(store, builder(nation(national=True)), clock=CLOCK)
    assert national.reserve("east", DAY, ANI).status is Status.HELD
    assert national.reserve("west", DAY, ANI).status is Status.IDENTITY_LIMIT
    assert store.asked == []
