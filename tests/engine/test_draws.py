"""Draws on the store in memory: winners are held after any failure, and no place is lost."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from quota_engine import (
    AsyncDraw,
    AsyncQuotaEngine,
    Draw,
    DrawPhase,
    InvalidRequest,
    ManualClock,
    OutcomeUnknown,
    QuotaEngine,
    Status,
    UnknownName,
)
from quota_engine.admission import ConstantPolicy, deny
from quota_engine.draws.queries import StoredApplication
from quota_engine.ports import StoreRequest
from quota_engine.stores.memory import MemoryStore
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.draw_runs import (
    CLOSES_AT_MS,
    DAY_MS,
    HOUR_MS,
    KEY,
    MONDAY,
    NOW_MS,
    OPENS_AT_MS,
    SEED,
    TUESDAY,
    announced,
    apply_all,
    catalog,
    check_published,
    choice,
    terms,
    whole_draw,
)

T = TypeVar("T")


class Breaking(MemoryStore):
    """Loses the answer, or the request, of one call, counted from now."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.calls_left = 10**9
        self.is_carried_out = True

    def apply(self, address: str, command: Any, *, ends_at_ms: float | None = None) -> Any:
        return self._call(lambda: super(Breaking, self).apply(address, command, ends_at_ms=ends_at_ms))

    def execute(self, request: StoreRequest[T], *, ends_at_ms: float | None = None) -> T:
        return self._call(lambda: super(Breaking, self).execute(request, ends_at_ms=ends_at_ms))

    def _call(self, call: Callable[[], T]) -> T:
        self.calls_left -= 1
        if self.calls_left:
            return call()
        if self.is_carried_out:
            call()
        raise OutcomeUnknown("the answer was lost")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture
def store(clock: ManualClock) -> Breaking:
    return Breaking(clock)


@pytest.fixture
def engine(store: Breaking) -> Iterator[QuotaEngine]:
    with QuotaEngine(store, RequestBuilder(KEY, catalog())) as engine:
        yield engine


def decided(engine: QuotaEngine, clock: ManualClock, draw: str = "dec") -> Draw:
    """A draw among twenty that has been run, and not awarded."""
    announced(engine, clock, draw)
    apply_all(engine, draw)
    clock.set_ms(max(clock.now_ms(), CLOSES_AT_MS))
    assert engine.draw(draw).close().ok
    assert engine.draw(draw).run(SEED).ok
    return engine.draw(draw)


def drawn_places(engine: QuotaEngine) -> tuple[int, int, int, int]:
    """Available, held, confirmed and parked, over both offices and days."""
    views = [view for office in ("sby", "mlg") for view in engine.availability(office, MONDAY, TUESDAY)]
    quotas = [view.quotas["drawn"] for view in views]
    return (
        sum(one.available for one in quotas),
        sum(one.held for one in quotas),
        sum(one.confirmed for one in quotas),
        sum(one.parked for one in quotas),
    )


def test_from_the_announcement_to_the_places(engine: QuotaEngine, clock: ManualClock) -> None:
    whole_draw(engine, clock)


def test_an_award_asks_no_policy(clock: ManualClock) -> None:
    """The draw is the admission: a policy that denies all other applicants denies no winner."""
    admission = ConstantPolicy("nobody", deny("closed"))
    with QuotaEngine.open(catalog=catalog(), clock=clock, identity_key=KEY, admission=admission) as engine:
        whole_draw(engine, clock)


