"""Signed tickets and passes."""

from __future__ import annotations

import base64
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quota_engine.admission.tickets import RoomTickets, TicketIndex, TicketKeys, read_pass, read_ticket_index
from quota_engine.domain.errors import InvalidRequest

ONE, OTHER = "0f" * 16, "1e" * 16
RELEASE, OTHER_RELEASE = "ab" * 32, "cd" * 32
KEYS = TicketKeys("k1", {"k1": b"the first key of several"})
ROTATED = TicketKeys("k2", {"k1": b"the first key of several", "k2": b"the second key of several"})
LATER = TicketKeys("k2", {"k2": b"the second key of several"})
ROOM = RoomTickets(KEYS, "december", RELEASE, "k1")
NOW_MS = 1_000_000
ALPHABET = string.ascii_letters + string.digits + "-_"


def pass_of(
    tickets: RoomTickets = ROOM, index: int = 7, until_ms: int = NOW_MS, epoch: int = 1, applicant: str = ONE
) -> str:
    return tickets.admission_pass(index, epoch, applicant, "surabaya", 739_000, 739_004, until_ms)


@given(st.integers(0, 99_999_999), st.integers(1, 2**31), st.integers(1, 2**42))
def test_ticket_contains_its_number(index: int, epoch: int, expires_at_ms: int) -> None:
    """Index and epoch can be read without a key."""
    ticket = ROOM.ticket(index, epoch, ONE, expires_at_ms)
    assert ROOM.read(ticket, expires_at_ms - 1) == (index, epoch)
    assert ROOM.read(ticket, expires_at_ms - 1, ONE) == (index, epoch)
    assert read_ticket_index(ticket) == (index, epoch)


def test_same_ticket_has_the_same_text() -> None:
    assert ROOM.ticket(5, 1, ONE, NOW_MS) == ROOM.ticket(5, 1, ONE, NOW_MS)


def test_texts_and_hashes_of_a_key_never_change() -> None:
    """Tickets that applicants have, and ids that stores have, stay valid when the library is upgraded."""
    ticket = ROOM.ticket(5, 1, ONE, NOW_MS)
    assert ticket == "AQJrMQhkZWNlbWJlcqurq6urq6urAAAABQAAAAEAAAAPQkBbr-aIDXaZwehuLmFidqi825peja0hmJLFqQ"
    assert pass_of() == (
        "AgJrMQhkZWNlbWJlcqurq6urq6urAAAABwAAAAEIc3VyYWJheWELRrgLRrxtoBXFATyLswNvT7lQi1h4AAAAD0JAW6_miA12mcHobujM"
        "Ar1lD0Dqe7n3SWMiAx4"
    )
    keys = KEYS.derived_keys("k1")
    assert keys.seed_key.hex() == "317d51b767e4abe8a8cba88ab838972059db1325a9428ed3feb66a0ddfbadccb"
    assert keys.pass_id_key.hex() == "289ff6a302375f747c81b72cf5781b1f117a64c7c4823e9d70b8d68c2b044b67"


def test_number_of_a_ticket_counts_from_one() -> None:
    assert TicketIndex(0, 1).number == 1


def test_tickets_and_passes_contain_no_identity() -> None:
    """They do not contain the keyed hash either."""
    for text in (ROOM.ticket(5, 1, ONE, NOW_MS), pass_of()):
        raw = base64.urlsafe_b64decode(text + "==")
        assert bytes.fromhex(ONE) not in raw
        assert ONE.encode() not in raw


@pytest.mark.parametrize(
    ("reader", "problem"),
    [
        (RoomTickets(KEYS, "january", RELEASE, "k1"), "another room or release"),
        (RoomTickets(KEYS, "december", OTHER_RELEASE, "k1"), "another room or release"),
        (RoomTickets(TicketKeys("k1", {"k1": b"quite another secret"}), "december", RELEASE, "k1"), "altered"),
        (RoomTickets(LATER, "december", RELEASE, "k2"), "not signed with a known key"),
    ],
)
def test_ticket_of_another_room_release_or_key_is_rejected(reader: RoomTickets, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        reader.read(ROOM.ticket(5, 1, ONE, NOW_MS), 0)


def test_ticket_of_another_applicant_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="another person's"):
        ROOM.read(ROOM.ticket(5, 1, ONE, NOW_MS), 0, OTHER)


