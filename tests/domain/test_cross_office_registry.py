"""The rules of the registry, one behavior per test, and a naive model on random walks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from quota_engine.conformance.random_registry import registry_walk
from quota_engine.domain.cross_office_registry import (
    QUERY_ITEMS_MAX,
    SHARDS,
    SWEEP_MAX,
    Claim,
    CloseMove,
    Drop,
    FindClaims,
    FindMove,
    FoundClaims,
    MoveEntry,
    OpenMove,
    OpenMoves,
    Registry,
    RegistryResult,
    RegistryStatus,
    apply,
    ask,
    describe,
    shard_of,
    shards,
)
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.validation import TIME_MS_MAX

DONE, TAKEN = RegistryStatus.DONE, RegistryStatus.TAKEN
LEASE_MS = 10
FORGET_AT_MS = 1_000


def claim(
    applicant: str = "ani", reference: str = "a~1", instead_of: int = 0, forget_at_ms: int = FORGET_AT_MS
) -> Claim:
    return Claim(applicant, reference, LEASE_MS, forget_at_ms, instead_of)


def open_move(target: str = "b~2", source: str = "a~1", forget_at_ms: int = FORGET_AT_MS) -> OpenMove:
    return OpenMove(source, target, 3, LEASE_MS, forget_at_ms)


class TestClaims:
    def test_a_first_claim_has_a_lease(self) -> None:
        """The result has the claim and the end of its lease."""
        answer = apply(Registry("~n.00"), claim(), 100)
        assert answer == RegistryResult(DONE, "a~1", 1, 110, 100)
        assert answer.ok
        assert not answer.lease_is_over

    def test_another_reference_is_refused_and_changes_nothing(self) -> None:
        """The result shows the present claim, its number, and if its lease has ended."""
        registry = Registry("~n.00")
        apply(registry, claim(), 100)
        before = describe(registry)
        answer = apply(registry, claim(reference="b~1"), 109)
        assert answer == RegistryResult(TAKEN, "a~1", 1, 110, 109)
        assert not answer.ok
        assert not answer.lease_is_over
        assert apply(registry, claim(reference="b~1"), 110).lease_is_over
        assert describe(registry) == before

    def test_the_same_reference_renews_and_never_shortens(self) -> None:
        """A renewed claim has a new number and the later of both ends."""
        registry = Registry("~n.00")
        apply(registry, claim(), 100)
        answer = apply(registry, Claim("ani", "a~1", 5, 500), 103)
        assert answer == RegistryResult(DONE, "a~1", 2, 110, 103, renewed=True)
        assert apply(registry, Claim("ani", "a~1", 50, 2_000), 104).lease_until_ms == 154
        assert registry.claims["ani"].forget_at_ms == 2_000

    def test_a_claim_may_have_a_secondary_reference(self) -> None:
        """It stays while the reference is renewed, and goes when another reference replaces it."""
        registry = Registry("~n.00")
        assert (
            apply(registry, Claim("ani", "b~2", 10, 900, secondary_reference="a~1"), 100).secondary_reference == "a~1"
        )
        assert apply(registry, claim(reference="b~2"), 101).secondary_reference == "a~1"
        taken = apply(registry, claim(reference="c~3"), 102)
        assert (taken.status, taken.secondary_reference) == (TAKEN, "a~1")
        assert apply(registry, Claim("ani", "b~2", 10, 900, secondary_reference="a~4"), 103).status is TAKEN
        assert apply(registry, Claim("ani", "b~2", 10, 900, 2, "a~4"), 103).secondary_reference == "a~4"
        assert apply(registry, claim(reference="c~3", instead_of=3), 104).secondary_reference == ""
        assert (
            apply(registry, Claim("ani", "c~3", 10, 900, secondary_reference="a~1"), 105).secondary_reference == "a~1"
        )
        assert apply(registry, Claim("ani", "c~3", 10, 900, secondary_reference="c~3"), 106).status is TAKEN
        assert apply(registry, Claim("ani", "c~3", 10, 900, 5, "c~3"), 106).secondary_reference == ""

    def test_a_claim_is_replaced_by_its_number_only(self) -> None:
        """A renewed claim has another number and stays, because its reservation may be in progress."""
        registry = Registry("~n.00")
        seen = apply(registry, claim(), 100).number
        apply(registry, claim(), 101)
        assert apply(registry, claim(reference="b~1", instead_of=seen), 102).status is TAKEN
        assert apply(registry, claim(reference="b~1", instead_of=seen + 1), 102) == RegistryResult(
            DONE, "b~1", 3, 112, 102
        )
        assert apply(registry, claim(), 102).reference == "b~1"

    def test_a_claim_is_dropped_by_its_number_only(self) -> None:
        """A late drop of a refused reserve must not delete the claim of a successful retry."""
        registry = Registry("~n.00")
        first = apply(registry, claim(), 100).number
        second = apply(registry, claim(), 101).number
        assert apply(registry, Drop("ani", first), 102) == RegistryResult(TAKEN, "a~1", second, 111, 102)
        assert apply(registry, Drop("ani", second), 103) == RegistryResult(DONE, now_ms=103)
        assert apply(registry, Drop("ani", second), 103).ok
        assert apply(registry, claim(reference="b~1"), 104).ok

    def test_a_claim_with_a_lease_is_not_dropped_by_its_reference(self) -> None:
        """Its writer may be about to put the applicant into the reservation."""
        registry = Registry("~n.00")
        number = apply(registry, claim(), 100).number
        drop = Drop("ani", reference="a~1")
        assert apply(registry, drop, 109) == RegistryResult(TAKEN, "a~1", number, 110, 109)
        assert apply(registry, Drop("ani", reference="b~1"), 110).status is TAKEN
        assert apply(registry, drop, 110) == RegistryResult(DONE, now_ms=110)
        apply(registry, Claim("ani", "a~1", 10, FORGET_AT_MS, secondary_reference="b~1"), 120)
        assert apply(registry, drop, 200).status is TAKEN

    def test_a_claim_is_forgotten_at_its_time(self) -> None:
        """It does not exist from then on, swept or not. A sweep is bounded."""
        registry = Registry("~n.00")
        for number in range(SWEEP_MAX + 2):
            apply(registry, claim(f"p{number:02}"), 100)
        assert apply(registry, claim("p00", "b~1"), FORGET_AT_MS - 1).status is TAKEN
        last = f"p{SWEEP_MAX + 1:02}"
        assert apply(registry, claim(last, "b~1", forget_at_ms=5_000), FORGET_AT_MS).ok
        assert sorted(registry.claims) == [f"p{SWEEP_MAX:02}", last]
        assert apply(registry, claim("p50", forget_at_ms=5_000), FORGET_AT_MS).ok
        assert sorted(registry.claims) == [last, "p50"]

    def test_a_claim_lasts_as_long_as_its_lease(self) -> None:
        """An earlier ``forget_at_ms`` does not shorten it, because its writer is at work."""
        registry = Registry("~n.00")
        apply(registry, claim(forget_at_ms=101), 100)
        assert apply(registry, claim(reference="b~1"), 105).status is TAKEN
        assert apply(registry, claim(reference="b~1"), 110).ok

    def test_time_does_not_run_backwards(self) -> None:
        """An earlier time counts as the time of the last change."""
        registry = Registry("~n.00")
        apply(registry, claim(), 100)
        assert apply(registry, claim("budi"), 50) == RegistryResult(DONE, "a~1", 2, 110, 100)
        assert ask(registry, FindClaims(("ani", "citra", "budi")), 60) == FoundClaims(
            100, ("a~1", "", "a~1"), ("",) * 3
        )

    def test_claims_that_are_dropped_again_cost_no_memory(self) -> None:
        """A thousand refused attempts leave no entry, not even in the heap of times."""
        registry = Registry("~n.00")
        for now_ms in range(1_000):
            apply(registry, Drop("ani", apply(registry, claim(forget_at_ms=10**6), now_ms).number), now_ms)
        assert (registry.claims, len(registry.claims_due) < 100) == ({}, True)


class TestMoves:
    def test_a_reservation_has_one_move_at_a_time(self) -> None:
        """Another target is refused and sees the open move. The same target renews it."""
        registry = Registry("~n.00")
        assert apply(registry, open_move(), 100) == RegistryResult(DONE, "b~2", 1, 110, 100)
        assert apply(registry, open_move("c~3"), 101) == RegistryResult(TAKEN, "b~2", 1, 110, 101)
        assert apply(registry, open_move(), 102) == RegistryResult(DONE, "b~2", 2, 112, 102, renewed=True)
        assert apply(registry, open_move(forget_at_ms=5_000), 103).ok
        assert registry.moves["a~1"].forget_at_ms == 5_000

    def test_a_completed_move_is_remembered(self) -> None:
        """A repeated move sees it, a late failure report is refused, and another move is refused."""
        registry = Registry("~n.00")
        apply(registry, open_move(), 100)
        closed = apply(registry, CloseMove("a~1", "b~2", done=True), 101)
        assert closed == RegistryResult(DONE, "b~2", 2, 110, 101, done=True)
        assert apply(registry, CloseMove("a~1", "b~2", done=True), 102).ok
        assert apply(registry, CloseMove("a~1", "b~2", done=False), 102).status is TAKEN
        assert apply(registry, open_move(), 103) == RegistryResult(DONE, "b~2", 2, 110, 103, done=True, renewed=True)
        assert ask(registry, FindMove("a~1"), 103) == [MoveEntry("a~1", "b~2", 3, 2, 110, FORGET_AT_MS, done=True)]
        assert apply(registry, open_move("c~3"), 104) == RegistryResult(TAKEN, "b~2", 2, 110, 104, done=True)

    def test_a_failed_move_is_deleted_by_its_number(self) -> None:
        """Without a number, any attempt may delete it. Another attempt has another number."""
        registry = Registry("~n.00")
        first = apply(registry, open_move(), 100).number
        second = apply(registry, open_move(), 101).number
        assert apply(registry, CloseMove("a~1", "b~2", done=False, number=first), 102).status is TAKEN
        assert apply(registry, CloseMove("a~1", "c~3", done=False), 102).status is TAKEN
        assert apply(registry, CloseMove("a~1", "b~2", done=False, number=second), 102).ok
        assert ask(registry, FindMove("a~1"), 102) == []
        assert apply(registry, CloseMove("a~1", "b~2", done=False), 103) == RegistryResult(DONE, now_ms=103)

    def test_open_moves_with_an_ended_lease_are_found(self) -> None:
        """The earliest end comes first, up to the limit. Running leases and completed moves are excluded."""
        registry = Registry("~n.00")
        for number, now_ms in enumerate((103, 101, 102, 101)):
            apply(registry, open_move(source=f"a~{number}"), now_ms)
        apply(registry, CloseMove("a~2", "b~2", done=True), 104)
        found = ask(registry, OpenMoves(10), 111)
        assert [one.source for one in found] == []  # a clock that jumped back changes no lease: all were made at 103
        assert [one.source for one in ask(registry, OpenMoves(10), 113)] == ["a~0", "a~1", "a~3"]
        assert [one.source for one in ask(registry, OpenMoves(2), 113)] == ["a~0", "a~1"]
        assert ask(registry, OpenMoves(10, over_for_ms=5), 117) == []
        assert len(ask(registry, OpenMoves(10, over_for_ms=5), 118)) == 3

    def test_a_move_is_forgotten_at_its_time(self) -> None:
        registry = Registry("~n.00")
        apply(registry, open_move(), 100)
        assert ask(registry, FindMove("a~1"), FORGET_AT_MS) == []
        apply(registry, claim(forget_at_ms=5_000), FORGET_AT_MS)
        assert registry.moves == {}


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: claim(applicant="a b"), "applicant: not a valid id"),
    (lambda: claim(reference="a"), "reference: not a reference"),
    (lambda: Claim("ani", 7, 1, 1), "reference: not a reference"),  # type: ignore[arg-type]
    (lambda: Claim("ani", "a~1", 0, 1), "lease_ms: 0"),
    (lambda: Claim("ani", "a~1", 1, 0), "forget_at_ms: 0"),
    (lambda: claim(instead_of=-1), "replaces_number: -1"),
    (lambda: Claim("ani", "a~1", 1, 1, secondary_reference="b"), "secondary_reference: not a reference"),
    (lambda: Drop("", 1), "applicant: an empty id"),
    (lambda: Drop("ani", 0), "number: 0"),
    (lambda: Drop("ani", 1, "a~1"), "number: 1"),
    (lambda: Drop("ani", reference="a"), "reference: not a reference"),
    (lambda: open_move(source="a~b~c"), "source: not a reference"),
    (lambda: open_move("~"), "target: not a reference"),
    (lambda: OpenMove("a~1", "b~2", 0, 1, 1), "version: 0"),
    (lambda: OpenMove("a~1", "b~2", 1, 0, 1), "lease_ms: 0"),
    (lambda: OpenMove("a~1", "b~2", 1, 1, TIME_MS_MAX + 1), "forget_at_ms: "),
    (lambda: CloseMove("", "b~2", done=True), "source: not a reference"),
    (lambda: CloseMove("a~1", "", done=True), "target: not a reference"),
    (lambda: CloseMove("a~1", "b~2", done=1), "done: a int; expected True or False"),  # type: ignore[arg-type]
    (lambda: CloseMove("a~1", "b~2", done=True, number=-1), "number: -1"),
    (lambda: FindClaims(()), "applicants: 0 applicants"),
    (lambda: FindClaims(("a",) * (QUERY_ITEMS_MAX + 1)), "applicants: 1001 applicants"),
    (lambda: FindClaims(("a b",)), "applicants: not a valid id"),
    (lambda: FindMove("a"), "source: not a reference"),
    (lambda: OpenMoves(0), "limit: 0"),
    (lambda: OpenMoves(1, -1), "over_for_ms: -1"),
]


@pytest.mark.parametrize(("make", "expected"), BAD)
def test_a_malformed_command_is_refused(make: Callable[[], object], expected: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert expected in str(caught.value)


def test_keys_are_spread_over_the_shards() -> None:
    """A key has the same shard in every process, and no shard has much more than its share."""
    counts = dict.fromkeys(shards(), 0)
    for number in range(16_000):
        counts[shard_of(f"applicant{number}")] += 1
    assert len(counts) == SHARDS
    assert min(counts.values()) > 3_600
    assert max(counts.values()) < 4_400
    assert shard_of("ani") == shard_of("ani")
    assert shard_of("surabaya~9f2c") in counts


class Naive:
    """A naive registry without heap and sweep."""

    def __init__(self) -> None:
        self.clock_ms = self.number = 0
        self.claims: dict[str, list[Any]] = {}
        self.moves: dict[str, list[Any]] = {}

    def apply(self, command: Any, now_ms: int) -> tuple[Any, ...]:
        now_ms = max(now_ms, self.clock_ms)
        # Dropping what is over counts as a change of that time, 16 of each kind a command.
        for entries in (self.claims, self.moves):
            over = sorted((entry[-1], key) for key, entry in entries.items() if entry[-1] <= now_ms)[:16]
            for _, key in over:
                del entries[key]
                self.clock_ms = now_ms
        kind = type(command).__name__
        entries, key = (self.claims, command.applicant) if kind in ("Claim", "Drop") else (self.moves, command.source)
        entry = entries.get(key)
        there = entry if entry is not None and entry[-1] > now_ms else None
        told: tuple[Any, ...] = getattr(self, kind)(entries, key, there, command, now_ms)
        return told

    def result(self, status: str, there: list[Any] | None) -> tuple[Any, ...]:
        return (status, *(there[:5] if there else ("", 0, 0, False, "")))

    def write(
        self, entries: dict[str, Any], key: str, now_ms: int, target: str, done: bool, command: Any, old: Any
    ) -> Any:
        self.clock_ms, self.number = now_ms, self.number + 1
        lease, forget = now_ms + command.lease_ms, max(command.forget_at_ms, now_ms + command.lease_ms)
        if old:
            lease, forget = max(lease, old[2]), max(forget, old[-1])
        also = getattr(command, "secondary_reference", "") or (old[4] if old else "")
        also = "" if also == target else also
        entries[key] = [target, self.number, lease, done, also, forget]
        return self.result("DONE", entries[key])

    def Claim(self, entries: Any, key: str, there: Any, command: Any, now_ms: int) -> Any:  # noqa: N802
        same = there is not None and there[0] == command.reference
        keeps = same and (not command.secondary_reference or there[4] in ("", command.secondary_reference))
        if there is not None and not keeps and there[1] != command.replaces_number:
            return self.result("TAKEN", there)
        return self.write(entries, key, now_ms, command.reference, False, command, there if same else None)

    def Drop(self, entries: Any, key: str, there: Any, command: Any, now_ms: int) -> Any:  # noqa: N802
        if there is not None and command.reference and (there[0], there[4]) != (command.reference, ""):
            return self.result("TAKEN", there)
        if there is not None and command.reference and there[2] > now_ms:
            return self.result("TAKEN", there)
        if there is not None and not command.reference and there[1] != command.number:
            return self.result("TAKEN", there)
        if there is not None:
            del entries[key]
            self.clock_ms, self.number = now_ms, self.number + 1
        return self.result("DONE", None)

    def OpenMove(self, entries: Any, key: str, there: Any, command: Any, now_ms: int) -> Any:  # noqa: N802
        same = there is not None and there[0] == command.target
        if there is not None and not same:
            return self.result("TAKEN", there)
        if same and there[3]:
            return self.result("DONE", there)
        return self.write(entries, key, now_ms, command.target, False, command, there if same else None)

    def CloseMove(self, entries: Any, key: str, there: Any, command: Any, now_ms: int) -> Any:  # noqa: N802
        if there is None:
            return self.result("DONE", None)
        if there[0] != command.target or command.number not in (0, there[1]) or (there[3] and not command.done):
            return self.result("TAKEN", there)
        if not there[3]:
            self.clock_ms, self.number = now_ms, self.number + 1
            if not command.done:
                del entries[key]
                return self.result("DONE", None)
            entries[key] = [there[0], self.number, there[2], True, "", there[-1]]
        return self.result("DONE", entries[key])


@pytest.mark.parametrize("seed", range(40))
def test_random_walks_equal_a_naive_registry(seed: int) -> None:
    """Each result and the final state are compared."""
    registry, naive = Registry("~n.00"), Naive()
    for now_ms, command in registry_walk(random.Random(seed), 400):
        answer = apply(registry, command, now_ms)
        told = (
            str(answer.status),
            answer.reference,
            answer.number,
            answer.lease_until_ms,
            answer.done,
            answer.secondary_reference,
        )
        assert told == naive.apply(command, now_ms), command
        assert sorted(registry.claims) == sorted(naive.claims)
        assert sorted(registry.moves) == sorted(naive.moves)
