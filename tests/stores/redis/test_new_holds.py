"""Reserves that only take a free place have a fast path in Lua (``lua/office/new_holds.lua``).

It must write the same bytes as the general path. A server without functions knows no office from earlier calls, so it
always takes the general path. Both get the same calls here, and all that they have stored is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import msgspec
import pytest

from quota_engine.admission.guarded_command import GuardedCommand
from quota_engine.conformance.world import DAY, OPENS_AT_MS, STARTS_AT_MS
from quota_engine.domain.commands import (
    Cancel,
    CloseDay,
    Command,
    Confirm,
    Expire,
    MarkNoShow,
    OpenDay,
    Publish,
    Release,
    Reschedule,
    Reserve,
    SetCapacity,
    SetRules,
)
from quota_engine.domain.model import (
    Choice,
    DayTerms,
    GuardScope,
    IdentityLimit,
    QuotaTerms,
    Reallocation,
    ReRelease,
    ReReleaseRule,
    Rules,
)
from quota_engine.fuzz.lua_server import HalfDone, LuaServer
from quota_engine.stores.redis.codecs.office import encode
from quota_engine.stores.redis.keys import OFFICE_KEY_NAMES, keys_of
from quota_engine.stores.redis.scripts import OFFICE_COMMANDS, OFFICE_GUARDED_COMMANDS, RECONCILE, Script
from tests.support.effort import seeds
from tests.support.stored_offices import comparable_keys

KEYS: Final = keys_of("", "office")
HEAD, DAYS, RECORDS = KEYS[:3]
A_LONE_HOLD: Final = {"HGET": 3, "XADD": 1, "HSET": 4, "ZADD": 1}
"""The server commands of a lone reserve, with the time of an injected clock."""
HOLDS_TOGETHER: Final = {"HGET": 1, "HMGET": 2, "XADD": 5, "HSET": 4, "ZADD": 1}
"""Those of five reserves on one day. A general command behind some of them reads more."""
BY_SCRIPT: Final = Script(OFFICE_COMMANDS.text, OFFICE_COMMANDS.sha1)
"""The same commands as a script, which a server with functions runs for clients with ``functions=off``."""


QUOTA: Final = QuotaTerms("a", 40)
DAY_MS: Final = 86_400_000


def choice(*options: tuple[str, ...], service: str = "new") -> Choice:
    """Return a choice with these options."""
    return Choice(service, "", "", "online", "", options)


CHOICES: Final = (
    choice(("a",)),
    choice(("a",), service="renewal"),
    choice(("b",)),
    choice(("a", "b")),
    choice(("b",), ("c",)),
)


def terms(random: Random) -> DayTerms:
    """Return a day with three quotas."""
    rules = (ReRelease(), ReRelease(ReReleaseRule.WAIT_LIST), ReRelease(ReReleaseRule.COOLING, 5, 9))
    quotas = [QuotaTerms(name, random.choice((3, 200, 200)), random.choice(rules)) for name in "abc"]
    opens_at_ms = random.choice((0, 0, 0, OPENS_AT_MS + 200))
    return DayTerms(opens_at_ms, STARTS_AT_MS, STARTS_AT_MS + 1000, STARTS_AT_MS + 9000, tuple(quotas))


def office_rules(random: Random) -> Rules:
    """Return rules of an office."""
    return Rules(
        hold_ttl_ms=random.choice((30, 5000, 5000)),
        extensions_max=random.choice((0, 2)),
        identity_limits=random.choice(((), (IdentityLimit(1, 1),))),
        no_show_block_ms=random.choice((0, 100)),
        abandoned_holds_max=random.choice((0, 0, 0, 2)),
    )


def opening(random: Random) -> Iterator[Command]:
    """Return many reserves of few choices, and sometimes anything else."""
    yield SetRules(office_rules(random))
    days = (DAY, DAY + 1)
    for day in days:
        yield Publish(day, terms(random))
    for number in range(1, 250):
        known = f"k{random.randrange(number)}"
        other = random.randrange(60)
        if other == 0:
            yield (
                SetRules(office_rules(random)) if random.random() < 0.5 else Publish(random.choice(days), terms(random))
            )
        elif other == 1:
            yield SetCapacity(random.choice(days), random.choice("abc"), random.choice((5, 60, 300)))
        elif other == 2:
            steps: list[Command] = [CloseDay(DAY), Expire(DAY, 2), *[OpenDay(DAY)] * 4]
            yield random.choice(steps)
        elif other < 6:
            steps = [Confirm(known), Release(known), Cancel(known), MarkNoShow(known)]
            yield random.choice(steps)
        else:
            party = tuple(f"p{random.randrange(900)}" for _ in range(random.choice((1, 1, 1, 1, 2))))
            key = known if random.randrange(12) == 0 else f"k{number}"
            wanted = CHOICES[0] if random.random() < 0.7 else random.choice(CHOICES)
            ttl_ms = random.choice((0, 0, 0, 0, 0, 0, 0, 7000, 70))
            yield Reserve(key, random.choice(days), tuple(dict.fromkeys(party)), wanted, random.random() < 0.1, ttl_ms)


def batches(random: Random, commands: Sequence[Command], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Return the commands as lines of calls."""
    lines = [encode(command) for command in commands]
    while lines:
        size = random.choice(sizes)
        yield lines[:size]
        lines = lines[size:]