@pytest.mark.parametrize("is_carried_out", [True, False], ids=["answer-lost", "request-lost"])
def test_every_step_may_break_anywhere_and_is_done_once(
    engine: QuotaEngine, store: Breaking, clock: ManualClock, is_carried_out: bool
) -> None:
    """Closing, running and awarding, broken off at each of their calls and repeated: the draw comes out the same."""
    whole = decided(engine, clock, "whole").files()
    assert whole is not None
    broken = 0
    for at in range(1, 200):
        name = f"broken-{at}"
        with QuotaEngine(Breaking(clock), RequestBuilder(KEY, catalog())) as other:
            clock.set_ms(NOW_MS)
            announced(other, clock, name)
            apply_all(other, name)
            clock.set_ms(CLOSES_AT_MS)
            backend = other._store
            assert isinstance(backend, Breaking)
            backend.calls_left, backend.is_carried_out = at, is_carried_out
            for _ in range(2):
                try:
                    assert other.draw(name).close().ok
                    assert other.draw(name).run(SEED).ok
                    report = other.draw(name).award(hold_ttl_ms=HOUR_MS)
                except OutcomeUnknown:
                    broken += 1
            calls_left, backend.calls_left = backend.calls_left, 10**9
            assert report.ok
            held = sum(view.quotas["drawn"].held for view in _views(other))
            files = other.draw(name).files()
            assert files is not None
            assert files.head is not None
            assert held == files.head.totals.places
            assert len(report.references) == report.winners
            assert files.capacities_json.replace(name.encode(), b"whole") == whole.capacities_json
            assert other.audit().ok
            if calls_left > 0:  # it was not called that often
                break
    assert broken == at - 1 > 20


def _views(engine: QuotaEngine) -> list[Any]:
    return [view for office in ("sby", "mlg") for view in engine.availability(office, MONDAY, TUESDAY)]


def test_unclaimed_places_are_parked_for_the_next_draw(engine: QuotaEngine, clock: ManualClock) -> None:
    """No reserve gets them in between."""
    draw = decided(engine, clock)
    report = draw.award(hold_ttl_ms=HOUR_MS)
    available, held, _, _ = drawn_places(engine)
    assert held > 3
    first = next(iter(report.references.values()))
    assert engine.confirm(first).ok
    assert engine.cancel(first).ok
    clock.advance_ms(HOUR_MS)
    assert drawn_places(engine) == (available, 0, 0, held)
    counted = len(report.references)
    again = draw.award(hold_ttl_ms=HOUR_MS)
    assert (len(again.references), again.refusals) == (counted, {})
    assert drawn_places(engine) == (available, 0, 0, held)
    assert engine.reserve("sby", MONDAY, "broker", session="am", channel="draw").status is Status.SOLD_OUT
    later = engine.draw("later")
    start_ms = clock.now_ms()
    assert later.create(
        replace(terms(later.commitment(SEED)), opens_at_ms=start_ms, closes_at_ms=start_ms + HOUR_MS)
    ).ok
    for index in range(8):
        assert later.apply(f"second-{index}", [choice("sby"), choice("sby", session="pm"), choice("mlg", TUESDAY)]).ok
    clock.advance_ms(HOUR_MS)
    assert later.close().ok
    assert later.run(SEED).ok
    second = later.award(hold_ttl_ms=HOUR_MS)
    assert second.ok
    assert second.winners >= 3
    assert engine.audit().ok


@pytest.mark.parametrize(("rule", "customer_gets_it"), [("at_once", True), ("cooling", False), ("next_draw", False)])
def test_a_broker_cannot_hand_a_place_over(clock: ManualClock, rule: str, customer_gets_it: bool) -> None:
    """A cancellation and a new booking in the same moment succeed only with re-release at once."""
    with QuotaEngine.open(identity_key=KEY, catalog=catalog(rule, drawn=1), clock=clock) as engine:
        announced(engine, clock)
        draw = engine.draw("dec")
        assert draw.apply("broker", [choice("sby")]).ok
        clock.set_ms(CLOSES_AT_MS)
        assert draw.close().ok
        assert draw.run(SEED).ok
        ((_, reference),) = draw.award().references.items()
        assert engine.confirm(reference).ok
        assert engine.cancel(reference).ok
        customer = engine.reserve("sby", MONDAY, "customer", session="am", channel="draw")
        assert customer.ok is customer_gets_it


