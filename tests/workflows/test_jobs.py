"""Jobs stop between two steps when their time is over, and a repeated call continues there.

Each request to the store takes a fixed time of a manual clock, so that a time-out falls at every place of a job.
"""

from __future__ import annotations

import inspect
import time
from typing import Any, TypeVar

import pytest

from quota_engine import (
    AsyncQuotaEngine,
    BackendUnavailable,
    InvalidRequest,
    JobTimeout,
    MovesReport,
    OutcomeUnknown,
    QuotaEngine,
)
from quota_engine.clocks import ManualClock, monotonic_ms
from quota_engine.generators import drive
from quota_engine.ports import Describe, ListOffices
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore
from quota_engine.workflows import day_workflows, draws, office_moves, relocation
from quota_engine.workflows.generator_drivers import Workflow, call_handlers, handler_of
from quota_engine.workflows.jobs import job
from quota_engine.workflows.office_moves import MOVE_LEASE_MS
from quota_engine.workflows.relocation import RelocationTarget
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.daily_releases import DULL, OPENS_AT_MS, RELEASE, catalog_of
from tests.support.draw_runs import CLOSES_AT_MS, KEY, NOW_MS, SEED, announced, apply_all, catalog
from tests.support.multi_office import Nation
from tests.workflows.test_office_moves import booked, moving

T = TypeVar("T")
STEP_MS = 1_000
"""Time of one request to a slow store."""