def stored(server: LuaServer) -> dict[str, Any]:
    """Return everything that a server has stored, in a form in which equal offices are equal."""
    found = {key: dict(value) if isinstance(value, dict) else vars(value) for key, value in server.save().items()}
    return comparable_keys(found, HEAD, DAYS)


class BothPaths:
    """A server that knows offices from earlier calls, and one that does not."""

    def __init__(self) -> None:
        self.knowing, self.general = LuaServer(), LuaServer(functions=False)
        self.lone_holds = self.holds_together = self.holds_in_front = 0

    def run(self, script: Script, now_ms: int, lines: Sequence[str]) -> list[str]:
        """Run a call on both; returns its reply."""
        self.knowing.calls.clear()
        words = [str(now_ms), *lines]
        reply = self.knowing.run(script, KEYS, words)
        calls = dict(self.knowing.calls)
        if reply[0].startswith("NEW"):
            self.lone_holds += calls == A_LONE_HOLD
            is_read_together = len(lines) > 1 and calls.get("HMGET", 0) == HOLDS_TOGETHER["HMGET"]
            self.holds_together += is_read_together and calls["XADD"] == len(lines)
            self.holds_in_front += calls.get("HMGET", 0) > HOLDS_TOGETHER["HMGET"]
        assert self.general.run(script, KEYS, words) == reply, lines
        assert stored(self.knowing) == stored(self.general), lines
        return reply


@pytest.mark.slow
def test_both_paths_write_the_same() -> None:
    """Openings with all sizes of calls, in which most holds take the fast path."""
    found = [0, 0, 0]
    for seed in seeds(12, 60):
        random, both, now_ms = Random(seed), BothPaths(), OPENS_AT_MS
        for lines in batches(random, list(opening(random)), ((1,), (1, 2, 5), (3, 8))[seed % 3]):
            now_ms += random.choice((0, 0, 1, 7, 40, -3))
            both.run(OFFICE_COMMANDS, now_ms, lines)
        more = (both.lone_holds, both.holds_together, both.holds_in_front)
        found = [one + other for one, other in zip(found, more, strict=True)]
    assert min(found) > 20, found


