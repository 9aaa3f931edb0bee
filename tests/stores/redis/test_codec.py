"""The texts of records, events and applicants."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.server_memory import GOALS, measure
from quota_engine.conformance.world import ONLINE
from quota_engine.domain.commands import DAY_MAX, Confirm, Publish, Reschedule, Reserve, SetRules
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.model import Choice, DayTerms, QuotaTerms, Rules
from quota_engine.domain.outcomes import Outcome, Status
from quota_engine.domain.penalties import NoShowBlock, PenaltyRecord
from quota_engine.stores.redis.codecs.office import OfficeDecoder, applicant_of_text, encode, text_of_applicant
from quota_engine.stores.redis.codecs.office_state import penalty_of_text, text_of_penalty
from tests.stores.redis.test_differential import check_steps
from tests.support.command_source import Step
from tests.support.servers import Server

HEX = "0123456789abcdef0123456789abcdef"


@given(st.one_of(st.from_regex("[A-Za-z0-9_-]{1,64}", fullmatch=True), st.from_regex("[0-9a-f]{32}", fullmatch=True)))
@example(HEX)
@example("f" * 32)
@example(HEX.upper())
@example("A" + "f" * 31)
@example("A" * 22)
@example("0" * 22)
def test_applicants_survive_encoding(applicant: str) -> None:
    """The short form of any applicant is unique and fits in a list."""
    text = text_of_applicant(applicant)
    assert applicant_of_text(text) == applicant
    assert "," not in text
    assert "\t" not in text


@pytest.mark.parametrize("abandoned_at_ms", [(), (7, 8)])
@pytest.mark.parametrize(
    "blocks", [(), (NoShowBlock("a-1", 20, 90),), (NoShowBlock("a", 20, 90), NoShowBlock("b", 1, 2))]
)
def test_penalties_survive_encoding(abandoned_at_ms: tuple[int, ...], blocks: tuple[NoShowBlock, ...]) -> None:
    penalty = PenaltyRecord((1, 2), 90, abandoned_at_ms, blocks, 5 if blocks else 0)
    assert penalty_of_text(text_of_penalty(penalty)) == penalty


def test_a_keyed_hash_takes_22_characters() -> None:
    """The short form saves a third, in each of the four copies."""
    assert text_of_applicant(HEX) == "ASNFZ4mrze8BI0VniavN7w"


GOOD_RESERVE: dict[str, Any] = {"id": "k", "day": 7, "applicants": ("0" * 32,), "choice": ONLINE}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "a\tb"),
        ("id", 7),
        ("day", 0),
        ("day", DAY_MAX + 1),
        ("day", True),
        ("day", "7"),
        ("applicants", ()),
        ("applicants", (7,)),
        ("applicants", ("a\tb",)),
        ("hold_ttl_ms", -1),
        ("hold_ttl_ms", False),
        ("hold_ttl_ms", 0.0),
        ("valid_until_ms", -1),
        ("valid_until_ms", False),
    ],
)
def test_encoding_refuses_what_the_check_of_a_reserve_refuses(field: str, value: Any) -> None:
    encode(Reserve(**GOOD_RESERVE))
    command = Reserve(**{**GOOD_RESERVE, field: value})
    with pytest.raises(InvalidRequest):
        command.check()
    with pytest.raises(InvalidRequest):
        encode(command)


def test_usual_reserves_are_encoded_as_all_others() -> None:
    """An applicant of another form takes the general way."""
    usual = encode(Reserve(**GOOD_RESERVE)).split("\t")
    general = encode(Reserve(**{**GOOD_RESERVE, "applicants": ("ani",)})).split("\t")
    assert usual[3] == text_of_applicant("0" * 32)
    assert [*usual[:3], "ani", *usual[4:]] == general


def test_holds_with_equal_lines_are_decoded_for_their_own_commands() -> None:
    """A decoder remembers the last line of a new hold, and nothing of its command."""
    decoder = OfficeDecoder("kiosk")
    lines = ["NEW\t5\t9\t0", "NEW\t5\t9\t0", "NEW\t5\t9\t0\t2", "NEW\t5\t9\t0\t2", "NEW\t6\t9\t0", "NEW\t5\t9\t0"]
    for number, line in enumerate(lines):
        command = Reserve(f"k{number}", 7 + number, (HEX,), ONLINE)
        outcome, fresh = decoder.outcome(command, line), OfficeDecoder("kiosk").outcome(command, line)
        assert outcome == fresh
        record = outcome.reservation
        assert (record.id, record.day, record.quotas) == (command.id, command.day, ONLINE.options[0])
        assert (record.created_at_ms, record.deadline_at_ms) == (6 if number == 4 else 5, 9)
        assert outcome.extensions_left == (2 if number in (2, 3) else Outcome(Status.HELD).extensions_left)


def test_short_form_is_unique() -> None:
    """A name that looks like a short form is another applicant: both get a place, and each finds their own."""
    names = (HEX, text_of_applicant(HEX), HEX.upper(), f"x{HEX[1:]}")
    choice = Choice("", "", "", "", "", (("a",), ("b",)))
    opening: list[Step] = [
        (1, SetRules(Rules(reschedules_max=3))),
        (2, Publish(1, DayTerms(0, 2**41, 2**41, 2**42, (QuotaTerms("a", 2), QuotaTerms("b", 9))))),
    ]
    reserves: list[Step] = [(3, Reserve(f"r{number}", 1, (name,), choice)) for number, name in enumerate(names)]
    again: list[Step] = [(4, Reserve(f"again{number}", 1, (name,), choice)) for number, name in enumerate(names)]
    confirms: list[Step] = [(5 + number, Confirm(f"r{number}", name)) for number, name in enumerate(names)]
    by_others: list[Step] = [(20, Confirm("r0", names[1])), (20, Reschedule("r0", 1, choice, names[1]))]
    moves: list[Step] = [(2**40, Reschedule("r0", 1, Choice("", "", "", "", "", (("b",),)), names[0]))]
    party: list[Step] = [(2**41 - 1, Reserve("party", 1, ("y", "A" * 22, "0" * 32), choice))]
    check_steps([*opening, *reserves, *again, *confirms, *by_others, *moves, *party])


@pytest.mark.parametrize("name", ["valkey_server", "redis_server"])
def test_a_place_takes_little_memory_and_a_refusal_none(name: str, request: pytest.FixtureRequest) -> None:
    """The command that measures it, at a number that takes a second; the goals are for a million, where tables are
    about as full.
    """
    server: Server = request.getfixturevalue(name)
    figures = measure(server.url, 3_000)
    assert figures["bytes_a_reservation"] <= GOALS[figures["server"].split()[0]]
    assert figures["bytes_of_keys_a_refusal"] == 0
