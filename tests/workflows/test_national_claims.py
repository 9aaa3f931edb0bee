"""The national limit: one active place per applicant over all offices, after any failure and in any order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from quota_engine import AsyncQuotaEngine, BackendUnavailable, Outcome, OutcomeUnknown, State, Status
from quota_engine.admission import LimitKey, TokenBucketPolicy, per_minute
from quota_engine.domain.commands import Confirm, Reserve
from quota_engine.domain.cross_office_registry import Claim, Drop, RegistryResult, RegistryStatus, shards
from quota_engine.engine.quota_engine import QuotaEngine
from quota_engine.ports import Describe, Store, StoreRequest
from quota_engine.stores.memory import AsyncMemoryStore, MemoryStore
from quota_engine.workflows import entries, national_claims, party_changes
from quota_engine.workflows.admission_gate import AdmissionGate
from quota_engine.workflows.generator_drivers import Workflow, run
from quota_engine.workflows.national_claims import CLOCKS_MARGIN_MS
from quota_engine.workflows.request_builder import RequestBuilder
from tests.support.multi_office import (
    ANI,
    ANY_SELECTION,
    BUDI,
    CITRA,
    DAY,
    HOLD_TTL_MS,
    KEY,
    NEXT_DAY,
    NO_ADMISSION,
    OFFICES,
    Nation,
    RandomInterleaving,
    SteppedWorkflow,
)

LEASE_MS = 20_000


def reserving(
    nation: Nation, office: str, *identities: str, key: str | None = None, day: object = DAY
) -> SteppedWorkflow:
    command = nation.requests.reserve(office, day, list(identities or (ANI,)), ANY_SELECTION, key, False, 0)  # type: ignore[arg-type]
    return SteppedWorkflow(national_claims.reserve(nation.requests, office, command), nation.backend)


class TestOnePlace:
    @pytest.mark.parametrize("confirmed", [False, True])
    def test_an_active_place_excludes_another_office(self, confirmed: bool) -> None:
        """The refusal carries the record."""
        nation = Nation()
        first = nation.engine.reserve("east", DAY, ANI)
        if confirmed:
            first = nation.engine.confirm(first.reference)
        refused = nation.engine.reserve("west", NEXT_DAY, ANI)
        assert (refused.status, refused.reservation) == (Status.IDENTITY_LIMIT, first.reservation)
        assert [one.reference for one in nation.active()] == [first.reference]
        assert nation.claimed(ANI) == first.reference
        nation.check()

    @pytest.mark.parametrize("end", ["release", "cancel", "expire"])
    def test_an_ended_reservation_excludes_no_one(self, end: str) -> None:
        """The next reserve replaces its claim."""
        nation = Nation()
        first = nation.engine.reserve("east", DAY, ANI).reference
        if end == "cancel":
            nation.engine.confirm(first)
            nation.engine.cancel(first)
        elif end == "release":
            nation.engine.release(first)
        else:
            nation.clock.advance_ms(HOLD_TTL_MS)
        second = nation.engine.reserve("west", DAY, ANI)
        assert (second.status, nation.claimed(ANI)) == (Status.HELD, second.reference)
        nation.check()

    def test_who_waits_has_a_place_in_the_list_and_no_other(self) -> None:
        """Until the day is over: then they waited in vain, and are free."""
        nation = Nation(places=1)
        nation.engine.reserve("east", DAY, BUDI)
        waiting = nation.engine.reserve("east", DAY, ANI, join_wait_list=True)
        assert waiting.status is Status.WAITING
        assert nation.engine.reserve("west", NEXT_DAY, ANI).status is Status.IDENTITY_LIMIT
        nation.clock.set_ms(nation.terms.ends_at_ms + CLOCKS_MARGIN_MS)
        assert nation.engine.reserve("west", NEXT_DAY, ANI).status is Status.HELD

    def test_a_day_that_is_over_excludes_no_one(self) -> None:
        nation = Nation()
        first = nation.engine.confirm(nation.engine.reserve("east", DAY, ANI).reference).reference
        nation.clock.set_ms(nation.terms.ends_at_ms + CLOCKS_MARGIN_MS - 1)
        assert nation.engine.reserve("west", NEXT_DAY, ANI).status is Status.IDENTITY_LIMIT
        nation.clock.advance_ms(1)
        assert nation.engine.reserve("west", NEXT_DAY, ANI).status is Status.HELD
        assert nation.lookup(first).state is State.CONFIRMED
        nation.check()

    def test_a_refusal_releases_the_claim(self) -> None:
        nation = Nation(places=1)
        assert nation.engine.reserve("east", DAY, BUDI).ok
        before = [nation.backend.execute(Describe(shard))["claims"] for shard in shards()]
        for _ in range(100):
            assert nation.engine.reserve("east", DAY, ANI).status is Status.SOLD_OUT
        assert [nation.backend.execute(Describe(shard))["claims"] for shard in shards()] == before
        assert nation.engine.reserve("west", DAY, ANI).ok

    def test_a_party_is_claimed_completely_or_not_at_all(self) -> None:
        """A member with a place elsewhere refuses the party, and its other members stay free."""
        nation = Nation()
        nation.engine.reserve("east", DAY, BUDI)
        refused = nation.engine.reserve("west", DAY, [ANI, BUDI, CITRA])
        assert (refused.status, refused.reservation) == (Status.IDENTITY_LIMIT, None)
        assert (nation.claimed(ANI), nation.claimed(CITRA)) == ("", "")
        assert nation.engine.reserve("west", DAY, [ANI, CITRA]).ok
        nation.check()

    def test_what_is_not_in_the_catalog_asks_nothing(self) -> None:
        """Without [national] people may have a place at each office, and no claim is ever made."""
        nation = Nation(national=False)
        for office in OFFICES:
            assert nation.engine.reserve(office, DAY, ANI).ok
        assert nation.claimed(ANI) == ""
        nation.check()

    def test_winners_of_a_draw_are_claimed_too(self) -> None:
        """A winner with a place elsewhere gets none; all other winners get theirs."""
        nation = Nation()
        nation.engine.reserve("west", DAY, BUDI)
        reserves = [
            nation.requests.reserve("east", DAY, one, ANY_SELECTION, None, False, 0) for one in (ANI, BUDI, CITRA)
        ]
        outcomes = run(national_claims.reserve_all(nation.requests, "east", reserves), nation.backend)
        assert [one.status for one in outcomes] == [Status.HELD, Status.IDENTITY_LIMIT, Status.HELD]
        nation.check()
        plain = Nation(national=False)
        plain.engine.reserve("west", DAY, BUDI)
        outcomes = run(national_claims.reserve_all(plain.requests, "east", reserves), plain.backend)
        assert [one.status for one in outcomes] == [Status.HELD] * 3
        assert plain.claimed(ANI) == ""

    def test_admission_precedes_the_claims(self) -> None:
        """A refused reserve keeps no claim."""
        nation = Nation()
        gate = AdmissionGate(TokenBucketPolicy("all", LimitKey.ALL, per_minute(1)), None, nation.clock)
        engine = QuotaEngine(nation.backend, nation.requests, gate)
        first = engine.reserve("east", DAY, ANI)
        assert (first.status, nation.claimed(ANI)) == (Status.HELD, first.reference)
        engine.release(first.reference)
        assert engine.reserve("east", DAY, ANI).status is Status.THROTTLED
        assert nation.claimed(ANI) == ""
        nation.clock.advance_ms(60_000)
        assert engine.reserve("east", DAY, ANI).status is Status.HELD
        nation.check()


class TestPartyChanges:
    def test_one_who_leaves_a_party_may_go_elsewhere_at_once(self) -> None:
        """The registry drops the claim, whose lease has ended."""
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        nation.engine.confirm(pair.reference)
        nation.clock.advance_ms(LEASE_MS)
        assert nation.engine.remove_applicant(pair.reference, BUDI, owner=BUDI).ok
        assert (nation.claimed(ANI), nation.claimed(BUDI)) == (pair.reference, "")
        second = nation.engine.reserve("west", DAY, BUDI)
        assert second.status is Status.HELD
        assert nation.engine.remove_applicant(pair.reference, BUDI, owner=BUDI).replayed
        assert nation.claimed(BUDI) == second.reference
        nation.check()

    def test_one_who_leaves_within_the_lease_waits_for_its_end(self) -> None:
        """Another call may have claimed for the same reservation, and be about to put the applicant back."""
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        assert nation.engine.remove_applicant(pair.reference, BUDI, owner=BUDI).ok
        refused = nation.engine.reserve("west", DAY, BUDI)
        assert (refused.status, refused.retry_at_ms) == (Status.IDENTITY_LIMIT, nation.clock.now_ms() + LEASE_MS)
        nation.clock.advance_ms(LEASE_MS)
        assert nation.engine.reserve("west", DAY, BUDI).status is Status.HELD
        nation.check()

    def test_a_replacement_in_flight_keeps_its_claim(self) -> None:
        """The newcomer leaves the party, and is put back by a call that had claimed before."""
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        slow = SteppedWorkflow(
            party_changes.replace_applicant(nation.requests, pair.reference, ANI, CITRA, 0), nation.backend
        )
        assert nation.engine.replace_applicant(pair.reference, BUDI, CITRA).ok
        slow.run(2)  # it has renewed the claim
        assert nation.engine.remove_applicant(pair.reference, CITRA).ok
        assert slow.run().ok
        assert nation.claimed(CITRA) == pair.reference
        assert nation.engine.reserve("west", DAY, CITRA).status is Status.IDENTITY_LIMIT
        nation.check()

    def test_one_who_comes_into_a_party_is_claimed(self) -> None:
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        nation.clock.advance_ms(LEASE_MS)
        assert nation.engine.replace_applicant(pair.reference, BUDI, CITRA).ok
        assert (nation.claimed(CITRA), nation.claimed(BUDI)) == (pair.reference, "")
        assert nation.engine.reserve("west", DAY, CITRA).status is Status.IDENTITY_LIMIT
        assert nation.engine.reserve("west", DAY, BUDI).status is Status.HELD
        assert nation.engine.replace_applicant(pair.reference, BUDI, CITRA).replayed
        nation.check()

    def test_one_with_a_place_elsewhere_replaces_nobody(self) -> None:
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        elsewhere = nation.engine.reserve("west", DAY, CITRA)
        assert nation.engine.replace_applicant(pair.reference, BUDI, CITRA).status is Status.IDENTITY_LIMIT
        assert nation.engine.replace_applicant("east~nothing", BUDI, CITRA).status is Status.NOT_FOUND
        assert (nation.claimed(CITRA), nation.claimed(BUDI)) == (elsewhere.reference, pair.reference)
        nation.check()

    def test_a_refused_replacement_gives_its_claim_back(self) -> None:
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        assert nation.engine.replace_applicant(pair.reference, BUDI, CITRA, expected_version=7).status is Status.STALE
        assert nation.claimed(CITRA) == ""
        assert nation.engine.reserve("west", DAY, CITRA).status is Status.HELD
        nation.check()

    def test_a_client_that_dies_before_the_replacement_excludes_for_one_lease(self) -> None:
        nation = Nation()
        pair = nation.engine.reserve("east", DAY, [ANI, BUDI])
        dead = SteppedWorkflow(
            party_changes.replace_applicant(nation.requests, pair.reference, BUDI, CITRA, 0), nation.backend
        )
        dead.run(2)
        assert nation.engine.reserve("west", DAY, CITRA).status is Status.IDENTITY_LIMIT
        nation.clock.advance_ms(LEASE_MS)
        assert nation.engine.reserve("west", DAY, CITRA).status is Status.HELD
        assert dead.run().status is Status.COMMAND_EXPIRED
        nation.check()


class TestComingBack:
    def test_the_same_key_finds_its_reservation(self) -> None:
        """A known key has precedence over the claims."""
        nation = Nation()
        first = nation.engine.reserve("east", DAY, ANI, idempotency_key="k")
        again = nation.engine.reserve("east", DAY, ANI, idempotency_key="k")
        assert (again.status, again.replayed, again.reference) == (Status.HELD, True, first.reference)
        assert nation.engine.reserve("east", NEXT_DAY, ANI, idempotency_key="k").status is Status.CONFLICT
        assert nation.claimed(ANI) == first.reference
        assert nation.engine.reserve("east", DAY, BUDI, idempotency_key="k").status is Status.CONFLICT
        assert nation.claimed(BUDI) == ""
        nation.engine.release(first.reference)
        assert nation.engine.reserve("east", DAY, ANI, idempotency_key="k").status is Status.RESERVATION_ENDED
        second = nation.engine.reserve("west", DAY, ANI)
        assert nation.engine.reserve("east", DAY, ANI, idempotency_key="k").status is Status.RESERVATION_ENDED
        assert nation.claimed(ANI) == second.reference
        nation.check()

    def test_another_key_resumes_the_hold_on_the_same_day(self) -> None:
        """A confirmed place, or one for another day, excludes instead."""
        nation = Nation()
        first = nation.engine.reserve("east", DAY, [ANI, BUDI])
        again = nation.engine.reserve("east", DAY, [BUDI, ANI])
        assert (again.status, again.resumed, again.reservation) == (Status.HELD, True, first.reservation)
        assert nation.engine.reserve("east", NEXT_DAY, [ANI, BUDI]).reservation == first.reservation
        assert nation.engine.reserve("east", DAY, ANI).status is Status.IDENTITY_LIMIT
        nation.engine.confirm(first.reference)
        assert nation.engine.reserve("east", DAY, [ANI, BUDI]).status is Status.IDENTITY_LIMIT
        nation.check()

    def test_a_hold_from_before_the_limit_is_claimed_when_resumed(self) -> None:
        """The audit lists those without a claim."""
        nation = Nation()
        old = QuotaEngine(nation.backend, RequestBuilder(KEY, Nation(national=False).catalog))
        first = old.reserve("east", DAY, ANI)
        unclaimed = (
            f"office east: reservation {first.reference.partition('~')[2]} is active, and not all its applicants"
        )
        assert [one[: len(unclaimed)] for one in nation.engine.audit().findings] == [unclaimed]
        again = nation.engine.reserve("east", DAY, ANI)
        assert (again.resumed, nation.claimed(ANI)) == (True, first.reference)
        nation.check()

    def test_a_late_confirm_takes_a_place_again_only_with_the_claim(self) -> None:
        """If the person has got another one since, what expired stays so."""
        for elsewhere in (False, True):
            nation = Nation()
            first = nation.engine.reserve("east", DAY, ANI).reference
            assert nation.engine.confirm(first, reacquire=True).ok
            nation.engine.cancel(first)
            first = nation.engine.reserve("east", NEXT_DAY, ANI).reference
            nation.clock.advance_ms(HOLD_TTL_MS)
            second = nation.engine.reserve("west", DAY, ANI).reference if elsewhere else ""
            outcome = nation.engine.confirm(first, reacquire=True)
            assert outcome.status is (Status.HOLD_EXPIRED if elsewhere else Status.CONFIRMED)
            assert nation.claimed(ANI) == (second or first)
            assert len(nation.active()) == 1
            nation.check()

    def test_a_claim_in_a_late_confirm_is_not_replaced(self) -> None:
        """Until its lease ends."""
        nation = Nation()
        first = nation.engine.reserve("east", DAY, ANI).reference
        nation.clock.advance_ms(HOLD_TTL_MS)
        late = SteppedWorkflow(
            entries.confirm(nation.requests, NO_ADMISSION, "east", Confirm(first.partition("~")[2], reacquire=True)),
            nation.backend,
        )
        late.run(2)
        refused = nation.engine.reserve("west", DAY, ANI)
        assert (refused.status, refused.retry_at_ms) == (Status.IDENTITY_LIMIT, nation.clock.now_ms() + LEASE_MS)
        assert late.run().status is Status.CONFIRMED
        assert [one.reference for one in nation.active()] == [first]

    def test_a_late_confirm_that_finds_no_place_gives_the_claim_back(self) -> None:
        """Its own was over for long, and forgotten."""
        nation = Nation(places=1)
        first = nation.engine.reserve("east", DAY, ANI).reference
        nation.clock.advance_ms(HOLD_TTL_MS)
        nation.engine.release(nation.engine.reserve("west", DAY, ANI).reference)
        assert nation.engine.reserve("east", DAY, BUDI).ok
        assert nation.engine.confirm(first, reacquire=True).status is Status.HOLD_EXPIRED
        assert nation.claimed(ANI) == ""

    def test_a_reschedule_takes_the_claim_along(self) -> None:
        """It lasts until the new day is over, and keeps people off until then."""
        nation = Nation()
        first = nation.engine.confirm(nation.engine.reserve("east", DAY, ANI).reference).reference
        assert nation.engine.reschedule(first, NEXT_DAY).status is Status.CONFIRMED
        nation.clock.set_ms(nation.terms.ends_at_ms + 3_600_000)
        assert nation.claimed(ANI) == first
        assert nation.engine.reserve("west", NEXT_DAY, ANI).status is Status.IDENTITY_LIMIT
        assert nation.engine.reschedule("east~nobody", NEXT_DAY).status is Status.NOT_FOUND

    def test_a_reschedule_of_what_was_never_claimed_finds_the_other_place_in_the_way(self) -> None:
        """Of a time without the limit, with two places; its record is shown to its owner only."""
        nation = Nation()
        old = QuotaEngine(nation.backend, RequestBuilder(KEY, Nation(national=False).catalog))
        first = old.reserve("east", DAY, ANI).reference
        nation.engine.reserve("west", DAY, BUDI)
        second = old.reserve("west", DAY, ANI).reference
        assert nation.engine.reschedule(second, NEXT_DAY).ok
        outcome = nation.engine.reschedule(first, NEXT_DAY, owner=ANI)
        assert (outcome.status, outcome.reference) == (Status.IDENTITY_LIMIT, first)
        outcome = nation.engine.reschedule(first, NEXT_DAY, owner=BUDI)
        assert (outcome.status, outcome.reference) == (Status.NOT_OWNER, "")
        assert nation.engine.confirm(first, reacquire=True).ok


class TestACallerWhoDies:
    def test_a_dead_client_excludes_for_one_lease(self) -> None:
        """The refusal has the time, and the next reserve then replaces the claim."""
        nation = Nation()
        caller = reserving(nation, "east")
        caller.run(1)
        caller.abandon()
        refused = nation.engine.reserve("west", DAY, ANI)
        assert (refused.status, refused.reservation) == (Status.IDENTITY_LIMIT, None)
        assert refused.retry_at_ms == nation.clock.now_ms() + LEASE_MS
        nation.clock.set_ms(refused.retry_at_ms - 1)
        assert nation.engine.reserve("west", DAY, ANI).status is Status.IDENTITY_LIMIT
        nation.clock.advance_ms(1)
        assert nation.engine.reserve("west", DAY, ANI).ok
        nation.check()

    def test_a_late_reserve_fails_without_its_claim(self) -> None:
        """Another client has the claim by then."""
        nation = Nation()
        late = reserving(nation, "east")
        late.run(1)
        nation.clock.advance_ms(LEASE_MS)
        second = nation.engine.reserve("west", DAY, ANI)
        assert second.ok
        assert late.run().status is Status.IDENTITY_LIMIT
        assert [one.reference for one in nation.active()] == [second.reference]

    def test_a_reserve_that_is_late_claims_anew_if_nobody_else_has(self) -> None:
        """The caller notices nothing."""
        nation = Nation()
        late = reserving(nation, "east")
        late.run(1)
        nation.clock.advance_ms(LEASE_MS)
        assert late.run().status is Status.HELD
        nation.check()

    def test_a_reserve_that_is_late_three_times_expires(self) -> None:
        """The claim is released."""
        nation = Nation()
        late = reserving(nation, "east")
        while not late.is_done:
            nation.clock.advance_ms(LEASE_MS)
            late.step()
        assert (late.result.status, nation.claimed(ANI)) == (Status.COMMAND_EXPIRED, "")

    def test_giving_up_late_does_not_take_the_claim_of_the_try_that_came_through(self) -> None:
        """The same key twice: the first is refused, the second gets a place that came back in between."""
        nation = Nation(places=1)
        other = nation.engine.reserve("east", DAY, BUDI).reference
        first = reserving(nation, "east", key="k")
        first.run(2)
        nation.engine.release(other)
        second = nation.engine.reserve("east", DAY, ANI, idempotency_key="k")
        assert second.ok
        assert first.run().status is Status.SOLD_OUT
        assert nation.claimed(ANI) == second.reference
        nation.check()


class TestAStoreThatFails:
    def test_an_office_that_was_not_reached_costs_no_claim(self) -> None:
        """The caller hears that nothing was done, and may go elsewhere at once."""
        nation = Nation()
        with pytest.raises(BackendUnavailable):
            _reserve_on(nation, Reserve, _away)
        assert nation.claimed(ANI) == ""

    def test_a_lost_answer_keeps_the_claim(self) -> None:
        """The same key returns the outcome, and the claim excludes others until then."""
        nation = Nation()
        with pytest.raises(OutcomeUnknown):
            _reserve_on(nation, Reserve, _lost)
        assert nation.claimed(ANI) != ""
        assert nation.engine.reserve("west", DAY, ANI).status is Status.IDENTITY_LIMIT

    def test_an_unreachable_registry_changes_nothing(self) -> None:
        """The first claim of a party is released if the second fails."""
        nation = Nation()
        calls = iter((False, True))
        with pytest.raises(BackendUnavailable):
            _reserve_on(nation, Claim, _away, lambda: next(calls))
        assert (nation.claimed(ANI), nation.claimed(BUDI)) == ("", "")

    def test_an_unreleased_claim_ends_with_its_lease(self) -> None:
        nation = Nation(places=0)
        assert _reserve_on(nation, Drop, _away).status is Status.SOLD_OUT
        assert nation.claimed(ANI) != ""
        nation.clock.advance_ms(LEASE_MS)
        nation.engine.set_capacity("west", DAY, "online", 2)
        assert nation.engine.reserve("west", DAY, [ANI, BUDI]).ok

    def test_an_overloaded_registry_refuses_before_anything_is_done(self) -> None:
        nation = Nation()
        assert _reserve_on(nation, Claim, _overloaded).status is Status.OVERLOADED
        first = nation.engine.reserve("east", DAY, ANI).reference
        failing = cast("Store", FailingStore(nation, Claim, _overloaded))
        engine = QuotaEngine(failing, nation.requests)
        assert engine.reschedule(first, NEXT_DAY).status is Status.OVERLOADED
        nation.clock.advance_ms(HOLD_TTL_MS)
        assert engine.confirm(first, reacquire=True).status is Status.OVERLOADED
        assert nation.active() == []


class FailingStore:
    """A store that fails at the commands of one type, when it is time."""

    def __init__(
        self, nation: Nation, kind: type, failure: Callable[[], object], fails: Callable[[], bool] = lambda: True
    ) -> None:
        self.backend = nation.backend
        self.kind = kind
        self.failure = failure
        self.fails = fails

    def apply(self, address: str, command: Any) -> Any:
        if isinstance(command, self.kind) and self.fails():
            return self.failure()
        return self.backend.apply(address, command)

    def execute(self, request: StoreRequest[Any]) -> Any:
        return self.backend.execute(request)


def _away() -> object:
    raise BackendUnavailable("away")


def _lost() -> object:
    raise OutcomeUnknown("lost")


def _overloaded() -> object:
    return RegistryResult(RegistryStatus.OVERLOADED)


def _reserve_on(
    nation: Nation, kind: type, failure: Callable[[], object], fails: Callable[[], bool] = lambda: True
) -> Outcome:
    command = nation.requests.reserve("east", DAY, [ANI, BUDI], ANY_SELECTION, "k", False, 0)
    workflow: Workflow[Outcome] = national_claims.reserve(nation.requests, "east", command)
    return run(workflow, cast("Store", FailingStore(nation, kind, failure, fails)))


async def test_concurrent_reserves_give_one_place_each() -> None:
    """Forty applicants, each at three offices at once, through the async engine."""
    nation = Nation(places=20)
    assert isinstance(nation.backend, MemoryStore)
    engine = AsyncQuotaEngine(AsyncMemoryStore(nation.backend), nation.requests)
    people = [f"person{number}" for number in range(40)]
    outcomes = await asyncio.gather(*(engine.reserve(office, DAY, one) for office in OFFICES for one in people))
    won = Counter(one.reservation.applicants for one in outcomes if one.ok and one.reservation)
    assert set(won.values()) == {1}
    for _ in range(3):
        outcomes = await asyncio.gather(*(engine.reserve("west", DAY, one) for one in people))
    assert len(nation.active()) == 40
    nation.check()


class TestAnything:
    """Random interleavings of all workflows, with a jumping clock: no applicant has two places."""

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [*range(120), 140, 466])
    def test_nobody_ever_has_two_places(self, seed: int) -> None:
        """After each single step of any workflow; a place and the one that it is just being moved to count as one."""
        RandomInterleaving(seed).run(130)