@pytest.mark.slow
def test_other_writers_and_older_copies_are_noticed() -> None:
    """Scripts and guarded commands write between calls, and a copy of the store is restored."""
    lone_holds = 0
    for seed in seeds(12, 60):
        random, both, now_ms = Random(1000 + seed), BothPaths(), OPENS_AT_MS
        saved = None
        for lines in batches(random, list(opening(random)), (1, 1, 3)):
            now_ms += random.choice((0, 1, 7))
            writer = random.choice((*[OFFICE_COMMANDS] * 5, OFFICE_GUARDED_COMMANDS, BY_SCRIPT))
            both.run(writer, now_ms, lines)
            if random.randrange(20) == 0:
                saved = both.knowing.save(), both.general.save()
            elif saved and random.randrange(20) == 0:
                both.knowing.restore(saved[0])
                both.general.restore(saved[1])
        lone_holds += both.lone_holds
    assert lone_holds > 50


def published(both: BothPaths, quota: QuotaTerms = QUOTA) -> None:
    """Publish a day with one quota, and hold a place on it."""
    day = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS + 1000, STARTS_AT_MS + 9000, (quota,))
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(SetRules(Rules())), encode(Publish(DAY, day))])
    hold(both, 0)


def hold(both: BothPaths, *numbers: int, script: Script = OFFICE_COMMANDS) -> list[str]:
    """Reserve for new applicants in one call; returns its reply."""
    lines = [encode(Reserve(f"k{number}", DAY, (f"p{number}",), CHOICES[0])) for number in numbers]
    return both.run(script, OPENS_AT_MS + 1, lines)


def test_a_lone_hold_makes_nine_server_calls() -> None:
    """Neither the day, the rules, the choice nor the penalties are read again. With the server's time there are ten."""
    both = BothPaths()
    published(both)
    hold(both, 1)
    assert both.lone_holds == 1


def test_holds_of_a_batch_share_their_server_calls() -> None:
    """Only the events are separate calls."""
    both = BothPaths()
    published(both)
    hold(both, 1, 2, 3, 4, 5)
    assert dict(both.knowing.calls) == HOLDS_TOGETHER


def test_a_batch_with_one_applicant_twice_holds_one_place() -> None:
    """The second command sees the first one, although both were read together; so does a repeated key."""
    both = BothPaths()
    published(both)
    again = [encode(Reserve(key, DAY, ("p",), CHOICES[0])) for key in ("x", "y")]
    lines = both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [*again, again[0]])
    assert [line.split("\t")[0] for line in lines] == ["NEW", "HELD", "HELD"]


def test_a_key_of_another_applicant_in_the_batch_is_a_conflict() -> None:
    """Neither command finds the record of the other one in the store."""
    both = BothPaths()
    published(both)
    lines = [encode(Reserve("x", DAY, (applicant,), CHOICES[0])) for applicant in ("p", "q")]
    found = both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, lines)
    assert [line.split("\t")[0] for line in found] == ["NEW", "CONFLICT"]


@pytest.mark.parametrize("others", [(), (7, 8)], ids=["alone", "in-a-batch"])
def test_a_blocked_applicant_gets_no_place(others: tuple[int, ...]) -> None:
    """The server knows that the office has penalties, and reads that of the applicant."""
    both = BothPaths()
    published(both)
    rules = Rules(cancellations_max=1, cancellations_block_ms=60_000)
    again = Reserve("k00", DAY, ("p0",), CHOICES[0])
    commands: list[Command] = [SetRules(rules), Confirm("k0"), Cancel("k0"), again, Confirm("k00"), Cancel("k00")]
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(command) for command in commands])
    hold(both, 1)
    hold(both, 2)
    assert both.knowing.calls == {**A_LONE_HOLD, "HGET": A_LONE_HOLD["HGET"] + 1}
    applicants = ("p0", *(f"p{number}" for number in others))
    lines = [encode(Reserve(f"again-{one}", DAY, (one,), CHOICES[0])) for one in applicants]
    found = both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, lines)
    assert [line.split("\t")[0] for line in found] == ["BLOCKED", *["NEW"] * len(others)]