def test_winners_whom_the_office_refuses_are_told_and_their_places_stay(
    engine: QuotaEngine, clock: ManualClock
) -> None:
    """An applicant who got a place at the counter meanwhile gets no second one on that day."""
    announced(engine, clock)
    draw = engine.draw("dec")
    for name in ("ani", "budi"):
        assert draw.apply(name, [choice("sby")]).ok
    assert engine.confirm(engine.reserve("sby", MONDAY, "ani", session="am", channel="counter").reference).ok
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    assert draw.run(SEED).ok
    report = draw.award()
    # Ani has one of the two morning places from the counter, so the draw has one. The first application wins it.
    files = draw.files()
    assert files is not None
    first = files.lots[0].number
    if first == 1:
        assert (report.ok, dict(report.refusals)) == (False, {Status.IDENTITY_LIMIT: 1})
        assert report.refused == ((1, Status.IDENTITY_LIMIT),)
        assert engine.availability("sby", MONDAY)[0].quotas["drawn"].available == 3
    else:
        assert report.ok
    assert report.winners == 1


def test_a_day_that_is_unknown_or_closed_gives_nothing_away(engine: QuotaEngine, clock: ManualClock) -> None:
    announced(engine, clock)
    draw = engine.draw("dec")
    assert draw.apply("ani", [choice("sby")]).ok
    assert draw.apply("budi", [choice("mlg")]).ok
    engine.close_day("sby", MONDAY)
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    assert draw.run(SEED).ok
    files = draw.files()
    assert files is not None
    assert files.record.capacities.days["sby", MONDAY.toordinal()] == {"am": 0, "drawn": 0}
    assert {lot.number: lot.preference for lot in files.lots} == {1: 0, 2: 1}
    check_published(engine, "dec")


def test_a_receipt_is_in_the_published_list_and_no_identity_is(engine: QuotaEngine, clock: ManualClock) -> None:
    """The applicant's line has their number and tokens; no identity is there, nor the hash that reservations have."""
    draw = decided(engine, clock)
    mine = draw.find("partner-3")
    assert mine is not None
    assert (mine.number, len(mine.tokens), len(mine.choices)) == (4, 2, 1)
    files = draw.files()
    assert files is not None
    text = b"".join([*files.application_lines(), files.capacities_json, *files.result_lines()]).decode()
    assert f'{{"number":4,"party":2,"applicants":["{mine.tokens[0]}","{mine.tokens[1]}"],' in text
    for index in range(20):
        assert f"nik-{index}" not in text
        assert engine._methods.requests.owner_hash(f"nik-{index}") not in text
    assert draw.find("nobody") is None


def test_what_was_changed_in_the_store_afterwards_is_found(
    engine: QuotaEngine, store: Breaking, clock: ManualClock
) -> None:
    """Nothing is awarded from a draw that is not what was frozen; nor with another identity key."""
    draw = decided(engine, clock)
    with_other_key = QuotaEngine(store, RequestBuilder(b"another key, of another house", catalog())).draw("dec")
    assert with_other_key.award().findings == ("the applications are not those that were frozen",)
    ledger = store._ledgers["~draw.dec"].ledger
    before = ledger.applications[1]
    ledger.applications[1] = StoredApplication(1, 1, before.applicants, (3,))
    report = draw.award()
    assert report.findings == ("the applications are not those that were frozen",)
    assert drawn_places(engine)[1] == 0
    ledger.applications[1] = before
    ledger.offered_days["sby", MONDAY.toordinal()] = (("am", 9), ("drawn", 9), ("pm", 9))
    ledger.seed = "1" * 64
    assert draw.award().findings == (
        "the capacities are not those that were frozen",
        "the seed is not the one that was committed to",
    )


def test_a_repeated_close_changes_nothing(engine: QuotaEngine, clock: ManualClock) -> None:
    """Later sales do not change the offered places."""
    draw = decided(engine, clock)
    before = draw.view()
    draw.award()
    assert draw.close().replayed
    assert draw.view() == before
    assert before is not None
    assert before.phase is DrawPhase.REVEALED


def test_a_draw_without_applications(engine: QuotaEngine, clock: ManualClock) -> None:
    announced(engine, clock)
    draw = engine.draw("dec")
    clock.set_ms(CLOSES_AT_MS)
    assert draw.close().ok
    assert draw.run(SEED).ok
    check_published(engine, "dec")
    assert draw.award().winners == 0