class SlowStore(MemoryStore):
    """A memory store whose requests take :data:`STEP_MS` of a manual clock. It refuses calls that end meanwhile."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.now_ms = 0.0
        self.error: type[Exception] | None = None

    def monotonic(self) -> float:
        return self.now_ms

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        outcome = super().apply(address, command)
        self._pass_time(ends_at_ms)
        return outcome

    def execute(self, request: Any, *, ends_at_ms: float | None = None) -> Any:
        answer = super().execute(request)
        self._pass_time(ends_at_ms)
        return answer

    def _pass_time(self, ends_at_ms: float | None) -> None:
        if self.error is not None:
            raise self.error("away")
        self.now_ms += STEP_MS
        if ends_at_ms is not None and ends_at_ms < self.now_ms:
            self.now_ms = ends_at_ms
            raise OutcomeUnknown("the answer did not come in time")


def run_job(work: Workflow[T], store: SlowStore, timeout_ms: int, own_timeout_ms: int | None = None) -> T:
    handlers = call_handlers(store, handler_of(store), timeout_ms, store.monotonic)
    return drive(job("the_job", own_timeout_ms, work), handlers())


def timeout_of(work: Workflow[Any], store: SlowStore, timeout_ms: int) -> JobTimeout:
    """Return the error of a job, which ends in time."""
    began_ms = store.now_ms
    with pytest.raises(JobTimeout) as caught:
        run_job(work, store, timeout_ms)
    assert store.now_ms - began_ms <= timeout_ms
    return caught.value


def result_or_timeout(work: Workflow[T], store: SlowStore, timeout_ms: int) -> T | JobTimeout:
    try:
        return run_job(work, store, timeout_ms)
    except JobTimeout as error:
        return error


def days_of(store: MemoryStore) -> dict[str, int]:
    """Return the number of published days of each office."""
    return {name: len(store.execute(Describe(name))["days"]) for name in MemoryStore.execute(store, ListOffices())}


class TestPublish:
    """A step is an office."""

    def publish(self, store: SlowStore, **named: Any) -> Workflow[Any]:
        catalog = catalog_of()
        return day_workflows.publish(RequestBuilder(KEY, catalog), catalog, DULL, RELEASE, **named)

    def test_it_stops_between_two_offices_and_resumes_with_the_others(self) -> None:
        store = SlowStore(ManualClock(OPENS_AT_MS))
        error = timeout_of(self.publish(store), store, 5 * STEP_MS)
        assert (error.job, error.timeout_ms, error.done, error.total, error.unit) == ("the_job", 5_000, 1, 2, "offices")
        assert (error.resume_with, error.is_cut) == ({"offices": ["west"]}, False)
        assert (error.report.offices, error.report.days_published) == (1, 2)
        assert str(error) == (
            "the_job stopped after 5000 ms with 1 of 2 offices done, and nothing is half done; "
            "call it again with the last 1 offices to continue"
        )
        assert days_of(store) == {"east": 2}
        report = run_job(self.publish(store, **error.resume_with), store, 5 * STEP_MS)
        assert (report.offices, report.days_published) == (1, 2)
        assert days_of(store) == {"east": 2, "west": 2}

    @pytest.mark.parametrize("timeout_ms", range(200, 9_000, 700))
    def test_repeated_calls_end_wherever_each_one_stops(self, timeout_ms: int) -> None:
        """A call that is too short for one office never ends; longer ones need fewer repetitions."""
        store, offices = SlowStore(ManualClock(OPENS_AT_MS)), ["east", "west"]
        for _ in range(3):
            try:
                run_job(self.publish(store, offices=offices), store, timeout_ms)
            except JobTimeout as error:
                offices = error.resume_with.get("offices", offices)
            else:
                assert days_of(store) == {"east": 2, "west": 2}
                return
        assert timeout_ms < 4 * STEP_MS


def test_an_audit_has_the_findings_so_far() -> None:
    store = SlowStore(ManualClock(OPENS_AT_MS))
    catalog = catalog_of()
    requests = RequestBuilder(KEY, catalog)
    QuotaEngine(store, requests).publish(catalog, DULL)
    store._ledgers["east"].ledger.days[DULL.toordinal()].quotas["online"].held += 1
    error = timeout_of(day_workflows.audit(requests, None), store, 2 * STEP_MS + 500)
    assert (error.done, error.total, error.report.offices) == (1, 2, 1)
    assert error.remedy == "audit office by office, or give it more time"
    assert error.report.findings == run_job(day_workflows.audit(requests, None), store, 10 * STEP_MS).findings != ()


def test_a_recovery_stops_between_two_moves() -> None:
    """Each call finishes some moves, and no move is left in the middle."""
    nation = Nation(national=False, places=9, identity_limits=[], open_store=SlowStore)
    store = nation.backend
    assert isinstance(store, SlowStore)
    for key in ("ani", "budi", "citra"):
        move = moving(nation, booked(nation, confirmed=True, key=key, applicant=f"{key} 1"))
        move.run(4)
        move.abandon()
    nation.clock.advance_ms(MOVE_LEASE_MS)
    finished, calls = 0, 0
    while finished < 3:
        calls += 1
        found = result_or_timeout(office_moves.recover_moves(nation.requests, 0, 9), store, 10 * STEP_MS)
        report = found.report if isinstance(found, JobTimeout) else found
        assert report == MovesReport(report.finished, 0)
        finished += report.finished
    assert calls > 1
    assert [one for one in nation.moves() if not one.done] == []
    nation.check()


class TestRelocateDay:
    """A step is a party. A call that has moved one party returns its report instead of an error."""

    @pytest.fixture
    def store(self) -> SlowStore:
        return SlowStore(ManualClock(OPENS_AT_MS))

    @pytest.fixture
    def engine(self, store: SlowStore) -> QuotaEngine:
        catalog = catalog_of()
        engine = QuotaEngine(store, RequestBuilder(KEY, catalog))
        engine.publish(catalog, DULL, RELEASE)
        for name in ("ani", "budi", "citra"):
            held = engine.reserve("east", DULL, name, service="new", session="morning", idempotency_key=name)
            assert engine.confirm(held.reference).ok
        return engine

    def relocate(self, engine: QuotaEngine, after: int = 0) -> Workflow[Any]:
        options: Any = {"other_sessions": False, "after": after, "limit": 100, "dry_run": False}
        target = RelocationTarget("east", RELEASE.toordinal())
        return relocation.relocate_day(engine._methods.requests, "east", DULL.toordinal(), [target], **options)

    def test_each_call_returns_the_parties_that_it_moved(self, engine: QuotaEngine, store: SlowStore) -> None:
        moved, after, calls = [], 0, 0
        while not calls or after:
            report = run_job(self.relocate(engine, after), store, 5 * STEP_MS)
            moved += [party.reference for party in report.parties]
            after, calls = report.next_after, calls + 1
        assert calls > 1
        assert moved == ["east~ani", "east~budi", "east~citra"]
        assert engine.availability("east", RELEASE)[0].quotas["online"].confirmed == 3

    def test_it_raises_before_the_first_party(self, engine: QuotaEngine, store: SlowStore) -> None:
        error = timeout_of(self.relocate(engine), store, 3 * STEP_MS + 100)
        assert (error.done, error.total, error.unit) == (0, 3, "parties")
        assert engine.availability("east", DULL)[0].quotas["online"].confirmed == 3


class TestDraw:
    """The long calls of a draw."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(NOW_MS)

    @pytest.fixture
    def store(self, clock: ManualClock) -> SlowStore:
        return SlowStore(clock)

    @pytest.fixture
    def engine(self, store: SlowStore, clock: ManualClock) -> QuotaEngine:
        """A draw with twenty applications, whose closing time has come."""
        engine = QuotaEngine(store, RequestBuilder(KEY, catalog()))
        announced(engine, clock)
        apply_all(engine, "dec")
        clock.set_ms(CLOSES_AT_MS)
        return engine

    def test_close_keeps_the_places_that_it_recorded(self, engine: QuotaEngine, store: SlowStore) -> None:
        requests = engine._methods.requests
        for _ in range(20):
            error = timeout_of(draws.close(requests, "dec", 0), store, 8 * STEP_MS)
            if error.unit == "applications":
                break
        view = engine.draw("dec").view()
        assert view is not None
        assert (view.offered_days, view.frozen, error.remedy) == (2, None, "give it more time")
        assert run_job(draws.close(requests, "dec", 0), store, 60 * STEP_MS).ok

    def test_files_and_award_resume(
        self, engine: QuotaEngine, store: SlowStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The parts of an award hold what one call would hold."""
        monkeypatch.setattr(draws, "_WINNERS_PER_STEP", 2)
        requests, draw = engine._methods.requests, engine.draw("dec")
        assert draw.close().ok
        assert draw.run(SEED).ok
        assert timeout_of(draws.files_of(requests, "dec"), store, 2 * STEP_MS).remedy == "give it more time"
        references: dict[int, str] = {}
        skip, stops = 0, 0
        while True:
            found = result_or_timeout(draws.award_draw(requests, "dec", 0, skip, 0), store, 8 * STEP_MS)
            if not isinstance(found, JobTimeout):
                break
            assert (found.unit, found.resume_with) == ("winners", {"skip": skip + found.done})
            references |= found.report.references
            skip, stops = skip + found.done, stops + 1
        references |= found.references
        assert stops
        assert len(references) == found.winners
        assert draw.award().references == references


class TestErrorsOfTheStore:
    """An error of the store is a time-out only if the job's time is over."""

    def test_a_call_that_the_end_cuts_is_a_timeout(self) -> None:
        store = SlowStore(ManualClock(OPENS_AT_MS))
        error = timeout_of(day_workflows.audit(RequestBuilder(KEY, catalog_of()), None), store, 300)
        assert error.is_cut
        assert "0 steps done, and the next one may be done as well" in str(error)

    @pytest.mark.parametrize("kind", [BackendUnavailable, OutcomeUnknown])
    def test_an_earlier_error_stays(self, kind: type[Exception]) -> None:
        store = SlowStore(ManualClock(OPENS_AT_MS))
        store.error = kind
        with pytest.raises(kind, match="away"):
            run_job(day_workflows.audit(RequestBuilder(KEY, catalog_of()), None), store, 5_000)


class TestEngine:
    """The time of a job comes from an argument, the engine, or an earlier end."""

    @pytest.mark.parametrize("method", ["publish", "relocate_day", "audit", "recover_moves"])
    def test_each_long_method_has_a_time(self, method: str) -> None:
        assert inspect.signature(getattr(QuotaEngine, method)).parameters["timeout_ms"].default is None

    @pytest.mark.parametrize("timeout_ms", [0, 199, 3_600_001, 500.0, True])
    def test_times_have_bounds(self, timeout_ms: Any) -> None:
        with pytest.raises(InvalidRequest, match="job_timeout_ms"):
            QuotaEngine.open(job_timeout_ms=timeout_ms)
        with QuotaEngine.open() as engine, pytest.raises(InvalidRequest, match="timeout_ms"):
            engine.audit(timeout_ms=timeout_ms)

    def test_the_nearest_end_bounds_each_request(self) -> None:
        """The argument, ``open`` and ``with_timeout``."""
        store = RecordingStore(ManualClock(OPENS_AT_MS))
        catalog = catalog_of()
        engine = QuotaEngine(store, RequestBuilder(KEY, catalog), job_timeout_ms=50_000)
        engine.publish(catalog, DULL)
        engine.publish(catalog, DULL, timeout_ms=20_000)
        engine.with_timeout(10_000).publish(catalog, DULL, timeout_ms=20_000)
        engine.with_timeout(30_000).publish(catalog, DULL, timeout_ms=20_000)
        steps = len(store.times_left_ms) // 4
        bounds = (50_000, 20_000, 10_000, 20_000)
        for time_left_ms, bound in zip(store.times_left_ms, [one for one in bounds for _ in range(steps)], strict=True):
            assert bound - 5_000 < time_left_ms <= bound

    async def test_the_async_engine_stops_as_well(self) -> None:
        store = RecordingStore(ManualClock(OPENS_AT_MS))
        catalog = catalog_of()
        engine = AsyncQuotaEngine(AsyncMemoryStore(store), RequestBuilder(KEY, catalog), job_timeout_ms=50_000)
        assert (await engine.publish(catalog, DULL)).days_published == 2
        assert (await engine.audit()).ok
        store.is_late = True
        with pytest.raises(JobTimeout, match="0 of 2 offices done"):
            await engine.publish(catalog, DULL, timeout_ms=200)


class RecordingStore(MemoryStore):
    """A memory store that records the time of each request, and may use it up."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.times_left_ms: list[float] = []
        self.is_late = False

    def execute(self, request: Any, *, ends_at_ms: float | None = None) -> Any:
        assert ends_at_ms is not None
        self.times_left_ms.append(ends_at_ms - monotonic_ms())
        if self.is_late:
            time.sleep(max(0, self.times_left_ms[-1]) / 1_000)
        return super().execute(request)