def test_units_that_wait_for_a_party_are_not_free() -> None:
    """The wait list withholds them, although the quota has them."""
    both = BothPaths()
    quota = QuotaTerms("a", 3, ReRelease(ReReleaseRule.WAIT_LIST, blocks_ms=60_000))
    published(both, quota)
    hold(both, 1)
    hold(both, 2)
    party = encode(Reserve("x", DAY, ("p", "q"), CHOICES[0], join_wait_list=True))
    assert both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [party])[0].startswith("WAITING")
    both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [encode(Release("k1"))])
    assert hold(both, 3)[0].startswith("SOLD_OUT")


def long_holds(both: BothPaths) -> None:
    """Publish two days, the second of which is forgotten later, in an office whose holds last beyond both of them."""
    commands: list[Command] = [SetRules(Rules(hold_ttl_ms=100 * DAY_MS, identity_limits=()))]
    for day, later_ms in ((DAY, 0), (DAY + 1, 2 * DAY_MS)):
        forget_at_ms = STARTS_AT_MS + DAY_MS + later_ms
        commands.append(Publish(day, DayTerms(0, STARTS_AT_MS, forget_at_ms - 1000, forget_at_ms, (QUOTA,))))
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(command) for command in commands])
    for number in range(4):
        line = encode(Reserve(f"k{number}", DAY + number % 2, (f"p{number}",), CHOICES[0]))
        both.run(OFFICE_COMMANDS, OPENS_AT_MS, [line])


def test_a_day_that_is_over_has_no_places() -> None:
    """Nothing is due then, and the day is as the server knows it."""
    both = BothPaths()
    long_holds(both)
    line = encode(Reserve("x", DAY, ("p",), CHOICES[0]))
    assert both.run(OFFICE_COMMANDS, STARTS_AT_MS + DAY_MS - 1000, [line])[0].startswith("DAY_OVER")


def test_a_hold_on_one_day_lets_another_one_be_forgotten() -> None:
    """The first command after its retention forgets it, on whichever day that is."""
    both = BothPaths()
    long_holds(both)
    line = encode(Reserve("x", DAY + 1, ("p",), CHOICES[0]))
    assert both.run(OFFICE_COMMANDS, STARTS_AT_MS + DAY_MS, [line])[0].startswith("NEW")
    assert str(DAY) not in both.knowing.save()[DAYS]
    line = encode(Reserve("y", DAY, ("q",), CHOICES[0]))
    assert both.run(OFFICE_COMMANDS, STARTS_AT_MS + DAY_MS, [line])[0].startswith("UNKNOWN_DAY")


def test_holds_go_on_deleting_the_records_of_a_forgotten_day() -> None:
    """Each call deletes some of them, also one that only takes a free place."""
    both = BothPaths()
    commands: list[Command] = [SetRules(Rules(hold_ttl_ms=100 * DAY_MS, identity_limits=()))]
    for day, later_ms in ((DAY, 0), (DAY + 1, 2 * DAY_MS)):
        forget_at_ms = STARTS_AT_MS + DAY_MS + later_ms
        commands.append(
            Publish(day, DayTerms(0, STARTS_AT_MS, forget_at_ms - 1000, forget_at_ms, (QuotaTerms("a", 400),)))
        )
    commands += [Reserve(f"k{number}", DAY, (f"p{number}",), CHOICES[0]) for number in range(300)]
    commands += [Reserve(f"l{number}", DAY + 1, (f"l{number}",), CHOICES[0]) for number in range(2)]
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(command) for command in commands])
    for number in range(8):
        line = encode(Reserve(f"x{number}", DAY + 1, (f"q{number}",), CHOICES[0]))
        both.run(OFFICE_COMMANDS, STARTS_AT_MS + DAY_MS, [line])
    assert "k0" not in both.knowing.save()[RECORDS]


def test_a_choice_that_a_guard_counts_never_takes_the_fast_path() -> None:
    """The record has another choice than the command: with the guard, whose places it takes."""
    both = BothPaths()
    guard = QuotaTerms("g", 3, guard=GuardScope(service="new"))
    day = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS + 1000, STARTS_AT_MS + 9000, (QUOTA, guard))
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(SetRules(Rules())), encode(Publish(DAY, day))])
    both.run(
        OFFICE_COMMANDS, OPENS_AT_MS, [encode(Reserve("x", DAY, ("p",), CHOICES[1]))]
    )  # the guard does not count it
    found = [hold(both, number)[0].split("\t")[0] for number in range(4)]
    assert found == ["HELD", "HELD", "HELD", "SOLD_OUT"]