def test_expired_ticket_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="expired"):
        ROOM.read(ROOM.ticket(5, 1, ONE, NOW_MS), NOW_MS)


def test_altered_text_is_rejected() -> None:
    """Replace, remove or add a character at each position of a ticket and a pass."""
    ticket, admission = ROOM.ticket(5, 1, ONE, NOW_MS), pass_of()
    chance = random.Random(1)
    for at in range(max(len(ticket), len(admission))):
        for text, read in (
            (ticket, lambda altered: ROOM.read(altered, 0)),
            (admission, lambda altered: read_pass(KEYS, altered, "surabaya", 739_001, [ONE])),
        ):
            if at >= len(text):
                continue
            other = chance.choice([letter for letter in ALPHABET if letter != text[at]])
            for altered in (text[:at] + other + text[at + 1 :], text[:at] + text[at + 1 :], text[:at]):
                with pytest.raises(InvalidRequest):
                    read(altered)


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text[:10] + "\n" + text[10:],
        lambda text: text + "A",
        lambda text: text.replace("-", "+").replace("_", "/") + "=",
        lambda text: text.encode(),
        lambda text: None,
        lambda text: "",
        lambda text: text * 100,
        lambda text: "é" + text,
    ],
)
def test_other_spellings_are_rejected(respell: object) -> None:
    """Padding, white space, the other alphabet and other types."""
    assert callable(respell)
    for index in range(20):
        with pytest.raises(InvalidRequest):
            ROOM.read(respell(ROOM.ticket(index, 1, ONE, NOW_MS)), 0)


def test_spare_bits_must_be_zero() -> None:
    """Other values of the unused bits of the last character decode to the same bytes."""
    room = next(
        candidate
        for name in ("r", "ro", "roo")
        for candidate in [RoomTickets(KEYS, name, RELEASE, "k1")]
        if len(candidate.ticket(5, 1, ONE, NOW_MS)) % 4
    )
    ticket = room.ticket(5, 1, ONE, NOW_MS)
    respelled = ticket[:-1] + ALPHABET_IN_ORDER[ALPHABET_IN_ORDER.index(ticket[-1]) + 1]
    padding = "=" * (-len(ticket) % 4)
    assert base64.urlsafe_b64decode(respelled + padding) == base64.urlsafe_b64decode(ticket + padding)
    with pytest.raises(InvalidRequest, match="canonical spelling"):
        room.read(respelled, 0)


ALPHABET_IN_ORDER = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@pytest.mark.slow
@given(
    st.one_of(st.binary(max_size=200).map(lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()), st.text())
)
@settings(max_examples=300)
def test_arbitrary_input_raises_invalid_request(text: str) -> None:
    for read in (
        lambda: ROOM.read(text, 0),
        lambda: read_pass(KEYS, text, "surabaya", 739_001, [ONE]),
        lambda: read_ticket_index("B" + text),
    ):
        with pytest.raises(InvalidRequest):
            read()


def test_keys_rotate() -> None:
    """Old tickets stay valid until their key is removed. New ones are signed with the active key."""
    old = ROOM.ticket(5, 1, ONE, NOW_MS)
    rotated = RoomTickets(ROTATED, "december", RELEASE, "k1")
    assert rotated.read(old, 0, ONE) == (5, 1)
    new = rotated.ticket(6, 1, ONE, NOW_MS)
    assert RoomTickets(LATER, "december", RELEASE, "k2").read(new, 0, ONE) == (6, 1)
    with pytest.raises(InvalidRequest):
        ROOM.read(new, 0)