def test_what_there_is_not(engine: QuotaEngine, clock: ManualClock) -> None:
    """An unknown draw is an answer; unknown names and ill-formed calls are errors, and change nothing."""
    draw = engine.draw("none")
    assert draw.view() is None
    assert draw.files() is None
    assert draw.award().findings == ("there is no such draw",)
    assert draw.close().status == "UNKNOWN_DRAW"
    assert draw.run(SEED).status == "UNKNOWN_DRAW"
    assert draw.apply("ani", [choice("sby")]).status == "UNKNOWN_DRAW"
    assert draw.withdraw("ani", expected_version=1).status == "UNKNOWN_DRAW"
    announced(engine, clock)
    draw = engine.draw("dec")
    for bad in (
        lambda: engine.draw("a b"),
        lambda: draw.apply("ani", []),
        lambda: draw.apply("ani", choice("sby")),  # type: ignore[arg-type]
        lambda: draw.apply("ani", ["sby"]),  # type: ignore[list-item]
        lambda: draw.apply("ani", [choice("sby"), choice("sby")]),
        lambda: draw.apply(["ani", "ani"], [choice("sby")]),
        lambda: draw.apply("", [choice("sby")]),
        lambda: draw.apply("ani", [choice("sby")], expected_version=-1),
        lambda: draw.run("0"),
        lambda: draw.award(hold_ttl_ms=-1),
        lambda: draw.commitment("0"),
    ):
        with pytest.raises(InvalidRequest):
            bad()
    for unknown in (choice("atlantis"), choice("sby", session="night"), replace(choice("sby"), channel="smoke")):
        with pytest.raises(UnknownName):
            draw.apply("ani", [unknown])
    assert draw.apply("ani", [choice("sby", MONDAY.replace(day=9))]).status == "NOT_IN_DRAW"
    view = draw.view()
    assert view is not None
    assert view.applications == 0


def test_the_commitment_is_what_a_shell_says(engine: QuotaEngine) -> None:
    assert engine.draw("dec").commitment(SEED) == hashlib.sha256(f"dec {SEED}".encode()).hexdigest()


def test_both_faces_have_the_same_methods() -> None:
    """Same names, same parameters, same defaults, and a docstring each."""
    names = {name for name in vars(Draw) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncDraw) if not name.startswith("_")}
    for name in names:
        one, other = getattr(Draw, name), getattr(AsyncDraw, name)
        assert inspect.signature(one) == inspect.signature(other), name
        assert inspect.iscoroutinefunction(other) is (name != "commitment")
        assert one.__doc__
        assert other.__doc__


async def test_the_async_draw_returns_the_same(clock: ManualClock) -> None:
    """The same calls on two stores return the same answers, files and holds."""
    with QuotaEngine.open(identity_key=KEY, catalog=catalog(), clock=clock) as engine:
        other = await AsyncQuotaEngine.open(identity_key=KEY, catalog=catalog(), clock=clock)
        engine.publish(catalog(), MONDAY, TUESDAY)
        await other.publish(catalog(), MONDAY, TUESDAY)
        one, two = engine.draw("dec"), other.draw("dec")
        assert one.commitment(SEED) == two.commitment(SEED)
        assert await two.award() == one.award()
        promised = terms(one.commitment(SEED))
        assert await two.create(promised) == one.create(promised)
        clock.set_ms(OPENS_AT_MS)
        for name in ("ani", "budi", "citra", "dewi"):
            assert await two.apply(name, [choice("sby")]) == one.apply(name, [choice("sby")])
        assert await two.withdraw("ani", expected_version=1) == one.withdraw("ani", expected_version=1)
        assert await two.find("budi") == one.find("budi")
        clock.set_ms(CLOSES_AT_MS)
        assert await two.close() == one.close()
        assert await two.run(SEED) == one.run(SEED)
        assert await two.view() == one.view()
        assert await two.files() == one.files()
        assert await two.award(hold_ttl_ms=DAY_MS) == one.award(hold_ttl_ms=DAY_MS)
        await other.close()