def test_a_choice_that_a_restored_copy_lacks_is_stored_again() -> None:
    """The day is the same in both copies, but the index of the choice is free again."""
    both = BothPaths()
    published(both)
    later = [encode(Reserve(key, DAY, (f"p{key}",), CHOICES[1])) for key in ("x", "y")]
    saved = both.knowing.save(), both.general.save()
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [later[0], encode(Release("x"))])
    assert both.knowing.save()[DAYS] == saved[0][DAYS]
    both.knowing.restore(saved[0])
    both.general.restore(saved[1])
    hold(both, 1)
    both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [later[1]])
    assert "2" in both.knowing.save()[KEYS[OFFICE_KEY_NAMES.index("choices")]]


def test_a_day_that_a_script_has_written_without_an_event_is_read_again() -> None:
    """The script finds that nothing is due any more. The time runs back, so a function does not find it itself."""
    both = BothPaths()
    published(both)
    due_at_ms = OPENS_AT_MS + 1 + Rules().hold_ttl_ms
    both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [encode(Release("k0"))])
    before = both.knowing.save()
    both.run(BY_SCRIPT, due_at_ms, [encode(Expire(DAY, 1))])
    after = both.knowing.save()
    assert (after[HEAD]["number"], after[DAYS] == before[DAYS]) == (before[HEAD]["number"], False)
    line = encode(Reserve("x", DAY, ("p",), CHOICES[0]))
    both.run(OFFICE_COMMANDS, OPENS_AT_MS + 2, [line])
    assert both.lone_holds == 0


def test_a_day_with_a_zero_in_front_is_left_to_the_general_path() -> None:
    """No client writes it. Its records would differ."""
    both = BothPaths()
    published(both)
    line = encode(Reserve("x", DAY, ("p",), CHOICES[0])).replace(str(DAY), f"0{DAY}")
    assert both.run(OFFICE_COMMANDS, OPENS_AT_MS + 1, [line])[0].startswith("NEW")
    assert both.lone_holds == 0


def test_a_batch_sells_the_last_place_once() -> None:
    """The first commands take what is free, and the general path refuses the rest."""
    both = BothPaths()
    published(both, QuotaTerms("a", 3))
    assert [line.split("\t")[0] for line in hold(both, 1, 2, 3, 4)] == ["NEW", "NEW", "SOLD_OUT", "SOLD_OUT"]


def test_a_line_that_is_no_command_leaves_the_holds_before_it_undone() -> None:
    """Every line is parsed before the first command is applied."""
    both = BothPaths()
    published(both)
    before = stored(both.knowing)
    good = encode(Reserve("x", DAY, ("p",), CHOICES[0]))
    for server in (both.knowing, both.general):
        with pytest.raises(Exception, match="ILLFORMED command 2"):
            server.run(OFFICE_COMMANDS, KEYS, [str(OPENS_AT_MS), good, "reserve\tx"])
    assert stored(both.knowing) == before


def test_a_deleted_store_is_not_remembered() -> None:
    """After a flush the office is new, although the server keeps its functions."""
    both = BothPaths()
    published(both)
    hold(both, 1)
    for server in (both.knowing, both.general):
        server.clear()
    assert hold(both, 2)[0].startswith("UNKNOWN_DAY")
    published(both)
    hold(both, 1)