def test_key_rotation_does_not_change_the_pass_id() -> None:
    """Otherwise one ticket could get two passes."""
    first = read_pass(ROTATED, pass_of(), "surabaya", 739_000, [ONE])
    second = read_pass(ROTATED, pass_of(RoomTickets(ROTATED, "december", RELEASE, "k1")), "surabaya", 739_000, [ONE])
    assert first == second
    assert pass_of() == pass_of()


def test_pass_contains_its_id_and_expiry() -> None:
    contents = read_pass(KEYS, pass_of(until_ms=NOW_MS), "surabaya", 739_004, [OTHER, ONE])
    assert contents.until_ms == NOW_MS
    assert len(contents.id) == 22
    assert contents.id != read_pass(KEYS, pass_of(index=8), "surabaya", 739_004, [ONE]).id
    elsewhere = RoomTickets(KEYS, "january", RELEASE, "k1")
    assert contents.id != read_pass(KEYS, pass_of(elsewhere), "surabaya", 739_004, [ONE]).id


def test_pass_ids_of_one_number_differ() -> None:
    """After a failover two applicants may have one number. The pass that one has used does not refuse the other."""
    passes = {pass_of(), pass_of(epoch=2), pass_of(applicant=OTHER), pass_of(epoch=2, applicant=OTHER)}
    ids = {read_pass(KEYS, one, "surabaya", 739_000, [ONE, OTHER]).id for one in passes}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("office", "day", "applicants", "problem"),
    [
        ("malang", 739_001, [ONE], "another office"),
        ("surabaya", 738_999, [ONE], "other days"),
        ("surabaya", 739_005, [ONE], "other days"),
        ("surabaya", 739_001, [OTHER], "another person's"),
        ("surabaya", 739_001, [], "another person's"),
    ],
)
def test_pass_is_bound_to_office_days_and_applicant(office: str, day: int, applicants: list[str], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        read_pass(KEYS, pass_of(), office, day, applicants)


def test_tickets_and_passes_are_not_interchangeable() -> None:
    with pytest.raises(InvalidRequest):
        read_pass(KEYS, ROOM.ticket(5, 1, ONE, NOW_MS), "surabaya", 739_001, [ONE])
    with pytest.raises(InvalidRequest):
        ROOM.read(pass_of(), 0)


@pytest.mark.parametrize(
    ("active", "secrets"),
    [
        ("k1", {}),
        ("k2", {"k1": b"x" * 32}),
        ("k1", {"k1": b"too short"}),
        ("k1", {"k1": "x" * 32}),
        ("k 1", {"k 1": b"x" * 32}),
        ("k1", {f"k{number}": b"x" * 32 for number in range(17)}),
        ("k1", [("k1", b"x" * 32)]),
    ],
)
def test_unusable_keys_are_rejected(active: str, secrets: dict[str, bytes]) -> None:
    """1 to 16 secrets of 16 to 64 bytes, one of them active."""
    with pytest.raises(InvalidRequest) as caught:
        TicketKeys(active, secrets)
    assert "too short" not in str(caught.value)


def test_closing_seed_depends_on_key_room_and_nonce() -> None:
    seed = KEYS.derive_closing_seed("k1", "december", "n1")
    assert seed == ROTATED.derive_closing_seed("k1", "december", "n1")
    others = {
        ROTATED.derive_closing_seed("k2", "december", "n1"),
        KEYS.derive_closing_seed("k1", "january", "n1"),
        KEYS.derive_closing_seed("k1", "december", "n2"),
    }
    assert len({seed, *others}) == 4
    with pytest.raises(InvalidRequest, match="k3"):
        KEYS.derive_closing_seed("k3", "december", "n1")


def test_ticket_keys_have_up_to_16_secrets() -> None:
    secrets = {f"k{number}": b"a key of sixteen bytes or more" for number in range(1, 18)}
    with pytest.raises(InvalidRequest, match="1 to 16 secrets"):
        TicketKeys("k1", secrets)
    del secrets["k17"]
    assert TicketKeys("k1", secrets).active == "k1"
