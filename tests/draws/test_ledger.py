"""The ledger of a draw, one rule at a time and against an oracle."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_engine.conformance.random_draws import (
    CLOSES_AT_MS,
    FORGET_AT_MS,
    OPENS_AT_MS,
    PREFERENCES,
    QUESTIONS,
    TERMS,
    walk,
)
from quota_engine.domain.errors import InvalidRequest
from quota_engine.draws.commands import (
    CloseDraw,
    CreateDraw,
    DrawCommand,
    DrawConfig,
    FreezeDraw,
    OfferDay,
    RevealSeed,
    SubmitApplication,
    WithdrawApplication,
)
from quota_engine.draws.ledger import DrawLedger, address_of, answer_query, apply, describe
from quota_engine.draws.lottery import commitment_of
from quota_engine.draws.outcomes import DrawOutcome, DrawStatus
from quota_engine.draws.queries import (
    DrawPhase,
    FindApplication,
    FoundApplication,
    ReadApplications,
    ReadDraw,
    ReadOfferedDays,
    ReadPreferences,
    StoredApplication,
)
from quota_engine.ledger_kinds import kind_of
from tests.support.draw_oracle import DrawOracle
from tests.support.draw_samples import DAY, DRAW, SEED

ANI = SubmitApplication(("ani",), PREFERENCES[:2])


def opened(terms: DrawConfig = TERMS) -> DrawLedger:
    """Return a draw that accepts applications at time 100."""
    ledger = DrawLedger(address_of(DRAW))
    assert apply(ledger, CreateDraw(terms), 0).ok
    return ledger


def closed(*commands: DrawCommand, terms: DrawConfig = TERMS) -> DrawLedger:
    """Return a draw after these commands and its close."""
    ledger = opened(terms)
    for command in commands:
        assert apply(ledger, command, OPENS_AT_MS).ok, command
    assert apply(ledger, CloseDraw(), CLOSES_AT_MS).ok
    return ledger


def status(ledger: DrawLedger, command: DrawCommand, now_ms: int = OPENS_AT_MS) -> DrawStatus:
    return apply(ledger, command, now_ms).status


@pytest.mark.slow
@given(st.integers(0, 10**6))
def test_random_walks_match_the_oracle(seed: int) -> None:
    """Outcomes, applications and counters agree."""
    ledger, oracle = DrawLedger(address_of(DRAW)), DrawOracle(DRAW)
    for now_ms, command in walk(Random(seed)):
        before = msgspec.json.encode(_plain(ledger))
        outcome = apply(ledger, command, now_ms)
        expected = oracle.apply(command, now_ms)
        assert (outcome.status, outcome.number, outcome.version, outcome.replayed) == expected, command
        if not outcome.ok or outcome.replayed:
            assert msgspec.json.encode(_plain(ledger)) == before, command
        for entry in oracle.entries:
            applied = ledger.applications[entry.number]
            assert (applied.version, applied.epoch, applied.applicants) == (entry.version, entry.epoch, entry.party)
            if outcome.number == entry.number:
                assert outcome.epoch == entry.epoch
            assert tuple(ledger.preferences[number - 1] for number in applied.preferences) == entry.preferences
        parties = [entry.party for entry in oracle.entries if entry.party]
        assert ledger.application_of == {person: entry.number for entry in oracle.entries for person in entry.party}
        assert (ledger.active_applications, ledger.active_applicants) == (len(parties), sum(map(len, parties)))
        assert ledger.last_number == len(ledger.applications) == len(ledger.assigned_numbers) == len(oracle.entries)


def _plain(ledger: DrawLedger) -> list[object]:
    return [repr(item) for item in describe(ledger).items()]


def test_walks_reach_every_status() -> None:
    """``OVERLOADED`` is a status of stores only."""
    reached = set()
    for seed in range(300):
        ledger = DrawLedger(address_of(DRAW))
        reached |= {apply(ledger, command, now_ms).status for now_ms, command in walk(Random(seed))}
    assert reached == set(DrawStatus) - {DrawStatus.OVERLOADED}


@given(st.integers(0, 10**6))
def test_queries_change_nothing(seed: int) -> None:
    random = Random(seed)
    ledger = DrawLedger(address_of(DRAW))
    for now_ms, command in walk(random, random.randrange(60)):
        apply(ledger, command, now_ms)
    before = _plain(ledger)
    for question in QUESTIONS:
        answer_query(ledger, question, random.randrange(800))
    assert _plain(ledger) == before


# --- Who applies -----------------------------------------------------------------------------------------------------


def test_identity_can_be_in_one_application() -> None:
    ledger = opened()
    assert apply(ledger, SubmitApplication(("ani", "budi"), PREFERENCES[:1]), 100) == DrawOutcome(
        DrawStatus.APPLIED, 1, 1, epoch=1
    )
    assert status(ledger, SubmitApplication(("budi",), PREFERENCES[:1])) is DrawStatus.ALREADY_APPLIED
    assert status(ledger, SubmitApplication(("citra", "budi"), PREFERENCES[:1])) is DrawStatus.ALREADY_APPLIED
    assert status(ledger, SubmitApplication(("budi", "ani"), PREFERENCES[:1])) is DrawStatus.ALREADY_APPLIED
    assert apply(ledger, SubmitApplication(("citra",), PREFERENCES[:1]), 100).number == 2


def test_change_needs_the_current_version() -> None:
    """The number stays. A late or repeated command never undoes a later one."""
    ledger = opened()
    assert apply(ledger, ANI, 100) == DrawOutcome(DrawStatus.APPLIED, 1, 1, epoch=1)
    assert apply(ledger, ANI, 101) == DrawOutcome(DrawStatus.APPLIED, 1, 1, replayed=True, epoch=1)
    other = SubmitApplication(("ani",), PREFERENCES[2:3], 1)
    assert apply(ledger, other, 102) == DrawOutcome(DrawStatus.APPLIED, 1, 2, epoch=1)
    assert apply(ledger, ANI, 103) == DrawOutcome(DrawStatus.STALE, 1, 2, epoch=1)
    assert apply(ledger, other, 104) == DrawOutcome(DrawStatus.APPLIED, 1, 2, replayed=True, epoch=1)
    with_budi = SubmitApplication(("ani", "budi"), PREFERENCES[:1], 2)
    assert apply(ledger, with_budi, 105) == DrawOutcome(DrawStatus.APPLIED, 1, 3, epoch=1)
    assert answer_query(ledger, FindApplication("budi"), 105) == FoundApplication(
        StoredApplication(1, 3, ("ani", "budi"), (1,)), PREFERENCES[:1]
    )


def test_withdrawals_use_up_no_numbers() -> None:
    """There are never more numbers than applicants."""
    ledger = opened()
    version = 0
    for _ in range(50):
        assert apply(ledger, SubmitApplication(("ani", "budi"), PREFERENCES[:1], version), 100).number == 1
        assert apply(ledger, WithdrawApplication("budi", version + 1), 100).version == version + 2
        version += 2
        assert apply(ledger, SubmitApplication(("budi",), PREFERENCES[:1], version - 2), 100).number == 2
        assert apply(ledger, WithdrawApplication("budi", version - 1), 100).ok
    assert ledger.last_number == 2
    assert ledger.application_of == {}


def test_late_withdrawal_does_not_undo_a_later_change() -> None:
    ledger = opened()
    apply(ledger, ANI, 100)
    assert apply(ledger, WithdrawApplication("ani", 1), 101) == DrawOutcome(DrawStatus.WITHDRAWN, 1, 2, epoch=1)
    assert apply(ledger, WithdrawApplication("ani", 1), 102) == DrawOutcome(
        DrawStatus.WITHDRAWN, 1, 2, replayed=True, epoch=1
    )
    assert apply(ledger, ANI, 103) == DrawOutcome(DrawStatus.STALE, 1, 2, epoch=1)
    assert apply(ledger, SubmitApplication(("ani",), PREFERENCES[:1], 2), 104).ok
    assert apply(ledger, WithdrawApplication("ani", 1), 105) == DrawOutcome(DrawStatus.STALE, 1, 3, epoch=1)
    assert answer_query(ledger, ReadApplications(0), 105) == [StoredApplication(1, 3, ("ani",), (1,))]


def test_applications_choices_and_parties_are_bounded() -> None:
    """An applicant who has a number can still change their application."""
    ledger = opened(msgspec.structs.replace(TERMS, applications_max=2))
    assert apply(ledger, ANI, 100).ok
    assert apply(ledger, SubmitApplication(("budi",), PREFERENCES[:1]), 100).ok
    assert status(ledger, SubmitApplication(("citra",), PREFERENCES[:1])) is DrawStatus.DRAW_FULL
    assert apply(ledger, SubmitApplication(("ani",), PREFERENCES[:1], 1), 100).ok
    assert status(ledger, SubmitApplication(("d", "e", "f", "g"), PREFERENCES[:1])) is DrawStatus.PARTY_TOO_LARGE
    assert status(ledger, SubmitApplication(("d",), PREFERENCES[:4])) is DrawStatus.TOO_MANY_CHOICES
    assert status(ledger, SubmitApplication(("d",), PREFERENCES[4:])) is DrawStatus.NOT_IN_DRAW


# --- When ------------------------------------------------------------------------------------------------------------


def test_store_clock_opens_and_closes_a_draw() -> None:
    """A clock that is set back does not reopen it."""
    ledger = opened()
    early = apply(ledger, ANI, OPENS_AT_MS - 1)
    assert early == DrawOutcome(DrawStatus.NOT_OPEN, retry_at_ms=OPENS_AT_MS)
    assert apply(ledger, ANI, OPENS_AT_MS).ok
    assert apply(ledger, SubmitApplication(("budi",), PREFERENCES[:1]), CLOSES_AT_MS - 1).ok
    for command in (
        SubmitApplication(("citra",), PREFERENCES[:1]),
        WithdrawApplication("ani", 1),
        SubmitApplication(("ani",), PREFERENCES[:1], 1),
    ):
        assert status(ledger, command, CLOSES_AT_MS) is DrawStatus.APPLICATIONS_CLOSED
    assert apply(ledger, CloseDraw(), CLOSES_AT_MS - 1) == DrawOutcome(DrawStatus.STILL_OPEN, retry_at_ms=CLOSES_AT_MS)
    assert apply(ledger, CloseDraw(), CLOSES_AT_MS).ok
    assert status(ledger, ANI, OPENS_AT_MS) is DrawStatus.APPLICATIONS_CLOSED
    assert answer_query(ledger, ReadDraw(), OPENS_AT_MS).phase is DrawPhase.CLOSED


def test_settings_cannot_be_changed() -> None:
    ledger = opened()
    assert apply(ledger, CreateDraw(TERMS), 1).replayed
    for change in ({"closes_at_ms": 500}, {"commitment": "0" * 64}, {"party_max": 5}, {"entropy_source": "index"}):
        assert status(ledger, CreateDraw(msgspec.structs.replace(TERMS, **change)), 1) is DrawStatus.CONFLICT


def test_forgotten_draw_is_unknown_and_its_id_free() -> None:
    ledger = closed(ANI)
    for command in (ANI, WithdrawApplication("ani", 1), CloseDraw(), OfferDay("sby", DAY, ()), RevealSeed(DRAW, SEED)):
        assert status(ledger, command, FORGET_AT_MS) is DrawStatus.UNKNOWN_DRAW
    assert status(ledger, FreezeDraw(1, "0" * 64, "0" * 64), FORGET_AT_MS) is DrawStatus.UNKNOWN_DRAW
    assert [answer_query(ledger, question, FORGET_AT_MS) or None for question in QUESTIONS] == [None] * len(QUESTIONS)
    assert status(ledger, CreateDraw(TERMS), FORGET_AT_MS) is DrawStatus.DRAW_OVER
    later = msgspec.structs.replace(TERMS, opens_at_ms=800, closes_at_ms=900, forget_at_ms=1000)
    assert apply(ledger, CreateDraw(later), FORGET_AT_MS).ok
    assert apply(ledger, SubmitApplication(("budi",), PREFERENCES[:1]), 800).number == 1


# --- What comes after the closing ------------------------------------------------------------------------------------


def test_seed_cannot_be_revealed_before_the_freeze() -> None:
    ledger = closed(ANI)
    assert status(ledger, RevealSeed(DRAW, SEED), CLOSES_AT_MS) is DrawStatus.NOT_FROZEN
    assert apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS).ok
    assert apply(ledger, RevealSeed(DRAW, SEED), CLOSES_AT_MS).ok
    seen = answer_query(ledger, ReadDraw(), CLOSES_AT_MS)
    assert (seen.phase, seen.seed) == (DrawPhase.REVEALED, SEED)


def test_only_the_committed_seed_is_accepted() -> None:
    ledger = closed(ANI)
    apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS)
    for wrong in (RevealSeed(DRAW, "1" * 64), RevealSeed("other", SEED), RevealSeed(DRAW, SEED, "7,123.45")):
        assert status(ledger, wrong, CLOSES_AT_MS) is DrawStatus.CONFLICT
    assert apply(ledger, RevealSeed(DRAW, SEED), CLOSES_AT_MS).ok
    assert apply(ledger, RevealSeed(DRAW, SEED), CLOSES_AT_MS).replayed


def test_entropy_is_required_and_cannot_be_changed() -> None:
    ledger = closed(ANI, terms=msgspec.structs.replace(TERMS, entropy_source="closing price"))
    apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS)
    assert status(ledger, RevealSeed(DRAW, SEED), CLOSES_AT_MS) is DrawStatus.CONFLICT
    assert apply(ledger, RevealSeed(DRAW, SEED, "7,123.45"), CLOSES_AT_MS).ok
    assert status(ledger, RevealSeed(DRAW, SEED, "7,123.46"), CLOSES_AT_MS) is DrawStatus.CONFLICT


def test_capacities_are_recorded_once_and_before_the_freeze() -> None:
    ledger = opened()
    day = OfferDay("sby", DAY, (("online", 3),))
    assert status(ledger, day, OPENS_AT_MS) is DrawStatus.NOT_CLOSED
    ledger = closed(ANI)
    assert apply(ledger, day, CLOSES_AT_MS) == DrawOutcome(DrawStatus.DONE, quotas=day.quotas)
    again = apply(ledger, OfferDay("sby", DAY, (("online", 9),)), CLOSES_AT_MS)
    assert again == DrawOutcome(DrawStatus.DONE, replayed=True, quotas=day.quotas)
    assert status(ledger, OfferDay("sby", DAY + 2, ()), CLOSES_AT_MS) is DrawStatus.NOT_IN_DRAW
    assert apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS).ok
    assert status(ledger, OfferDay("mlg", DAY, ()), CLOSES_AT_MS) is DrawStatus.FROZEN
    assert answer_query(ledger, ReadOfferedDays(0), CLOSES_AT_MS) == [day]


def test_freeze_checks_the_number_of_applications() -> None:
    ledger = closed(ANI)
    assert status(ledger, FreezeDraw(2, "a" * 64, "b" * 64), CLOSES_AT_MS) is DrawStatus.CONFLICT
    assert status(opened(), FreezeDraw(0, "a" * 64, "b" * 64)) is DrawStatus.NOT_CLOSED
    assert apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS).ok
    assert apply(ledger, FreezeDraw(1, "a" * 64, "b" * 64), CLOSES_AT_MS).replayed
    assert status(ledger, FreezeDraw(1, "a" * 64, "c" * 64), CLOSES_AT_MS) is DrawStatus.CONFLICT


def test_pages_cover_everything() -> None:
    ledger = opened(msgspec.structs.replace(TERMS, applications_max=10))
    for number in range(7):
        assert apply(ledger, SubmitApplication((f"p{number}",), (PREFERENCES[number % 4],)), 100).ok
    apply(ledger, WithdrawApplication("p3", 1), 100)
    pages = [answer_query(ledger, ReadApplications(after, 2), 100) for after in range(0, 8, 2)]
    assert [one.number for page in pages for one in page] == [1, 2, 3, 5, 6, 7]
    assert [one for after in range(5) for one in answer_query(ledger, ReadPreferences(after, 1), 100)] == list(
        PREFERENCES[:4]
    )


# --- What is refused as soon as it is made ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: msgspec.structs.replace(TERMS, closes_at_ms=100),
        lambda: msgspec.structs.replace(TERMS, forget_at_ms=399),
        lambda: msgspec.structs.replace(TERMS, last_day=DAY - 1),
        lambda: msgspec.structs.replace(TERMS, last_day=DAY + 400),
        lambda: msgspec.structs.replace(TERMS, commitment="secret"),
        lambda: msgspec.structs.replace(TERMS, entropy_source="a\tb"),
        lambda: msgspec.structs.replace(TERMS, party_max=0),
        lambda: msgspec.structs.replace(TERMS, choices_max=51),
        lambda: msgspec.structs.replace(TERMS, applications_max=10_000_001),
        lambda: SubmitApplication((), PREFERENCES[:1]),
        lambda: SubmitApplication(tuple(f"a{index}" for index in range(101)), PREFERENCES[:1]),
        lambda: SubmitApplication(("a b",), PREFERENCES[:1]),
        lambda: SubmitApplication(("a", "a"), PREFERENCES[:1]),
        lambda: SubmitApplication(("a",), ()),
        lambda: SubmitApplication(("a",), (PREFERENCES[0], PREFERENCES[0])),
        lambda: SubmitApplication(("a",), PREFERENCES[:1], -1),
        lambda: WithdrawApplication("", 1),
        lambda: WithdrawApplication("a", 0),
        lambda: OfferDay("a b", DAY, ()),
        lambda: OfferDay("a", 0, ()),
        lambda: OfferDay("a", DAY, (("q", 1), ("q", 2))),
        lambda: OfferDay("a", DAY, (("q", -1),)),
        lambda: OfferDay("a", DAY, (("q r", 1),)),
        lambda: FreezeDraw(-1, "0" * 64, "0" * 64),
        lambda: FreezeDraw(0, "0" * 63, "0" * 64),
        lambda: FreezeDraw(0, "0" * 64, "X" * 64),
        lambda: RevealSeed("a b", SEED),
        lambda: RevealSeed(DRAW, "0"),
        lambda: RevealSeed(DRAW, SEED, "é"),
        lambda: FindApplication("a b"),
        lambda: ReadApplications(-1),
        lambda: ReadApplications(0, 2001),
        lambda: address_of("a b"),
    ],
)
def test_invalid_commands_are_rejected(make: object) -> None:
    with pytest.raises(InvalidRequest):
        make()  # type: ignore[operator]


def test_address_contains_the_id() -> None:
    place = address_of(DRAW)
    assert place == f"~draw.{DRAW}"
    assert kind_of(place).prefix == "~draw"
    assert commitment_of(DRAW, SEED) == TERMS.commitment