@pytest.mark.parametrize(
    ("quotas_count", "days_count", "is_known"),
    [(1, 2_400, True), (1, 2_401, False), (20, 500, True), (20, 501, False)],
)
def test_a_server_remembers_days_by_their_size(quotas_count: int, days_count: int, is_known: bool) -> None:
    """A hold reads a day that is not remembered, and so makes more server calls."""
    server = LuaServer(is_fast=True)
    quotas = tuple(QuotaTerms(f"q{number}", 5) for number in range(quotas_count))
    day = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS, STARTS_AT_MS, quotas)
    holds = [encode(Reserve(key, DAY, (key,), choice(("q0",)))) for key in ("k", "another")]
    lines = [str(OPENS_AT_MS), encode(Publish(DAY, day)), holds[0]]
    for number in range(days_count):
        server.run(OFFICE_COMMANDS, keys_of("", f"office{number}"), lines)
    server.calls.clear()
    server.run(OFFICE_COMMANDS, keys_of("", "office0"), [str(OPENS_AT_MS), holds[1]])
    assert (dict(server.calls) == A_LONE_HOLD) == is_known, dict(server.calls)


@pytest.mark.parametrize(("days_count", "is_known"), [(499, True), (500, False)])
def test_a_day_that_is_published_again_counts_by_its_new_size(days_count: int, is_known: bool) -> None:
    """Days that grow do not outgrow the memory of the server."""
    server = LuaServer(is_fast=True)
    day = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS, STARTS_AT_MS, (QuotaTerms("q0", 5),))
    larger = msgspec.structs.replace(day, quotas=tuple(QuotaTerms(f"q{number}", 5) for number in range(20)))
    holds = [encode(Reserve(key, DAY, (key,), choice(("q0",)))) for key in ("a", "b", "c")]
    for number in range(days_count):
        for terms, hold_line in ((day, holds[0]), (larger, holds[1])):
            lines = [str(OPENS_AT_MS), encode(Publish(DAY, terms)), hold_line]
            server.run(OFFICE_COMMANDS, keys_of("", f"office{number}"), lines)
    server.run(OFFICE_COMMANDS, keys_of("", "last"), [str(OPENS_AT_MS), encode(Publish(DAY, day))])
    server.calls.clear()
    server.run(OFFICE_COMMANDS, keys_of("", "office0"), [str(OPENS_AT_MS), holds[2]])
    assert (dict(server.calls) == A_LONE_HOLD) == is_known, dict(server.calls)


def test_an_error_behind_the_first_holds_leaves_nothing_known() -> None:
    """The release is in memory when the next command meets a damaged record. The next hold must not write it."""
    both = BothPaths()
    published(both)
    hold(both, 1)
    server = both.knowing
    damaged = server.save()
    damaged[RECORDS]["damaged"] = "?"
    server.restore(damaged)
    lines = [encode(Reserve("x", DAY, ("px",), CHOICES[0])), encode(Release("k1")), encode(Confirm("damaged"))]
    with pytest.raises(HalfDone):
        server.run(OFFICE_COMMANDS, KEYS, [str(OPENS_AT_MS + 1), *lines])
    after = [encode(Reserve("y", DAY, ("py",), CHOICES[0]))]
    assert server.run(OFFICE_COMMANDS, KEYS, [str(OPENS_AT_MS + 1), *after])[0].startswith("NEW")
    saved = server.save()
    assert set(saved[RECORDS]) == {"~", "damaged", "k0", "k1", "x", "y"}
    assert saved[DAYS][str(DAY)].split("\n")[2].startswith("a\t40\t36\t4\t")


