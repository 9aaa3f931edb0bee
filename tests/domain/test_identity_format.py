"""The form of identities: every spelling of a number is one identity, and what does not fit is refused."""

from __future__ import annotations

import pickle
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quota_engine.domain import identity_format
from quota_engine.domain.errors import InvalidRequest
from quota_engine.domain.identity import Pseudonyms
from quota_engine.domain.identity_format import _IGNORABLE, IdentityFormat
from tests.support.identities import NIK, SPELLINGS

KEY = b"k" * 16
NIK_FORMAT = IdentityFormat(strip=" .-", pattern=r"\d{16}", expected="16 angka", expected_en="16 digits")
FORMATS = (
    IdentityFormat(),
    NIK_FORMAT,
    IdentityFormat(strip=" -./"),
    IdentityFormat(casefold=True),
    IdentityFormat(strip="-", casefold=True, pattern=r"[a-z]{1,2}\d{6,8}|[^x]{1,200}", expected="x"),
    IdentityFormat(pattern=r"[ -~]{1,20}", expected="printable ASCII"),
)
TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from(" -.\u200b\u0301\ufe0f\u0661\uff11\u1100\u1161\u3164\u0345e"))
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_number_is_one_identity(spelling: str) -> None:
    assert NIK_FORMAT.normalize(spelling) == NIK
    assert Pseudonyms(KEY, NIK_FORMAT).of(spelling) == Pseudonyms(KEY).of(NIK)


@pytest.mark.parametrize(
    "spelling",
    [
        f" {NIK}\n",
        "\u3000" + NIK,
        "３５７８０１２３４５６７８９０１",
        "٣٥٧٨٠١٢٣٤٥٦٧٨٩٠١",
        f"{NIK}\ufe0f",
        f"\u200e{NIK}",
    ],
)
def test_some_spellings_are_one_identity_without_any_settings(spelling: str) -> None:
    assert IdentityFormat().normalize(spelling) == NIK


def test_separators_and_case_distinguish_identities_unless_the_format_says_otherwise() -> None:
    plain = Pseudonyms(KEY)
    assert plain.of("3578-01") != plain.of("357801")
    assert plain.of("a1") != plain.of("A1")
    folded = Pseudonyms(KEY, IdentityFormat(casefold=True))
    assert folded.of("Straße") == folded.of("STRASSE") == plain.of("strasse")


@given(TEXTS, st.sampled_from(FORMATS))
@example("e-\u0301", FORMATS[2])
@example("\uffa0x", FORMATS[0])
def test_normalizing_twice_changes_nothing(text: str, identity_format: IdentityFormat) -> None:
    try:
        once = identity_format.normalize(text)
    except InvalidRequest:
        return
    assert identity_format.normalize(once) == once
    assert once == once.strip()
    assert once.isprintable()
    assert unicodedata.is_normalized("NFKC", once)


@given(TEXTS, st.sampled_from(FORMATS))
def test_the_hash_is_that_of_the_normalized_text(text: str, identity_format: IdentityFormat) -> None:
    """Texts that are equal after normalization have one hash, also those that a quick check lets pass."""
    pseudonyms = Pseudonyms(KEY, identity_format)
    try:
        normalized = identity_format.normalize(text)
    except InvalidRequest:
        with pytest.raises(InvalidRequest):
            pseudonyms.of(text)
        return
    assert pseudonyms.of(text) == pseudonyms.of(normalized) == Pseudonyms(KEY).of_key(normalized, "x")


@pytest.mark.parametrize(
    "identity",
    ["", "357801234567890", "35780123456789012", "35780123456789O1", "3578/0123/4567/8901", "\ufe0f", " ", 3578, None],
)
def test_what_does_not_fit_is_refused_with_the_form_and_not_shown(identity: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Pseudonyms(KEY, NIK_FORMAT).of(identity, "applicants[1]")  # type: ignore[arg-type]
    assert str(caught.value) == "applicants[1]: not a usable identity; expected 16 digits"


@pytest.mark.parametrize("identity", ["35\n78", "35\t78", "\x00", "\ud800", "x" * 257, "\ufdfa" * 20, "\u200b"])
def test_text_without_a_form_must_be_printable_and_not_too_long(identity: str) -> None:
    """A single character can become 18 characters."""
    with pytest.raises(InvalidRequest, match="expected 1 to 256 printable characters"):
        IdentityFormat().normalize(identity)


def test_dashes_and_white_space_of_all_kinds_are_separators() -> None:
    for dash in "-‐‑‒–—−－":
        assert NIK_FORMAT.normalize(f"3578{dash}0123{dash}45678901") == NIK
    for space in " \u00a0\u2009\u3000\t\u2028":
        assert NIK_FORMAT.normalize(f"3578{space}012345678901") == NIK


def test_a_wrong_check_digit_is_named() -> None:
    card = IdentityFormat(pattern=r"\d{12}", check_digit="verhoeff", expected="12 digits", strip=" ")
    assert card.normalize("2341 2341 2346") == "234123412346"
    with pytest.raises(
        InvalidRequest, match="identity: not a usable identity: its check digit is wrong; expected 12 dig"
    ):
        card.normalize("234123412347")


@pytest.mark.slow
def test_ignorable_characters_include_all_format_characters_and_no_visible_one() -> None:
    """Checked against this Python's Unicode data, which may know fewer characters than the list."""
    for code in range(0x110000):
        character = chr(code)
        if unicodedata.category(character) == "Cf":
            assert _IGNORABLE.match(character), hex(code)
        elif _IGNORABLE.match(character):
            assert unicodedata.category(character) in ("Mn", "Lo", "Cn"), hex(code)


@pytest.mark.parametrize(
    ("settings", "where", "problem"),
    [
        ({"strip": "a"}, "strip", "'a'"),
        ({"strip": " " * 33}, "strip", "'"),
        ({"check_digit": "mod97", "expected": "x"}, "check_digit", "'mod97'"),
        ({"pattern": r"\d{16}"}, "expected", "missing"),
        ({"check_digit": "luhn"}, "expected", "missing"),
        ({"pattern": "[A-Z]", "casefold": True, "expected": "x"}, "pattern", "has capital letters"),
        ({"pattern": "(a+)+", "expected": "x"}, "pattern", "+ at character 3"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, object], where: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        IdentityFormat(**settings)  # type: ignore[arg-type]
    assert caught.value.where == where
    assert caught.value.problem.startswith(problem)


def test_a_format_can_be_pickled_and_compared() -> None:
    """Worker processes get the catalog pickled."""
    copy = pickle.loads(pickle.dumps(NIK_FORMAT))  # noqa: S301
    assert copy == NIK_FORMAT != FORMATS[2]
    assert copy.normalize(SPELLINGS[1]) == NIK
    assert (NIK_FORMAT.expected_in("en"), NIK_FORMAT.expected_in("id")) == ("16 digits", "16 angka")


def test_a_text_that_does_not_settle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes are bounded. No text is known that needs as many, so the test allows none."""
    monkeypatch.setattr(identity_format, "_PASSES_MAX", 0)
    with pytest.raises(InvalidRequest, match="not a usable identity; expected 1 to 256 printable characters"):
        IdentityFormat().normalize("é1")