def test_a_hold_of_another_writer_on_a_set_without_holds_is_seen() -> None:
    """A refused command finds that a set of quotas has no holds, and does not write it.

    A script gives the set a hold again, and the day's text is as before: ``b,a`` has the same quotas as ``a,b``.
    """
    both, due_at_ms = BothPaths(), OPENS_AT_MS + 500
    quotas = (QuotaTerms("a", 40), QuotaTerms("b", 40), QuotaTerms("c", 1, reallocation=Reallocation("a", due_at_ms)))
    day = DayTerms(0, STARTS_AT_MS, STARTS_AT_MS + 1000, STARTS_AT_MS + 9000, quotas)
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [encode(SetRules(Rules(identity_limits=()))), encode(Publish(DAY, day))])
    one, other = choice(("a", "b")), choice(("b", "a"))
    wanted = {"c": choice(("c",)), "k": one, "x": other}
    lines = [encode(Reserve(key, DAY, (f"p{key}",), choices)) for key, choices in wanted.items()]
    both.run(OFFICE_COMMANDS, OPENS_AT_MS, [*lines, encode(Release("x"))])
    before = both.knowing.save()[DAYS]
    both.run(OFFICE_COMMANDS, due_at_ms, [encode(Expire(DAY, 1))])
    both.run(BY_SCRIPT, due_at_ms + 1, [encode(Reschedule("k", DAY, other))])
    assert both.knowing.save()[DAYS] == before
    both.run(OFFICE_COMMANDS, due_at_ms + 1, [encode(Reserve("y", DAY, ("py",), choice(("a",))))])
    assert "b,a" in both.knowing.save()[DAYS][str(DAY)].split("\n")[1].split("\t")


@pytest.mark.parametrize("script", [BY_SCRIPT, OFFICE_GUARDED_COMMANDS], ids=["script", "guarded"])
def test_another_writer_prevents_the_fast_path_once(script: Script) -> None:
    """The next call reads the office again, and the one after it need not."""
    both = BothPaths()
    published(both)
    hold(both, 1, script=script)
    hold(both, 2)
    assert both.lone_holds == 0
    hold(both, 3)
    hold(both, 4)
    assert both.lone_holds == 2


def reconcile(server: LuaServer, step: str, *words: str) -> list[str]:
    """Run a step of a reconciliation; returns its reply."""
    return server.run(RECONCILE, KEYS, [str(OPENS_AT_MS + 1), step, "me", *words])


def test_a_reconciliation_deletes_the_write_id() -> None:
    """Its repairs add no event, so the next call must not use what the server knows."""
    both = BothPaths()
    published(both)
    for server in (both.knowing, both.general):
        number = server.save()[HEAD]["number"]
        assert reconcile(server, "begin", ":0:0", "1", "60000")[0] == "GO"
        day = server.save()[DAYS][str(DAY)].replace("\na\t40\t", "\na\t41\t")
        assert reconcile(server, "write", number, "HSET", "2", str(DAY), day) == ["OK"]
        assert "write_id" not in server.save()[HEAD]
        assert reconcile(server, "open", number, "")[0] == "OK"
    hold(both, 1)


def test_a_reconciliation_without_repairs_makes_a_server_read_keys_that_were_changed_by_hand() -> None:
    """An operator restores the penalties of a backup, while the server knows that the office has none."""
    both = BothPaths()
    published(both)
    hold(both, 1)
    for server in (both.knowing, both.general):
        changed = server.save()
        changed[KEYS[OFFICE_KEY_NAMES.index("penalties")]]["p2"] = str(OPENS_AT_MS + 9)
        server.restore(changed)
        number = changed[HEAD]["number"]
        assert reconcile(server, "begin", ":0:0", "1", "60000")[0] == "GO"
        assert reconcile(server, "open", number, "")[0] == "OK"
    assert hold(both, 2)[0].startswith("BLOCKED")


def test_a_guarded_reserve_is_not_taken_for_a_plain_one() -> None:
    """Its guards are checked on the general path."""
    both = BothPaths()
    published(both)
    hold(both, 1, script=OFFICE_GUARDED_COMMANDS)
    hold(both, 2, script=OFFICE_GUARDED_COMMANDS)
    line = encode(GuardedCommand(Reserve("x", DAY, ("p",), CHOICES[0])))
    assert both.run(OFFICE_GUARDED_COMMANDS, OPENS_AT_MS + 1, [line])[0].startswith("G\t-1\t\tNEW")


def test_layout_of_keys() -> None:
    """The tests above name keys by their position."""
    assert OFFICE_KEY_NAMES[:3] == ("head", "days", "records")
